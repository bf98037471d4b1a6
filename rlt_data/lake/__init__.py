"""Versioned Parquet tables: exactly-once appends, versions, SQL, runs and lineage, upkeep."""

from __future__ import annotations

from rlt_data.lake.catalog import NoLakeError
from rlt_data.lake.lake import Lake
from rlt_data.lake.lineage import LineageStep
from rlt_data.lake.runs import RunRecord
from rlt_data.lake.tables.table import Table, TableState, TableVersion
from rlt_data.lake.upkeep import Compaction, Vacuum

__all__ = [
    "Compaction",
    "Lake",
    "LineageStep",
    "NoLakeError",
    "RunRecord",
    "Table",
    "TableState",
    "TableVersion",
    "Vacuum",
]
