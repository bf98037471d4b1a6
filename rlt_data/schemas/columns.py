"""Types, columns and table schemas, and the columns that several tables have."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

TEXT = pa.string()
FLAG = pa.bool_()
COUNT = pa.int32()
BIG = pa.int64()
REAL = pa.float32()
DOUBLE = pa.float64()
TIME = pa.timestamp("us", tz="UTC")
REALS = pa.list_(REAL)
COUNTS = pa.list_(COUNT)
MESSAGES = pa.list_(pa.struct([("role", TEXT), ("content", TEXT)]))
TABLE_VERSIONS = pa.list_(pa.struct([("table", TEXT), ("version", BIG), ("rows", BIG), ("digest", TEXT)]))
MODELS = pa.list_(pa.struct([("role", TEXT), ("name", TEXT), ("model", TEXT), ("revision", TEXT)]))


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type, description, and whether it may be null."""

    name: str
    type: pa.DataType
    about: str
    nullable: bool = True


@dataclass(frozen=True)
class TableSchema:
    """One table: its name, what one row is, and its columns, of which the first is the key."""

    name: str
    about: str
    columns: tuple[Column, ...]

    @property
    def key(self) -> str:
        """The name of the key column."""
        return self.columns[0].name

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, in column order."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])


def required(name: str, type_: pa.DataType, about: str) -> Column:
    """Declare a column that is never null."""
    return Column(name, type_, about, nullable=False)


RUN_ID = required("run_id", TEXT, "The run that wrote this row: `runs.run_id`.")

# The reward and its parts: the same columns in every table that stores a reward.
REWARD_COLUMNS = (
    Column("estimator", TEXT, "Divergence estimator of kl_avg and kl_max: k1, k3 or full."),
    Column("alpha", DOUBLE, "Weight of the minimum in r_ss and of the maximum in r_kl."),
    Column("lambda_kl", DOUBLE, "Weight of r_kl in the reward (lambda in the paper)."),
    Column("solution_logprob_avg", DOUBLE, "Mean student log-probability over solution tokens, nats."),
    Column("solution_logprob_min", DOUBLE, "Minimum student log-probability over solution tokens, nats."),
    Column("kl_avg", DOUBLE, "Mean divergence of teacher from student over think tokens, nats."),
    Column("kl_max", DOUBLE, "Maximum divergence of teacher from student over think tokens, nats."),
    Column(
        "format_penalty",
        DOUBLE,
        "Added to the reward: 0, or the penalty for a missing closing tag.",
    ),
    Column("r_ss", DOUBLE, "solution_logprob_avg + alpha * solution_logprob_min."),
    Column("r_kl", DOUBLE, "kl_avg + alpha * kl_max."),
    Column("reward", DOUBLE, "r_ss - lambda_kl * r_kl + format_penalty."),
)
