"""`rlt-data tasks`: list the tasks, or show one with its prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlt_data.terminal import print_text, show_block, show_line

from ..common import JsonOption, print_json, print_rows

if TYPE_CHECKING:
    from rlt_data.formats import ConversationFormat
    from rlt_data.tasks.definition import ListedTask


def command(
    name: Annotated[str | None, typer.Argument(help="A task: show its prompt and all settings.")] = None,
    format: Annotated[
        str, typer.Option(help="Conversation format of the prompt's hash.", metavar="TEXT")
    ] = "stratos",
    json: JsonOption = False,
) -> None:
    """List the tasks that models are evaluated on, or show one: prompt, questions, grader, sampling, origin.

    Every generator of reasoning-gym is a task too: reasoning-gym:NAME. Add your own to rlt-data.toml:
    [tasks.NAME] base = "math500", or name a TOML file.
    """
    from rlt_data.formats import load_format
    from rlt_data.settings import load_settings
    from rlt_data.tasks.definition import list_tasks, load_task

    settings = load_settings()
    chosen = load_format(format, settings)
    if name is None:
        rows = [_list_task(task, chosen) for task in list_tasks(settings)]
        if json:
            print_json(rows)
            return
        print_rows(rows, wrap="about")
        print_text("\nalso reasoning-gym:NAME; add your own: [tasks.NAME] in rlt-data.toml")
        return
    task = load_task(name, settings)
    if json:
        print_json(_describe(task, chosen))
    else:
        _print_task(task, chosen)


def _list_task(listed: ListedTask, format: ConversationFormat) -> dict[str, Any]:
    task = listed.task
    return {
        "name": task.name,
        "grader": " + ".join(task.graders),
        "questions": "" if task.source is None else _name_source(listed),
        "prompt hash": _hash_prompt(listed, format)[:12],
        "defined in": listed.defined_in,
        "about": task.about,
    }


def _describe(listed: ListedTask, format: ConversationFormat) -> dict[str, Any]:
    """Describe a task as JSON values: its definition, where it is defined, and the hash of its prompt."""
    return {
        **listed.task.model_dump(mode="json"),
        "defined_in": listed.defined_in,
        "format": format.name,
        "prompt_hash": _hash_prompt(listed, format),
    }


def _print_task(listed: ListedTask, format: ConversationFormat) -> None:
    task = listed.task
    print_text(f"{show_line(task.name)}: {show_line(task.about)}")
    print_text(f"defined in: {show_line(listed.defined_in)}")
    print_text(f"questions: {show_line(_name_source(listed) or 'yours: --data FILE or --where')}")
    if task.choices is not None:
        shown = task.choices.model_dump(exclude_none=True, exclude_defaults=True)
        print_text(f"columns: {show_line(', '.join(f'{key} {value}' for key, value in shown.items()))}")
    print_text(f"graders: {', '.join(task.graders)} (the first gives the score)")
    sampling = ", ".join(f"{key} {value:,}" for key, value in task.sampling.model_dump().items())
    print_text(f"sampling: {sampling}")
    print_text(f"prompt hash: {_hash_prompt(listed, format)} (format {show_line(format.name)})")
    print_text("prompt:")
    print_text("\n".join(f"    {show_line(line)}" for line in task.prompt.splitlines()))
    if task.choices is not None:
        print_text(f"options: {show_line(task.option)}, separated by {task.separator!r}")
    print_text("where it comes from:")
    for part, text in task.origin.items():
        print_text(f"    {show_line(part)}: {show_block(text)}")


def _name_source(listed: ListedTask) -> str:
    source = listed.task.source
    if source is None:
        return ""
    name = "/".join(part for part in (source.dataset, source.subset, source.split) if part)
    return f"{name}, gated" if source.gated else name


def _hash_prompt(listed: ListedTask, format: ConversationFormat) -> str:
    return listed.task.hash_prompt(format.student.model_dump())
