"""Export: distillation examples as files."""

from rlt_data.stages.export.stage import ExportConfig, export

__all__ = ["ExportConfig", "export"]
