"""Export: distillation examples as files."""

from rlt_data.stages.export.config import ExportConfig
from rlt_data.stages.export.stage import export

__all__ = ["ExportConfig", "export"]
