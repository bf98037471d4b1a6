"""One training run in one or several processes: the main one reads and writes the lake, all of them train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from rlt_data.errors import require_module
from rlt_data.lake import Lake
from rlt_data.models import ModelIdentity
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import check_predicates
from rlt_data.stages.runtime.starting import start_run
from rlt_data.training.common.callbacks import Callback
from rlt_data.training.common.checkpoints import CheckpointCallback, find_complete_checkpoint
from rlt_data.training.common.distributed import World
from rlt_data.training.common.divergence import DivergenceCallback
from rlt_data.training.common.health import HealthCallback
from rlt_data.training.common.metrics import MetricsCallback
from rlt_data.training.common.progress_table import ProgressTable
from rlt_data.training.common.saving import describe_result, save_result
from rlt_data.training.common.weights import explain_coarse_weights

WorkT = TypeVar("WorkT")


class TrainingSession:
    """One process working on one training run.

    `run` is None in all processes but the main one. Checkpoints are kept in `directory`, and the trained
    model is `directory`/model.
    """

    def __init__(
        self,
        stage: str,
        base: ModelIdentity,
        *,
        run: StageRun | None,
        run_id: str,
        directory: Path,
        keep_checkpoints: int,
        reporter: Reporter,
    ) -> None:
        self.stage = stage
        self.base = base
        self.run = run
        self.run_id = run_id
        self.directory = directory
        self.reporter = reporter
        self._table: ProgressTable | None = None
        self._checkpoints = CheckpointCallback(self._commit, keep=keep_checkpoints, run_id=run_id)

    @contextmanager
    def show_progress(self, steps: int) -> Iterator[list[Callback]]:
        """Show the progress of so many steps while the block runs; yields callbacks for the trainer."""
        table = ProgressTable(self.stage.upper(), steps, quiet=self.reporter.quiet)
        self._table = table
        try:
            yield [
                MetricsCallback(self.run, phase=self.stage),
                HealthCallback(self.warn),
                table,
                DivergenceCallback(self.stage),
            ]
        finally:
            table.close()

    def note(self, text: str) -> None:
        """Add a sentence to the run's summary; does nothing outside the main process."""
        if self.run is not None:
            self.run.note(text)

    def message(self, text: str) -> None:
        """Show one line, such as what is waited for; does nothing outside the main process."""
        if self.run is not None:
            self.reporter.message(text)

    def warn(self, text: str) -> None:
        """Show a warning, and keep it as a note of the run."""
        if self._table is not None:
            self._table.warn(text)
        self.note(text)

    def watch(self, trainer: Any) -> None:
        """Complete the trainer's checkpoints, and warn about weights that are too coarse for its updates.

        Raises `UsageError` as `CheckpointCallback.watch`.
        """
        # With progress bars off, transformers prints every log as a dictionary.
        trainer.remove_callback(require_module("transformers", "train").PrinterCallback)
        if self.run is not None and (coarse := explain_coarse_weights(trainer)):
            self.warn(coarse)
        self._checkpoints.watch(trainer)
        # Added last: a checkpoint is complete once all other callbacks have handled the save.
        trainer.add_callback(self._checkpoints)

    def find_checkpoint(self) -> Path | None:
        """Find the checkpoint from which this run resumes; None where it starts."""
        return find_complete_checkpoint(self.directory)

    def save(self, trainer: Any, tokenizer: Any, *, merge: bool = False) -> None:
        """Save the trained model, and put its path and revision into the run's summary.

        Call it in all processes. `merge` merges a trained adapter. Raises as `save_result` does.
        """
        about = {
            "run_id": self.run_id,
            "stage": self.stage,
            "base": self.base.model,
            "base_revision": self.base.revision,
        }
        model = self.directory / "model"
        save_result(trainer, tokenizer, model, about=about, merge=merge)
        if self.run is not None:
            self.run.summary.extra["optimiser_steps"] = trainer.state.global_step
            self.run.summary.extra |= describe_result(model)

    def _commit(self) -> None:
        if self.run is not None:
            self.run.flush()


@dataclass(frozen=True)
class PreparedTraining(Generic[WorkT]):
    """A training whose configuration is checked and whose models are resolved.

    `select` is called in the main process and returns what all processes need to train, as values that can
    be sent between them; `train` is called in every process. `base` is the model to train, `models` are the
    others. `models` and `identity` enter the fingerprint as those of a `Preparation` do.
    """

    declaration: StageDeclaration
    base: ModelIdentity
    select: Callable[[StageRun], WorkT]
    train: Callable[[TrainingSession, WorkT], None]
    models: Sequence[ModelIdentity] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    scheme_version: int = 1

    @property
    def stage(self) -> str:
        """The name under which its runs are recorded."""
        return self.declaration.name


def run_training(
    lake: Lake,
    config: StageConfig,
    training: PreparedTraining[Any],
    *,
    output: str,
    keep_checkpoints: int,
    force: bool = False,
    reporter: Reporter | None = None,
) -> StageSummary:
    """Run a training in every process that was started; return its summary, an empty one outside the main.

    The main process opens the run, selects the work and sends it to the others. The trained model is
    `extra["model"]` of the summary. An interrupted run resumes from its last complete checkpoint.
    """
    reporter = reporter or Reporter(quiet=True)
    world = World()

    def train(run: StageRun | None, run_id: str, work: Any) -> None:
        session = TrainingSession(
            training.stage,
            training.base,
            run=run,
            run_id=run_id,
            directory=Path(output) / f"{training.stage}-{run_id[:12]}",
            keep_checkpoints=keep_checkpoints,
            reporter=reporter,
        )
        training.train(session, work)

    def execute(run: StageRun) -> None:
        work = training.select(run)
        world.send((run.run_id, work))
        train(run, run.run_id, work)

    prepared = Preparation(
        execute, [training.base, *training.models], training.identity, scheme_version=training.scheme_version
    )
    if not world.is_main:
        received = world.receive()
        if received is not None:
            train(None, *received)
        return StageSummary(stage=training.stage, run_id="", status="done in the main process")
    try:
        check_predicates(lake, config)
        run = start_run(lake, training.declaration, config, prepared, force=force, reporter=reporter)
        if not isinstance(run, StageRun):
            world.send(None)
            return run
        with run:
            prepared.execute(run)
        return run.summary
    finally:
        world.fail()
