"""Versioned Parquet tables: exactly-once appends, versions, SQL, runs and lineage, upkeep."""

from __future__ import annotations

from rlt_data.lake.catalog import NoLakeError
from rlt_data.lake.integrity.repair import Repair
from rlt_data.lake.integrity.verify import TableReport
from rlt_data.lake.lake import Lake
from rlt_data.lake.lineage import LineageStep
from rlt_data.lake.row_lineage import LineageNode
from rlt_data.lake.runs import RunRecord
from rlt_data.lake.sql.execution import QueryLimits, QueryStream
from rlt_data.lake.tables.damage import Damage
from rlt_data.lake.tables.table import Table, TableState, TableVersion
from rlt_data.lake.upkeep import Compaction, Vacuum

__all__ = [
    "Compaction",
    "Damage",
    "Lake",
    "LineageNode",
    "LineageStep",
    "NoLakeError",
    "QueryLimits",
    "QueryStream",
    "Repair",
    "RunRecord",
    "Table",
    "TableReport",
    "TableState",
    "TableVersion",
    "Vacuum",
]
