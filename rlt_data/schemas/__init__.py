"""The Arrow schema of every table, in the order of the pipeline.

Each column is declared with its type and one sentence: its meaning, unit and origin. The first column of a
table is its key, a content hash (see `rlt_data.hashing`). Log-probabilities are natural logarithms, float32;
lengths are in tokens unless a column says characters.
"""

from __future__ import annotations

from rlt_data.schemas.columns import COUNT, MESSAGES, REWARD_COLUMNS, TEXT, TIME, Column, TableSchema
from rlt_data.schemas.curation import DISTILLATION, QUESTIONS, RANKINGS, REWARDS, SCORES, TRACES
from rlt_data.schemas.evaluation import COMPARISONS, EVALUATIONS, GRADES
from rlt_data.schemas.records import REJECTS, RUNS
from rlt_data.schemas.training import METRICS, ROLLOUTS

__all__ = [
    "COUNT",
    "MESSAGES",
    "QUESTIONS",
    "REWARD_COLUMNS",
    "TABLES",
    "TEXT",
    "TIME",
    "Column",
    "TableSchema",
]

TABLES: dict[str, TableSchema] = {
    table.name: table
    for table in (
        QUESTIONS,
        TRACES,
        SCORES,
        REWARDS,
        RANKINGS,
        DISTILLATION,
        ROLLOUTS,
        METRICS,
        EVALUATIONS,
        GRADES,
        COMPARISONS,
        REJECTS,
        RUNS,
    )
}
