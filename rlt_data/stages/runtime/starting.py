"""Start a run, resume it, or find it finished.

A run is identified by its fingerprint and its attempt. `start_run` finds out whether that run is finished
(nothing is done), was interrupted (it resumes: same run, same pinned versions), or is new. Two processes
working on the same run do no harm: the newer one raises a fence, and the older one is stopped at its next
commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake, RunRecord, TableState
from rlt_data.lake.fingerprint import compute_fingerprint
from rlt_data.lake.integrity.rows import (
    check_inputs,
    find_lost_states,
    find_missing_rows,
    find_recorded_version,
)
from rlt_data.lake.runs import SESSION_KEY, commit_state, count_recorded_rows, draft_record, read_first_state
from rlt_data.lake.sessions import describe_session
from rlt_data.lake.sql.query import find_named_tables
from rlt_data.lake.tables.commits import Fence
from rlt_data.lake.tables.table import NO_VERSION
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.outputs import REJECTS
from rlt_data.stages.runtime.run import Preparation, StageRun


def start_run(
    lake: Lake,
    stage: StageDeclaration,
    config: StageConfig,
    preparation: Preparation,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
) -> StageRun | StageSummary:
    """Start the run of `stage` under `config`, or resume it; the summary of one that is finished already.

    `force` runs a finished stage again as the next attempt (an interrupted one resumes), and so does a
    finished run whose result is no longer intact. Raises `LakeError` where rows of an input are missing that
    a finished run wrote, and where the newest states of `runs` are gone, unless this run is one of theirs.
    """
    draft = draft_run(lake, stage, config, preparation)
    reporter = reporter or Reporter(quiet=True)
    while True:
        existing = list_runs_of(lake, draft.fingerprint)
        done = find_finished(existing, preparation)
        # What a stage chose by its newest run may have been another one's.
        if done is None or force or stage.made_by is not None:
            _check_states(lake, stage, draft, existing)
        lost = [] if done is None else find_missing_rows(lake, [done])
        if done is not None and not lost and not force:
            summary = StageSummary.model_validate(done.counts)
            return summary.model_copy(update={"status": "already finished"})
        run = _claim(lake, stage, draft, existing, reporter, forced=force, reopened=done if lost else None)
        if run is not None:
            return run


def draft_run(
    lake: Lake, stage: StageDeclaration, config: StageConfig, preparation: Preparation
) -> RunRecord:
    """Describe the run of `stage` under `config`, with its fingerprint and its inputs pinned as they are now.

    Tables that the predicates of `config` query are inputs too, except those that this or every run writes,
    which are pinned only; so a predicate selects the same rows after an interruption.
    Raises `LakeError` where rows of an input are missing that a finished run wrote.
    """
    queried = find_named_tables(config.list_predicates())
    written = {*stage.writes, REJECTS, "runs"}
    inputs = list(dict.fromkeys([*stage.reads, *(name for name in queried if name not in written)]))
    check_inputs(lake, {*stage.reads, *stage.pins, *queried} - written, lake.runs())
    states = {name: lake.table(name).state() for name in dict.fromkeys([*inputs, *stage.pins, *queried])}
    fingerprint = compute_fingerprint(
        stage.name,
        scheme_version=preparation.scheme_version,
        config=config.list_identity(),
        inputs=[states[name] for name in inputs],
        models=preparation.models,
        identity=preparation.identity,
    )
    return draft_record(
        stage.name,
        config=config.model_dump(mode="json"),
        fingerprint=fingerprint,
        scheme_version=preparation.scheme_version,
        inputs=list(states.values()),
        models=preparation.models,
    )


def list_runs_of(lake: Lake, fingerprint: str) -> list[RunRecord]:
    """List the runs of a fingerprint, in the order of their attempts."""
    runs = [record for record in lake.runs() if record.fingerprint == fingerprint]
    return sorted(runs, key=lambda record: record.attempt)


def find_finished(existing: Sequence[RunRecord], preparation: Preparation) -> RunRecord | None:
    """Find the newest finished run of those `existing`; None where its result is no longer intact."""
    finished = [record for record in existing if record.finished]
    if not finished:
        return None
    if preparation.is_intact is None:
        return finished[-1]
    summary = StageSummary.model_validate(finished[-1].counts)
    return finished[-1] if preparation.is_intact(summary) else None


def find_interrupted(existing: Sequence[RunRecord]) -> RunRecord | None:
    """Find the run of those `existing` that resumes: the last attempt, if it is not finished."""
    return existing[-1] if existing and not existing[-1].finished else None


def _claim(
    lake: Lake,
    stage: StageDeclaration,
    draft: RunRecord,
    existing: Sequence[RunRecord],
    reporter: Reporter,
    *,
    forced: bool,
    reopened: RunRecord | None,
) -> StageRun | None:
    """Record the next state of a run as this process's; None where another process was first.

    `reopened` is a finished run that has lost rows.
    """
    notes: list[str] = []
    tables = [lake.table(name) for name in dict.fromkeys([*stage.writes, REJECTS])]
    if reopened is not None:
        for table in tables:
            if table.version() != NO_VERSION or reopened.rows_written.get(table.name):
                table.advance_version(find_recorded_version(table.name, lake.runs()))
    latest = reopened or find_interrupted(existing)
    starts = [TableState(table.name, table.version(), table.count(), "") for table in tables]
    if latest is not None:
        first = read_first_state(lake.table("runs").scan(), latest.run_id)
        inputs = [_pin(lake, state, draft, notes) for state in latest.inputs]
        first = replace(first, inputs=tuple(inputs))
        if not first.config:  # A repair recorded the run again, from what its commits say.
            first = replace(
                first, config=draft.config, models=draft.models, scheme_version=draft.scheme_version
            )
        sequence, status = latest.sequence + 1, "resumed"
    else:
        attempt, run_id = _identify_next(draft, existing)
        # Where the record of this run is lost, its rows are still there, and its older sessions shut out.
        fences = [table.find_fence(run_id) for table in (lake.table("runs"), *tables)]
        sequence, status = max((number + 1 for number in fences if number is not None), default=0), "started"
        if sequence:
            starts = [TableState(table.name, NO_VERSION, 0, "") for table in tables]
        first = replace(draft, run_id=run_id, attempt=attempt, outputs=tuple(starts))
    fence = Fence(first.run_id, sequence)
    if not commit_state(
        lake,
        first,
        sequence=sequence,
        status=status,
        outputs=starts,
        counts={SESSION_KEY: describe_session()},
        fence=fence,
    ):
        return None
    recorded = None if latest is None else count_recorded_rows(latest)
    run = StageRun(
        lake,
        reporter,
        first,
        sequence,
        stage.writes,
        repeats=stage.repeats,
        forced=forced,
        recorded=recorded,
    )
    for note in notes:
        run.note(note)
    if run.resumed:
        run.resume()
    return run


def _identify_next(draft: RunRecord, existing: Sequence[RunRecord]) -> tuple[int, str]:
    """Return attempt and id of the next run after those `existing`."""
    attempt = existing[-1].attempt + 1 if existing else 0
    return attempt, hash_content(draft.fingerprint, attempt)


def _check_states(
    lake: Lake, stage: StageDeclaration, draft: RunRecord, existing: Sequence[RunRecord]
) -> None:
    """Raise `LakeError` where `runs` lost its newest states, unless this run is one of theirs."""
    lost = find_lost_states(lake)
    if lost and find_interrupted(existing) is None:
        _, run_id = _identify_next(draft, existing)
        tables = (lake.table(name) for name in (*stage.writes, REJECTS))
        if all(table.find_fence(run_id) is None for table in tables):
            raise LakeError(
                f"table runs {lost[0].what}",
                where=lake.table("runs").uri,
                remedy="run again the commands of the runs that `rlt-data log` shows as interrupted, or "
                "`rlt-data verify --repair`, which lists them",
            )


def _pin(lake: Lake, state: TableState, draft: RunRecord, notes: list[str]) -> TableState:
    """Return the version at which a resumed run reads an input.

    It is the one that the run pinned. If that one is gone, it is the newest: its content is the same where it
    is part of the fingerprint.
    """
    table = lake.table(state.table)
    try:
        if table.count(state.version) == state.rows:
            return state
    except LakeError:
        pass
    newest = next((other for other in draft.inputs if other.table == state.table), None)
    if newest is None or newest.version == state.version:
        return state
    notes.append(
        f"{state.table} was read at version {newest.version}: version {state.version}, which this run had "
        "pinned, is gone"
    )
    return newest
