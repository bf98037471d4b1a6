"""`rlt-data demo`: run the whole pipeline offline, on tiny models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rlt_data.terminal import print_drawn, print_text

from ..common import QuietOption, open_lake
from ..reports import print_result
from ..results import render_table

# Kinds of explanations. A good one helps the student without giving the answer away.
CHOICES = """\
SELECT CASE WHEN think LIKE '%must be%' THEN 'gives the answer away'
            WHEN think LIKE 'First%=%= ' || answer || '.' THEN 'works it out'
            WHEN think LIKE 'First%' THEN 'has a wrong step'
            ELSE 'rambles' END AS explanation,
       count(*) AS traces, round(avg(selected::INT), 2) AS selected, round(avg(rank), 1) AS rank,
       round(avg(rankings.reward), 2) AS reward, round(avg(solution_logprob_avg), 2) AS solution_logprob,
       round(avg(list_avg(think_divergences)), 2) AS divergence
FROM rankings JOIN scores USING (score_id) JOIN traces ON traces.trace_id = rankings.trace_id
JOIN questions ON questions.question_id = rankings.question_id
GROUP BY ALL ORDER BY rank"""

# The teacher, which has seen the solution, expects the answer's token; the student does not.
LEAKED_TOKENS = """\
SELECT position, token, round(teacher_logprob, 2) AS teacher, round(student_logprob, 2) AS student,
       round(divergence, 2) AS divergence
FROM token_scores WHERE part = 'think' AND trace_id = (
    SELECT trace_id FROM traces JOIN scores USING (trace_id)
    WHERE think LIKE 'It must be%' ORDER BY list_max(think_divergences) DESC, trace_id LIMIT 1)
ORDER BY position"""


def command(
    folder: Annotated[
        Path, typer.Option(help="Folder for the lake, the tiny models and the distillation set.")
    ] = Path("demo"),
    quiet: QuietOption = False,
) -> None:
    """Run the recipe quickstart (procedural problems, tiny models, no network), then query the lake.

    A second run skips everything that is done. Query the lake afterwards with rlt-data sql --lake demo/lake.
    """
    # Models this small run no faster on more threads. torch reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
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
        on_summary=lambda summary: print_result(lake, summary),
    )
    # Printed without wrapping, so that the queries can be copied.
    for title, query in (
        ("Which explanations were selected, and why?", CHOICES),
        ("Which tokens of an explanation give the answer away?", LEAKED_TOKENS),
    ):
        print_text(f'{title}\n\nrlt-data sql --lake {folder / "lake"} "\n{query}"\n')
        with lake.stream_sql(query) as result:
            print_drawn(render_table(result) + "\n")
    print_text(f"The distillation set is in {folder / 'distillation'}.")
    print_text(f"Query the lake with: rlt-data sql --lake {folder / 'lake'}")
