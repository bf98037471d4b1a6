"""SQL views that are derived from the tables."""

from __future__ import annotations

# Offsets count characters (Unicode code points), as both Python and DuckDB's substring do; SQL counts from 1.
_TOKEN_SCORES = """
CREATE VIEW token_scores AS
SELECT
    scores.score_id, scores.trace_id, scores.question_id, scores.student, scores.teacher,
    'solution' AS part,
    place - 1 AS position,
    substring(questions.solution, solution_token_starts[place] + 1,
              solution_token_ends[place] - solution_token_starts[place]) AS token,
    solution_token_starts[place] AS token_start,
    solution_token_ends[place] AS token_end,
    solution_logprobs[place] AS student_logprob,
    NULL::FLOAT AS teacher_logprob,
    NULL::FLOAT AS divergence
FROM (SELECT *, unnest(range(1, len(solution_logprobs) + 1)) AS place FROM scores) AS scores
LEFT JOIN questions ON questions.question_id = scores.question_id
UNION ALL
SELECT
    scores.score_id, scores.trace_id, scores.question_id, scores.student, scores.teacher,
    'think' AS part,
    place - 1 AS position,
    substring(traces.think, think_token_starts[place] + 1,
              think_token_ends[place] - think_token_starts[place]) AS token,
    think_token_starts[place] AS token_start,
    think_token_ends[place] AS token_end,
    think_student_logprobs[place] AS student_logprob,
    think_teacher_logprobs[place] AS teacher_logprob,
    think_divergences[place] AS divergence
FROM (SELECT *, unnest(range(1, len(think_student_logprobs) + 1)) AS place FROM scores) AS scores
LEFT JOIN traces ON traces.trace_id = scores.trace_id
"""

DERIVED_VIEWS = {"token_scores": _TOKEN_SCORES}
VIEW_SOURCES = {"token_scores": ("scores", "traces", "questions"), "run_events": ("runs",)}
