"""`@stage` makes a stage of the function that prepares it, its declaration and its configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from importlib import import_module
from typing import Any, Generic, TypeVar

from rlt_data.lake import Lake
from rlt_data.lake.integrity.reading import explain_reading
from rlt_data.progress import Reporter
from rlt_data.stages.registry import find_stage
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.planning import StagePlan, plan_run
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import check_predicates
from rlt_data.stages.runtime.starting import start_run

ConfigT = TypeVar("ConfigT", bound=StageConfig)


class Stage(Generic[ConfigT]):
    """A function from tables to a table: `stage(lake, config)` runs it, or resumes it, or finds it finished.

    `prepare` resolves everything that identifies the run and returns the work; it writes nothing, so that
    `plan` can call it too.
    """

    def __init__(
        self,
        prepare: Callable[[Lake, ConfigT], Preparation],
        config: type[ConfigT],
        declaration: StageDeclaration,
    ) -> None:
        self.prepare = prepare
        self.config = config
        self.declaration = declaration
        update_wrapper(self, prepare)

    def __call__(
        self, lake: Lake, config: ConfigT, *, force: bool = False, reporter: Reporter | None = None
    ) -> StageSummary:
        """Run the stage. A run that is finished is not made again unless `force`; an interrupted one resumes.

        Raises what `prepare` and the stage's work raise; the run is then recorded as failed and resumes
        when the stage is called again. A predicate that is not valid SQL is refused before a run is recorded.
        """
        reporter = reporter or Reporter(quiet=True)
        with reporter.watch(self.declaration.name):
            with explain_reading(lake):
                check_predicates(lake, config)
                preparation = self.prepare(lake, config)
            run = start_run(lake, self.declaration, config, preparation, force=force, reporter=reporter)
            if not isinstance(run, StageRun):
                return run
            with run, explain_reading(lake):
                preparation.execute(run)
            return run.summary

    def plan(self, lake: Lake, config: ConfigT) -> StagePlan:
        """Find out what calling the stage would do. Models are resolved, inputs counted; nothing is written.

        Raises what `prepare` raises, such as `ModelError` for an unknown model.
        """
        with explain_reading(lake):
            check_predicates(lake, config)
            return plan_run(lake, self.declaration, config, self.prepare(lake, config))


def stage(
    config: type[ConfigT], declaration: StageDeclaration | None = None
) -> Callable[[Callable[[Lake, ConfigT], Preparation]], Stage[ConfigT]]:
    """Make a stage of a function that prepares it; its declaration is the registered one of its name."""

    def decorate(prepare: Callable[[Lake, ConfigT], Preparation]) -> Stage[ConfigT]:
        name = prepare.__name__.replace("_", "-")
        return Stage(prepare, config, declaration or find_stage(name))

    return decorate


def load_stage(declaration: StageDeclaration) -> Stage[Any]:
    """Import the stage of a declaration. Raises `TypeError` where it is not decorated with `@stage`."""
    found = getattr(import_module(f"{declaration.package}.{declaration.section}"), declaration.section)
    if not isinstance(found, Stage):
        raise TypeError(f"{declaration.function} is not decorated with @stage")
    return found
