"""Ingest: problems and traces into the lake."""

from rlt_data.stages.ingest.config import IngestConfig
from rlt_data.stages.ingest.stage import ingest

__all__ = ["IngestConfig", "ingest"]
