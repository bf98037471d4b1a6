"""SQL views over the tables."""

from __future__ import annotations

# Offsets count Unicode code points, in Python and in DuckDB's substring alike; SQL counts from 1.
# Lists are unnested in parallel before the texts are joined, so that no list is copied for every token.
_TOKEN_SCORES = """
CREATE VIEW token_scores AS
WITH solution_tokens AS (
    SELECT
        score_id, trace_id, question_id, student, teacher,
        unnest(range(len(solution_logprobs))) AS position,
        unnest(solution_token_starts) AS token_start,
        unnest(solution_token_ends) AS token_end,
        unnest(solution_logprobs) AS student_logprob
    FROM scores
),
think_tokens AS (
    SELECT
        score_id, trace_id, question_id, student, teacher,
        unnest(range(len(think_student_logprobs))) AS position,
        unnest(think_token_starts) AS token_start,
        unnest(think_token_ends) AS token_end,
        unnest(think_student_logprobs) AS student_logprob,
        unnest(coalesce(think_teacher_logprobs, [])) AS teacher_logprob,
        unnest(coalesce(think_divergences, [])) AS divergence
    FROM scores
)
SELECT
    score_id, trace_id, question_id, student, teacher, 'solution' AS part, position,
    substring(solution, token_start + 1, token_end - token_start) AS token,
    token_start, token_end, student_logprob, NULL::FLOAT AS teacher_logprob, NULL::FLOAT AS divergence
FROM solution_tokens LEFT JOIN questions USING (question_id)
UNION ALL
SELECT
    score_id, trace_id, think_tokens.question_id, student, think_tokens.teacher, 'think' AS part, position,
    substring(think, token_start + 1, token_end - token_start) AS token,
    token_start, token_end, student_logprob, teacher_logprob, divergence
FROM think_tokens LEFT JOIN traces USING (trace_id)
"""

DERIVED_VIEWS = {"token_scores": _TOKEN_SCORES}
VIEW_SOURCES = {"token_scores": ("scores", "traces", "questions"), "run_events": ("runs",)}
