"""Ingest: problems and traces into the lake."""

from rlt_data.stages.ingest.stage import IngestConfig, ingest

__all__ = ["IngestConfig", "ingest"]
