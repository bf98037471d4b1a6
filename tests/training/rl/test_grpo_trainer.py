"""What the trainer passes to a reward: the sampled tokens' log-probabilities, sampled or recomputed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlt_data.formats import load_format, render_teacher_prompt

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")


class Listener:
    """A reward that records its calls."""

    __name__ = "listener"

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        self.calls.append({"prompts": prompts, **columns})
        return [float(len(ids)) for ids in columns["completion_ids"]]


def train(models: dict[str, str], tokenizer: Any, folder: Path, **options: Any) -> list[dict[str, Any]]:
    calls, _ = train_and_keep(models, tokenizer, folder, **options)
    return calls


def train_and_keep(
    models: dict[str, str], tokenizer: Any, folder: Path, *, stop: str | None = None, **options: Any
) -> tuple[list[dict[str, Any]], Any]:
    import datasets

    from rlt_data.training.rl.grpo_trainer import RltTrainer

    prompts = [
        render_teacher_prompt(load_format("stratos"), tokenizer, f"State it: {n} + 1 =", f"{n + 1}").text
        for n in range(4)
    ]
    listener = Listener()
    config = trl.GRPOConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=8,
        num_generations=4,
        learning_rate=1e-2,
        shuffle_dataset=False,
        remove_unused_columns=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        **{"max_completion_length": 6, "temperature": 0.8, **options},
    )
    trainer = RltTrainer(
        models["teacher"],
        reward_funcs=[listener],
        args=config,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts, "group_index": list(range(4))}),
        processing_class=tokenizer,
        draw_seed=3,
        stop=stop,
    )
    trainer.train()
    return listener.calls, trainer


@pytest.mark.parametrize(
    "options",
    [{}, {"num_iterations": 2, "min_p": 1e-4, "beta": 0.04}],
    ids=["drawn by seed", "recomputed by TRL"],
)
def test_log_probabilities_are_the_policys(
    models: dict[str, str], tokenizer: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    first = train(models, tokenizer, tmp_path, **options)[0]
    policy = AutoModelForCausalLM.from_pretrained(models["teacher"], dtype="float32").eval()
    assert len(first["completion_logprobs"]) == 8
    for prompt, written, logprobs in zip(
        first["prompts"], first["completion_ids"], first["completion_logprobs"], strict=True
    ):
        ids = tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            logits = policy(input_ids=torch.tensor([ids + written])).logits[0, len(ids) - 1 : -1]
        chosen = (logits / 0.8).log_softmax(dim=-1).gather(1, torch.tensor(written).unsqueeze(1))
        assert logprobs == pytest.approx(chosen.squeeze(1).tolist(), abs=1e-4)


def test_sampling_by_trl_itself_leaves_none(models: dict[str, str], tokenizer: Any, tmp_path: Path) -> None:
    """With min_p the draws are TRL's, and on-policy it recomputes nothing: no number is made up."""
    calls = train(models, tokenizer, tmp_path, min_p=1e-4)
    assert all("completion_logprobs" not in call for call in calls)


def test_a_stop_of_several_tokens_ends_a_completion(models: dict[str, str], tokenizer: Any) -> None:
    from rlt_data.training.rl.seeded_sampling import StopAtText

    texts = ["ab</end>cd", "ab</en", "</end>"]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    assert len(tokenizer("</end>")["input_ids"]) > 1
    stopping = StopAtText(tokenizer, "</end>", prompt_length=2)
    width = max(len(written) for written in ids)
    for step in range(1, width + 1):
        rows = [[7, 7, *(written + [0] * width)[:step]] for written in ids]
        flags = stopping(torch.tensor(rows), None).tolist()
    assert flags == [True, False, True]
    assert stopping.lengths == {0: len(tokenizer("ab</end>")["input_ids"]), 2: len(ids[2])}


def test_training_stops_at_a_text(models: dict[str, str], tokenizer: Any, tmp_path: Path) -> None:
    """With a stop of two bytes that a random model soon writes, completions end there and keep it."""
    calls = train(models, tokenizer, tmp_path, stop="ee", max_completion_length=40, temperature=0.4)
    completions = [ids for call in calls for ids in call["completion_ids"]]
    for ids in completions:
        assert "ee" not in tokenizer.decode(ids[:-1]), "nothing is written after it"
    stopped = [ids for ids in completions if "ee" in tokenizer.decode(ids)]
    assert stopped
    assert all(len(ids) == 40 for ids in completions if ids not in stopped)


def test_completions_that_a_text_ends_are_not_truncated(
    models: dict[str, str], tokenizer: Any, tmp_path: Path
) -> None:
    """TRL knows end tokens alone: it would mask every completion that ends at a text of several tokens."""
    options = {"max_completion_length": 40, "temperature": 0.4, "mask_truncated_completions": True}
    calls, trainer = train_and_keep(models, tokenizer, tmp_path, stop="ee", logging_steps=1, **options)
    completions = [ids for call in calls for ids in call["completion_ids"]]
    closed = [ids for ids in completions if len(ids) < 40 or "ee" in tokenizer.decode(ids)]
    assert any("ee" in tokenizer.decode(ids) for ids in closed)
    assert len(closed) < len(completions)
    logged = [entry for entry in trainer.state.log_history if "completions/clipped_ratio" in entry]
    shares = [float(entry["completions/clipped_ratio"]) for entry in logged]
    assert sum(shares) / 2 == pytest.approx(1 - len(closed) / len(completions))
    last = [ids for ids in calls[-1]["completion_ids"] if ids in closed]
    assert float(logged[-1]["completions/max_terminated_length"]) == max(map(len, last), default=0)
    assert any(float(entry["grad_norm"]) > 0 for entry in logged), "what a text ended is learned from"


def test_a_tokenizer_that_begins_every_text_adds_nothing_to_a_rendered_prompt(
    models: dict[str, str], tokenizer: Any, tmp_path: Path
) -> None:
    """Llama 3's puts its first token before every text, and its chat template has written one already."""
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    beginning = deepcopy(tokenizer)
    first = beginning.pad_token
    beginning.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, beginning.pad_token_id)]
    )
    assert beginning("a")["input_ids"] != tokenizer("a")["input_ids"]
    calls, trainer = train_and_keep(models, beginning, tmp_path)
    prompts = calls[0]["prompts"][:1]
    assert trainer._tokenize_prompts(prompts)[0] == tokenizer(prompts)["input_ids"]
