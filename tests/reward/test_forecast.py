"""The forecast counts the same operations that scoring a part and scaling it up would give."""

from __future__ import annotations

from rlt_data.formats import ConversationFormat
from rlt_data.reward.forecast import forecast_run
from rlt_data.reward.scoring.scorer import Scorer
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest


def make_requests(questions: int) -> list[ScoreRequest]:
    return [
        ScoreRequest(f"{q}-{n}", f"add {q} and {n}", "so 7", "sum " * (20 + 7 * n))
        for q in range(questions)
        for n in range(2)
    ]


def test_time_grows_with_the_work(
    short_format: ConversationFormat, student: ScoringModel, teacher: ScoringModel
) -> None:
    scorer = Scorer(short_format, [student], teacher)
    few, many = (forecast_run(scorer, make_requests(n)) for n in (40, 4000))
    assert many.texts == 8000
    # A hundred times the texts; the sample is timed anew, on a machine that others use too.
    assert 10 < many.seconds / few.seconds < 1000
    assert many.working_bytes == few.working_bytes
    assert "8,000 texts" in many.describe()
