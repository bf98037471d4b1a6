"""Score: per-token log-probabilities of traces by student and teacher."""

from rlt_data.stages.score.config import ScoreConfig
from rlt_data.stages.score.stage import score

__all__ = ["ScoreConfig", "score"]
