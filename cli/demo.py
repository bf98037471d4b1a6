"""`rlt-data demo`: the whole pipeline, offline, on tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .answers import render_table
from .common import QuietOption, make_console, open_lake
from .summary import print_summary

# One question, its best and its worst explanation, and what made the difference.
QUESTION = """\
SELECT r.rank, round(r.reward, 2) AS reward, round(s.solution_logprob_avg, 2) AS understood,
       round(s.kl_avg, 2) AS leaked, t.think AS explanation
FROM rankings r JOIN scores s USING (score_id) JOIN traces t ON t.trace_id = r.trace_id
WHERE r.question_id = (SELECT question_id FROM rankings ORDER BY group_spread DESC, question_id LIMIT 1)
ORDER BY r.rank"""

LEAKS = """\
SELECT token, count(*) AS times, round(avg(divergence), 2) AS divergence,
       round(avg(student_logprob), 2) AS student_logprob
FROM token_scores WHERE part = 'think' GROUP BY token HAVING count(*) >= 5
ORDER BY avg(divergence) DESC LIMIT 5"""


def command(
    folder: Annotated[
        Path, typer.Option(help="Where everything goes: lake, tiny models, distillation set.")
    ] = Path("demo"),
    quiet: QuietOption = False,
) -> None:
    """Run the recipe quickstart (procedural problems, tiny models, no network), then ask the lake about it.

    Run again, it finds everything done. The lake stays, to be looked at: rlt-data sql --lake demo/lake.
    """
    from rlt_data.progress import Reporter
    from rlt_data.recipe.load import load_recipe
    from rlt_data.recipe.run import run_recipe

    models = folder / "models"
    changes = {
        "lake": folder / "lake",
        "tiny_models.path": models,
        "models.tiny-teacher.model": models / "teacher",
        "models.tiny-student.model": models / "student",
        "export.path": folder / "distillation",
    }
    loaded = load_recipe(["quickstart"], [f"{key}={value.absolute()}" for key, value in changes.items()])
    lake = open_lake(str(folder / "lake"), create=True)
    run_recipe(
        loaded,
        lake,
        reporter=Reporter(quiet=quiet),
        on_summary=lambda summary: print_summary(lake, summary, as_json=False),
    )
    console = make_console()
    for title, query in (
        ("Why is this explanation ranked first, and that one last?", QUESTION),
        ("Which tokens does the teacher expect because it has seen the solution?", LEAKS),
    ):
        console.print(f'{title}\n\nrlt-data sql --lake {folder / "lake"} "\n{query}"\n')
        console.print(render_table(lake.sql(query)))
    console.print(f"The distillation set is in {folder / 'distillation'}; ask more with rlt-data sql.")
