"""Score: per-token log-probabilities of traces by student and teacher."""

from rlt_data.stages.score.stage import ScoreConfig, score

__all__ = ["ScoreConfig", "score"]
