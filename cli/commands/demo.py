"""`rlt-data demo`: the whole pipeline, offline, on tiny models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..answers import render_table
from ..common import QuietOption, open_lake
from ..summary import print_summary

# Explanations by what they are: to be chosen, one must help the student and not give the answer away.
CHOICES = """\
SELECT CASE WHEN think LIKE '%must be%' THEN 'gives the answer away'
            WHEN think LIKE 'First%=%= ' || answer || '.' THEN 'works it out'
            WHEN think LIKE 'First%' THEN 'slips or skips'
            ELSE 'rambles' END AS explanation,
       count(*) AS written, round(avg(selected::INT), 2) AS chosen, round(avg(rank), 1) AS rank,
       round(avg(rankings.reward), 2) AS reward, round(avg(solution_logprob_avg), 2) AS understood,
       round(avg(list_avg(think_divergences)), 2) AS leaked
FROM rankings JOIN scores USING (score_id) JOIN traces ON traces.trace_id = rankings.trace_id
JOIN questions ON questions.question_id = rankings.question_id
GROUP BY ALL ORDER BY rank"""

# The answer is the token that the teacher, who has seen the solution, expects and the student does not.
LEAKED_TOKENS = """\
SELECT position, token, round(teacher_logprob, 2) AS teacher, round(student_logprob, 2) AS student,
       round(divergence, 2) AS divergence
FROM token_scores WHERE part = 'think' AND trace_id = (
    SELECT trace_id FROM traces JOIN scores USING (trace_id)
    WHERE think LIKE 'It must be%' ORDER BY list_max(think_divergences) DESC, trace_id LIMIT 1)
ORDER BY position"""


def command(
    folder: Annotated[
        Path, typer.Option(help="Where everything goes: lake, tiny models, distillation set.")
    ] = Path("demo"),
    quiet: QuietOption = False,
) -> None:
    """Run the recipe quickstart (procedural problems, tiny models, no network), then ask the lake about it.

    Run again, it finds everything done. The lake stays, to be looked at: rlt-data sql --lake demo/lake.
    """
    # At this size a second thread mostly waits for the first; torch reads this when it is imported.
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
        on_summary=lambda summary: print_summary(lake, summary, as_json=False),
    )
    # Printed as it is: what a terminal would wrap could not be copied, and the table is drawn already.
    for title, query in (
        ("Which explanations were chosen, and why?", CHOICES),
        ("Where did one that gives the answer away leak it?", LEAKED_TOKENS),
    ):
        print(f'{title}\n\nrlt-data sql --lake {folder / "lake"} "\n{query}"\n')
        print(render_table(lake.sql(query)))
    print(f"The distillation set is in {folder / 'distillation'}; ask more with rlt-data sql.")
