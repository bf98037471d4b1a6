"""Checks of what a built trainer will do: its batches keep every label, and packed examples stay apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rlt_data.errors import InputError, UsageError, require_module
from rlt_data.training.common.callbacks import Callback
from rlt_data.training.sft.examples import IGNORED
from rlt_data.training.sft.tokenized import TokenizedExamples

_PROBE_TOKENS = 32
# Shares of the spread of the logits. Kernels give the same numbers for the same shapes, and nearly the same
# for others.
_LEAK = 1e-4
_GAP = 0.05


def check_loss_terms(trainer: Any) -> None:
    """Raise `UsageError` where the loss of a step would depend on how it is split into batches.

    transformers counts the labels of a step for models that accept the count only.
    """
    if not trainer.model_accepts_loss_kwargs:
        raise UsageError(
            "the model's forward method does not accept further arguments, so transformers averages the loss "
            "over batches of different numbers of labels instead of over labels",
            where=type(trainer.accelerator.unwrap_model(trainer.model)).__name__,
            remedy="use an architecture that transformers itself implements",
        )


def check_padding(trainer: Any, examples: TokenizedExamples) -> None:
    """Collate the shortest and the longest example, and check that padding has no label and labels are kept.

    The padding token may be the end token (TRL uses it where the tokenizer has none). Raises `InputError`
    where padding would have labels, or an end token at the end of an example none.
    """
    rows = [examples.select(index) for index in examples.find_extremes()]
    features = [{"input_ids": ids.tolist(), "labels": labels.tolist()} for ids, labels in rows]
    if trainer.args.packing:
        features = [{**feature, "seq_lengths": [len(feature["labels"])]} for feature in features]
    collated = trainer.data_collator(features)["labels"]
    found = Counter(collated[collated != IGNORED].tolist())
    expected = Counter(label for _, labels in rows for label in labels[labels != IGNORED].tolist())
    if found != expected:
        changed = sorted((found - expected) | (expected - found))
        names = trainer.processing_class.convert_ids_to_tokens(changed[:5])
        raise InputError(
            "a batch has other labels than its examples: padding must have no label, and the end token one",
            where=f"labels of {', '.join(map(repr, names))}, in a batch of the shortest and the longest",
            remedy="give the tokenizer a pad_token that is not its end token",
        )


class PackingCheck(Callback):
    """Checks before the first step that examples of one packed row do not attend to each other.

    Some attention implementations ignore the position ids that separate them; the loss looks healthy then.
    """

    def __init__(self, trainer: Any, examples: TokenizedExamples) -> None:
        self.trainer = trainer
        self.examples = examples

    def on_train_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """Compare the logits of one example alone, behind another, and behind a third one.

        Raises `UsageError` where they differ.
        """
        torch = require_module("torch", "train")
        last = self.examples.find_extremes()[1]
        tokens = self.examples.select(last)[0].tolist()
        first, second = tokens[:_PROBE_TOKENS], tokens[-_PROBE_TOKENS:]
        alone = self._compute_logits([second])
        behind, behind_other = (
            self._compute_logits([other, second])[len(first) :] for other in (first, first[::-1])
        )
        spread = float(torch.cat([alone, behind]).std())
        leak = float((behind - behind_other).abs().max())
        gap = float((behind - alone).abs().mean())
        if leak > _LEAK * spread or gap > _GAP * spread:
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            attention = getattr(model.config, "_attn_implementation", "unknown")
            raise UsageError(
                "packed examples would attend to each other: the model's attention ignores where they begin",
                where=f"attention {attention!r} of {type(model).__name__}: the logits of an example "
                f"change by {max(leak, gap):.3g} with what is packed before it",
                remedy="set sft.packing (and padding_free) to false, or attn_implementation in "
                "sft.trainer.model_init_kwargs to sdpa or flash_attention_2",
            )

    def _compute_logits(self, texts: list[list[int]]) -> Any:
        torch = require_module("torch", "train")
        trainer = self.trainer
        packed = {
            "input_ids": [token for text in texts for token in text],
            "labels": [token for text in texts for token in text],
            "seq_lengths": [len(text) for text in texts],
        }
        inputs = trainer._prepare_inputs(trainer.data_collator([packed]))
        del inputs["labels"]
        # The wrapped one: DeepSpeed and FSDP gather sharded weights in its forward pass.
        model = trainer.model_wrapped
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), trainer.compute_loss_context_manager():
                return model(**inputs, use_cache=False).logits[0].float().cpu()
        finally:
            model.train(training)
