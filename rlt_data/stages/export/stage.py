"""Export: the distillation examples as files that other programs read.

Everything is written to a temporary path, which is then renamed: an export that was killed leaves nothing at
its path. A finished export is not made again while its files exist unchanged.
"""

from __future__ import annotations

from pathlib import Path

from rlt_data.atomic_files import check_utf8, hash_files, is_intact, write_aside
from rlt_data.errors import LakeError, UsageError
from rlt_data.lake import Lake, RunRecord
from rlt_data.stages.export.config import ExportConfig
from rlt_data.stages.export.examples import EXAMPLE_SCHEMA, list_examples, read_examples
from rlt_data.stages.export.forms import load_writer
from rlt_data.stages.export.forms.writing import ExportDetails
from rlt_data.stages.export.replacing import check_replaceable
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import find_run
from rlt_data.stages.runtime.stage import stage


@stage(ExportConfig)
def export(lake: Lake, config: ExportConfig) -> Preparation:
    """Write the distillation examples to files: JSON lines, Parquet, a dataset directory, ShareGPT, messages.

    The newest finished run of substitute is exported unless one is named. The export is atomic; the hashes
    of its files are in the summary and in `runs`. Each form loads with `datasets.load_dataset`.

    Raises `UsageError` where the path exists already, unless `overwrite` or `force` is given and it is an
    export or a regular file, and where it is inside the lake; `LakeError` where there is nothing to export.
    """
    source = find_run(lake, "substitute", config.distillation)
    target = _find_target(lake, config.path)
    return Preparation(
        lambda run: _export(run, config, source, target),
        identity={"distillation": source.run_id, "path": str(target)},
        # Where the files are gone or were changed, the same export is made once more.
        is_intact=lambda summary: is_intact(target, summary.extra.get("files", {})),
    )


def _export(run: StageRun, config: ExportConfig, source: RunRecord, target: Path) -> None:
    again = config.overwrite or run.forced
    check_replaceable(target, config.form)
    if target.exists() and not again and not run.resumed:
        raise _explain_existing(target)

    def note_wait(process: str) -> None:
        run.reporter.message(f"waiting for process {process}, which is writing {target}")

    with write_aside(target, note_wait) as draft:
        _write_form(run, config, source, target, draft)
        files = hash_files(draft, target.name)
        # A run that was killed after it had renamed its files finds what it is about to write.
        if target.exists() and not again and files != hash_files(target):
            raise _explain_existing(target)
        check_replaceable(target, config.form)
    run.summary.extra |= {"path": str(target), "distillation": source.run_id, "files": files}


def _find_target(lake: Lake, path: str) -> Path:
    if "://" in path:
        raise UsageError(
            "an export is written to a local path",
            where=path,
            remedy="name a local path and copy it from there",
        )
    target = Path(path).expanduser().absolute()
    check_utf8(target, "the path of the export")
    if lake.local and target.resolve().is_relative_to(Path(lake.uri).resolve()):
        raise UsageError(
            "the path of the export is inside the lake",
            where=str(target),
            remedy="name a path outside it: upkeep deletes files that no table names",
        )
    return target


def _write_form(run: StageRun, config: ExportConfig, source: RunRecord, target: Path, draft: Path) -> None:
    ids = list_examples(run, config, source)
    if not len(ids):
        raise LakeError(
            "there are no examples to export",
            where=f"run {source.run_id} of substitute" + (f", where {config.where}" if config.where else ""),
            remedy='see its rejects: rlt-data sql "SELECT reason, count(*) FROM rejects GROUP BY ALL"',
        )
    run.count(rows_in=len(ids), examples=len(ids))
    details = ExportDetails(
        run.lake,
        source,
        schema=EXAMPLE_SCHEMA,
        examples=len(ids),
        title=config.title or target.name,
        license=config.license,
        sharegpt_roles=config.sharegpt_roles,
    )
    with run.track(f"export {config.form}", len(ids), unit="examples") as task:
        load_writer(config.form)(draft, read_examples(run, ids, task), details)


def _explain_existing(target: Path) -> UsageError:
    return UsageError(
        "the path exists already", where=str(target), remedy="name another path, or give --overwrite"
    )
