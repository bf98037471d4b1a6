"""TRL's GRPOTrainer with three additions: seeded sampling, recorded rollouts, and a check of the engine.

The loss, the advantages, the reference model and the optimizer are TRL's, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from accelerate.utils import gather_object
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import pad

from rlt_data.engines.base import SamplingParameters
from rlt_data.engines.stopping import CompletionReader
from rlt_data.training.rl.engine_sync import SyncCheck
from rlt_data.training.rl.seeded_sampling import SeededDraws, StopAtText, make_seed

Record = Callable[[list[dict[str, Any]]], None]


class RltTrainer(GRPOTrainer):
    """GRPO that records its rollouts.

    Rows of the dataset need `group_index`, the index of their group in the whole training, and the option
    `remove_unused_columns` must be off. After each generation `record` is called in the main process with
    one dictionary per completion of all processes: the dataset's columns except the prompt, `step`,
    `sample_index`, `completion_ids`, `prompt_tokens`, `truncated` (whether the length limit ended it),
    `advantage`, and `scored`, the completion's entry of the reward function's `last`. A completion ends at
    the model's end tokens, and once it contains `stop`.
    """

    def __init__(
        self,
        *arguments: Any,
        draw_seed: int,
        record: Record | None = None,
        stop: str | None = None,
        sync: SyncCheck | None = None,
        **options: Any,
    ) -> None:
        self.eos_token_ids: list[int] = []
        super().__init__(*arguments, **options)
        self.draw_seed = draw_seed
        self.record = record
        self.sync = sync or SyncCheck()
        self._rows: list[dict[str, Any]] = []
        self._drawn: list[list[float]] | None = None
        self._recomputed: torch.Tensor | None = None
        self._completion_ids: list[list[int]] = []
        self.stop = stop
        self._reader = CompletionReader(self.processing_class, (stop,) if stop else ())
        ids = self.processing_class(stop, add_special_tokens=False)["input_ids"] if stop else []
        if len(ids) == 1:
            # A single token is an end token like any other, also in TRL's own counts.
            self.stop = None
            self.eos_token_ids = [*self.eos_token_ids, ids[0]]
            # vLLM has neither attribute, and stops at the text.
            if not self.use_vllm:
                self.generation_config.eos_token_id = self.eos_token_ids
                self.generation_kwargs["eos_token_id"] = self.eos_token_ids
        # TRL regards a completion that ends at a text as truncated, so this class masks instead.
        self._mask_truncated = bool(self.args.mask_truncated_completions)
        self.mask_truncated_completions = False

    @property
    def draws_by_seed(self) -> bool:
        """Whether sampling depends on each row's seed only, so that repeated steps sample the same."""
        elsewhere = self.use_vllm or self.use_transformers_continuous_batching or self.args.generation_kwargs
        return not elsewhere and self.repetition_penalty == 1.0 and not self.min_p

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        # A rendered prompt contains its special tokens already; TRL would make the tokenizer add another one.
        if all(isinstance(prompt, str) for prompt in prompts):
            return self.processing_class(prompts, add_special_tokens=False)["input_ids"], None, {}
        return super()._tokenize_prompts(prompts)

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, **options: Any
    ) -> Any:
        self._drawn = None
        if not self.draws_by_seed or multimodal_fields:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, **options
            )
        completion_ids = self._generate_seeded(prompt_ids, num_generations)
        return completion_ids, None

    def _generate_seeded(self, prompt_ids: list[list[int]], num_generations: int) -> list[list[int]]:
        first = self.accelerator.process_index * len(prompt_ids)
        seeds = [
            make_seed(self.draw_seed, row["group_index"], (first + i) % num_generations)
            for i, row in enumerate(self._rows)
        ]
        draws = SeededDraws(
            seeds,
            SamplingParameters(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k or 0,
                max_tokens=self.max_completion_length,
                stop=(),
            ),
        )
        tensors = [torch.tensor(ids) for ids in prompt_ids]
        inputs = self._to_device(
            {
                "input_ids": pad(
                    tensors, padding_value=self.processing_class.pad_token_id, padding_side="left"
                ),
                "attention_mask": pad(
                    [torch.ones_like(ids) for ids in tensors], padding_value=0, padding_side="left"
                ),
            }
        )
        width = inputs["input_ids"].shape[1]
        stopping = StopAtText(self.processing_class, self.stop, prompt_length=width) if self.stop else None
        greedy = transformers.GenerationConfig(
            max_new_tokens=self.max_completion_length,
            do_sample=False,
            pad_token_id=self.processing_class.pad_token_id,
            eos_token_id=self.eos_token_ids,
            cache_implementation=self.args.cache_implementation,
            disable_compile=True,
        )
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=greedy.to_diff_dict(),
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            written = model.generate(
                **inputs,
                generation_config=greedy,
                logits_processor=[draws],
                stopping_criteria=[stopping] if stopping else None,
            )
        written = written[:, width:].tolist()
        lengths = stopping.lengths if stopping else {}
        completion_ids = [
            _cut(ids[: lengths.get(row)], self.eos_token_ids) for row, ids in enumerate(written)
        ]
        self._drawn = [draws.list_row(row, len(ids)) for row, ids in enumerate(completion_ids)]
        return completion_ids

    def _to_device(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.accelerator.device) for name, tensor in inputs.items()}

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        self._completion_ids = completion_ids_list
        logprobs = self._drawn
        if logprobs is None and self._recomputed is not None:
            pairs = zip(self._recomputed.tolist(), completion_ids_list, strict=True)
            logprobs = [values[: len(ids)] for values, ids in pairs]
        if logprobs is not None:
            pairs = zip(inputs, logprobs, strict=True)
            inputs = [{**row, "completion_logprobs": values} for row, values in pairs]
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _get_per_token_logps_and_entropies(self, model: Any, *arguments: Any, **options: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(model, *arguments, **options)
        # TRL's first pass without gradient, where it makes one, gives the log-probabilities of the policy
        # that sampled: those of the teacher in the reward, which then needs no forward pass.
        if self._recomputes_policy and self._recomputed is None and not torch.is_grad_enabled():
            self._recomputed = result[0]
        return result

    @property
    def _recomputes_policy(self) -> bool:
        """Whether TRL recomputes the policy's log-probabilities after a generation, by TRL's condition."""
        generate_every = self.args.steps_per_generation * self.num_iterations
        misaligned = self.args.gradient_accumulation_steps % generate_every != 0
        return bool(misaligned or (self.use_vllm and self.vllm_importance_sampling_correction))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = inputs
        self._recomputed = None
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.use_vllm:
            self.sync.compare(output, step=self.state.global_step)
        truncated = [self.is_truncated(ids) for ids in self._completion_ids]
        if self._mask_truncated:
            kept = torch.tensor([not flag for flag in truncated], device=output["completion_mask"].device)
            output["completion_mask"] = output["completion_mask"] * kept.unsqueeze(1)
            output["num_items_in_batch"] = self.accelerator.gather(output["completion_mask"].sum()).sum()
        if self.model.training:
            self._record_rollouts(inputs, output, truncated)
        return output

    def is_truncated(self, ids: Sequence[int]) -> bool:
        """Whether the length limit ended a completion, rather than an end token or the stop text."""
        ended = bool(ids) and (ids[-1] in self._ends or self._reader.ends_here(ids))
        return len(ids) >= self.max_completion_length and not ended

    @property
    def _ends(self) -> set[int]:
        return {*self.eos_token_ids, self.processing_class.eos_token_id}

    def _record_rollouts(
        self, inputs: list[dict[str, Any]], output: dict[str, Any], truncated: list[bool]
    ) -> None:
        scored = next((list(f.last) for f in self.reward_funcs if hasattr(f, "last")), [None] * len(inputs))
        first = self.accelerator.process_index * len(inputs)
        prompt_tokens = output["prompt_mask"].sum(dim=1).tolist()
        rows = [
            {
                **{name: value for name, value in row.items() if name != "prompt"},
                "step": self.state.global_step,
                "sample_index": (first + i) % self.num_generations,
                "completion_ids": self._completion_ids[i],
                "prompt_tokens": prompt_tokens[i],
                "truncated": truncated[i],
                "advantage": advantage,
                "scored": scored[i],
            }
            for i, (row, advantage) in enumerate(zip(inputs, output["advantages"].tolist(), strict=True))
        ]
        # All processes must take part in gathering, also those that record nothing.
        gathered = gather_object(rows)
        share = sum(row["truncated"] for row in gathered) / len(gathered)
        metrics = self._metrics["train"]
        metrics["rlt/cut_off_share"].append(share)
        # TRL counts only completions that an end token ended.
        lengths = [len(row["completion_ids"]) for row in gathered if not row["truncated"]] or [0]
        metrics["completions/clipped_ratio"][-1] = share
        metrics["completions/mean_terminated_length"][-1] = sum(lengths) / len(lengths)
        metrics["completions/min_terminated_length"][-1] = min(lengths)
        metrics["completions/max_terminated_length"][-1] = max(lengths)
        if self.accelerator.is_main_process and self.record is not None:
            self.record(gathered)


def _cut(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Return a completion up to its first end token, that token included."""
    for position, token in enumerate(ids):
        if token in ends:
            return ids[: position + 1]
    return ids
