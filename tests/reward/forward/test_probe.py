"""Each architecture runs in the fastest mode that gives the results of its own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from reward.dense import compute_logprobs, pick_logprobs

from rlt_data.errors import ModelError
from rlt_data.formats import ConversationFormat
from rlt_data.reward.forward.probe import choose_mode
from rlt_data.reward.scoring.scorer import Scorer, TokenScores
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest, ScoringText, build_student_texts

SHAPE = {
    "vocab_size": 600,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OLD_SHAPE = {"vocab_size": 600, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS: list[tuple[str, Any, str]] = [
    ("llama", transformers.LlamaConfig(**SHAPE), "packed"),
    ("mistral, window", transformers.MistralConfig(**SHAPE, sliding_window=9), "packed"),
    ("qwen3", transformers.Qwen3Config(**SHAPE, head_dim=16), "packed"),
    ("gemma2, window and caps", transformers.Gemma2Config(**SHAPE, head_dim=8, sliding_window=9), "packed"),
    ("granite, scaled logits", transformers.GraniteConfig(**SHAPE, logits_scaling=4.0), "packed"),
    (
        "gpt2, learned positions",
        transformers.GPT2Config(**OLD_SHAPE, n_embd=32, n_layer=2, n_head=4, n_positions=1024),
        "packed",
    ),
    (
        "bloom, alibi",
        transformers.BloomConfig(**OLD_SHAPE, hidden_size=32, n_layer=2, n_head=4),
        "padded",
    ),
]


def build_model(config: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False)


@pytest.mark.parametrize(("config", "mode"), [c[1:] for c in CONFIGS], ids=[c[0] for c in CONFIGS])
def test_every_architecture_scores_as_its_own_forward_pass_does(
    config: Any,
    mode: str,
    student: ScoringModel,
    short_format: ConversationFormat,
    requests_: Sequence[ScoreRequest],
) -> None:
    scoring = ScoringModel("other", build_model(config), student.tokenizer)
    scorer = Scorer(short_format, [scoring])
    assert scorer.students[0].mode == mode
    assert bool(scorer.notes) == (mode != "packed")
    requests = [requests_[0], requests_[2], requests_[5]]
    texts = build_student_texts(short_format, student.tokenizer, requests)
    for text, scores in zip(texts, scorer.score(requests), strict=True):
        assert isinstance(text, ScoringText)
        assert isinstance(scores, TokenScores)
        logprobs = compute_logprobs(scoring.model, text.token_ids, 0.7)
        for values, span in ((scores.think_student, text.think), (scores.solution_logprobs, text.solution)):
            expected = pick_logprobs(logprobs, text.token_ids, span)
            torch.testing.assert_close(torch.tensor(values).double(), expected.double(), atol=5e-5, rtol=0)


def test_attention_with_sinks_is_left_to_the_model() -> None:
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = transformers.GptOssConfig(
        **SHAPE, head_dim=16, num_local_experts=4, sliding_window=9, rope_parameters=rope
    )
    mode, note = choose_mode(build_model(config))
    assert mode == "padded"
    assert note is not None
    assert "padded" in note


class TiltedHead(torch.nn.Linear):
    """An output layer that computes more than its weights define."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        logits = super().forward(input)
        return logits + 0.3 * logits.sin()


def test_an_output_layer_without_tiles_is_computed_whole(
    student: ScoringModel, short_format: ConversationFormat, requests_: Sequence[ScoreRequest]
) -> None:
    model = build_model(transformers.LlamaConfig(**SHAPE))
    head = TiltedHead(32, 600, bias=False)
    head.weight = model.lm_head.weight
    model.lm_head = head
    scoring = ScoringModel("tilted", model, student.tokenizer)
    scorer = Scorer(short_format, [scoring], replace(scoring, name="teacher"), exact=True)
    assert scorer.students[0].mode == "dense"
    assert "cannot be computed in tiles" in scorer.notes[0]
    for scores in scorer.score(requests_):
        assert isinstance(scores, TokenScores)
        assert min(scores.think_divergences or [0]) >= 0
        text = build_student_texts(
            short_format, student.tokenizer, [r for r in requests_ if r.key == scores.key]
        )[0]
        assert isinstance(text, ScoringText)
        expected = pick_logprobs(compute_logprobs(model, text.token_ids, 0.7), text.token_ids, text.solution)
        found = torch.tensor(scores.solution_logprobs).double()
        torch.testing.assert_close(found, expected.double(), atol=5e-5, rtol=0)


def test_a_model_that_differs_in_every_mode_is_refused() -> None:
    model = build_model(transformers.LlamaConfig(**SHAPE))
    noisy = torch.nn.Dropout(0.5)
    model.lm_head.register_forward_hook(lambda layer, inputs, output: noisy(output))
    with pytest.raises(ModelError, match="different log-probabilities"):
        choose_mode(model)
