"""Grade: stored completions are graded again, without a model."""

from rlt_data.stages.grade.config import GradeConfig
from rlt_data.stages.grade.stage import grade

__all__ = ["GradeConfig", "grade"]
