"""TRL's SFTTrainer whose steps depend on the seed only: not on processes, batch sizes or interruptions.

The loss, the optimizer and the schedule are TRL's, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from trl import SFTTrainer

from rlt_data.training.sft.examples import IGNORED


class EpochOrder(Sampler[int]):
    """The order of the examples in each epoch: a permutation that seed and epoch determine.

    `find_epoch` is called when an epoch begins, or is resumed. Where `batch`, the examples of one pass of all
    processes, does not divide the examples, the last batch is filled up with `filler`, a row without labels:
    accelerate would repeat examples.
    """

    def __init__(
        self,
        examples: int,
        *,
        seed: int | None,
        find_epoch: Callable[[], int],
        batch: int = 1,
        filler: int = 0,
    ) -> None:
        self.examples = examples
        self.seed = seed
        self.find_epoch = find_epoch
        self.fillers = -examples % batch
        self.filler = filler

    def __len__(self) -> int:
        return self.examples + self.fillers

    def __iter__(self) -> Iterator[int]:
        if self.seed is None:
            yield from range(self.examples)
        else:
            generator = torch.Generator().manual_seed(self.seed + self.find_epoch())
            yield from torch.randperm(self.examples, generator=generator).tolist()
        yield from [self.filler] * self.fillers


class OrderedTrainer(SFTTrainer):
    """SFT in the order of `EpochOrder`. In several processes the dataset's last row is the filler."""

    _steps_per_epoch = 1
    _order: EpochOrder | None = None

    @property
    def filler_tokens(self) -> int:
        """The number of tokens of fillers in the epochs that are over."""
        fillers = self._order.fillers if self._order is not None else 0
        return 2 * fillers * int(self.state.global_step // self._steps_per_epoch)

    def restore_token_count(self, tokens: int, step: int) -> None:
        """Restore the count that was logged after so many steps; TRL restarts it at 0."""
        self._restored = (tokens, step)

    def set_initial_training_values(self, *arguments: Any, **values: Any) -> Any:
        """Note the steps of an epoch."""
        found = super().set_initial_training_values(*arguments, **values)
        self._steps_per_epoch = max(1, int(found[1]))
        tokens, step = getattr(self, "_restored", (0, 0))
        fillers = self._order.fillers if self._order is not None else 0
        self._total_train_tokens = tokens + 2 * fillers * (step // self._steps_per_epoch)
        return found

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows = len(self.train_dataset if train_dataset is None else train_dataset)
        world = self.accelerator.num_processes
        examples = rows - 1 if world > 1 else rows
        shuffled = getattr(self.args, "train_sampling_strategy", "random") != "sequential"
        self._order = EpochOrder(
            examples,
            seed=self.args.seed if shuffled else None,
            find_epoch=lambda: self.state.global_step // self._steps_per_epoch,
            batch=self.args.per_device_train_batch_size * world if world > 1 else 1,
            filler=examples,
        )
        return self._order

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **values: Any) -> Any:
        """Compute TRL's loss. A batch of fillers alone takes no part in the means of its metrics."""
        loss = super().compute_loss(model, inputs, *arguments, **values)
        if self.accelerator.num_processes > 1 and not bool((inputs["labels"] != IGNORED).any()):
            means = [self._metrics["train"][name] for name in ("entropy", "mean_token_accuracy")]
            # Zero for all processes: elsewhere another one has labels.
            if all(mean and mean[-1] == 0.0 for mean in means):
                for mean in means:
                    mean.pop()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as TRL does, without the tokens of fillers."""
        counted = self._metrics["train"].get("num_tokens")
        if counted and self.model.training:
            self._metrics["train"]["num_tokens"] = [counted[-1] - self.filler_tokens]
        super().log(logs, start_time)
