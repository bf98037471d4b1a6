"""Makes the small tokenizers of `tests/formats/tokenizers`: `python tests/formats/make_tokenizers.py`.

Byte-level, with a few merges, so that tokens straddle the edges of tags as published tokenizers' do. Each
has a chat template that does one thing to a conversation that some published template does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "tokenizers"

PAD, BEGIN, END, SYSTEM, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<|sys|>", "<|usr|>", "<|ast|>"
SPECIAL = (PAD, BEGIN, END, SYSTEM, USER, ASSISTANT)
DEFAULT_SYSTEM = "You answer politely."

MERGES = [
    ("Ċ", "Ċ"),
    (">", "Ċ"),
    ("Ġ", "Ġ"),
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġt", "he"),
    ("1", "2"),
    ("<", "/"),
    (".", "<"),
]

_TURN = "{{ '<|usr|>' if m.role == 'user' else '<|sys|>' if m.role == 'system' else '<|ast|>' }}"
_OPEN = "{% if add_generation_prompt %}<|ast|>{% endif %}"


def _each(content: str, *, turn: str = _TURN, before: str = "<s>", after: str = _OPEN) -> str:
    return f"{before}{{% for m in messages %}}{turn}{content}</s>{{% endfor %}}{after}"


TEMPLATES = {
    "plain": _each("{{ m.content }}"),
    # Cuts what comes before </think> in every answer, as DeepSeek-R1's does.
    "strips_thinking": _each("{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}"),
    # Writes an empty block before an answer without <think>, and drops earlier thinking, as Qwen3's does.
    "adds_empty_thinking": _each(
        "{% if m.role == 'assistant' and '</think>' not in m.content %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content if loop.last or m.role != 'assistant' else m.content.split('</think>')[-1] }}"
    ),
    "refuses_system": _each(
        "{% if m.role == 'system' %}{{ raise_exception('Only users and assistants speak.') }}{% endif %}"
        "{{ m.content }}"
    ),
    "drops_system": "<s>{% for m in messages if m.role != 'system' %}"
    + _TURN
    + "{{ m.content }}</s>{% endfor %}"
    + _OPEN,
    "adds_default_system": _each(
        "{{ m.content }}",
        before="<s>{% if messages[0].role != 'system' %}<|sys|>" + DEFAULT_SYSTEM + "</s>{% endif %}",
    ),
    "system_in_user": "<s>{% set ns = namespace(first='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.first = m.content + '\n\n' %}{% else %}"
    + _TURN
    + "{{ (ns.first if m.role == 'user' else '') + m.content }}</s>{% endif %}{% endfor %}"
    + _OPEN,
    "trims_content": _each("{{ m.content | trim }}"),
    "opens_thinking": _each(
        "{{ m.content }}", after="{% if add_generation_prompt %}<|ast|><think>\n{% endif %}"
    ),
    # Opens the thinking before every answer, the finished ones too.
    "always_opens_thinking": _each(
        "{% if m.role == 'assistant' %}<think>\n{% endif %}{{ m.content }}",
        after="{% if add_generation_prompt %}<|ast|><think>\n{% endif %}",
    ),
    "dates": _each("{{ m.content }}", before="<s>{{ strftime_now('%d %B %Y') }} "),
}

# Its configuration names a class that splits text differently from tokenizer.json, as DeepSeek's does.
OTHER_CLASS = "strips_thinking"
# Its tokenizer puts <s> before every text, as Llama 3's does, and so does its template.
ADDS_BEGIN = "adds_default_system"


def build(name: str) -> dict[str, str]:
    """The files of one tokenizer by their names."""
    from tokenizers import pre_tokenizers

    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    vocabulary = {word: number for number, word in enumerate(words)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level: dict[str, Any] = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False,
    }  # fmt: skip
    begin = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": BEGIN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BEGIN: {"id": BEGIN, "ids": [vocabulary[BEGIN]], "tokens": [BEGIN]}},
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[token], "content": token, **flags} for token in SPECIAL],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"},
                    "behavior": "Isolated",
                    "invert": False,
                },
                byte_level,
            ],
        },
        "post_processor": begin if name == ADDS_BEGIN else byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": [" ".join(pair) for pair in MERGES],
        },
    }
    config = {
        "tokenizer_class": "LlamaTokenizerFast" if name == OTHER_CLASS else "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "chat_template.jinja": TEMPLATES[name],
    }


def main() -> None:
    """Write all of them."""
    for name in TEMPLATES:
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in build(name).items():
            (folder / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
