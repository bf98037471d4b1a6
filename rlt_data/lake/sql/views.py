"""SQL views over the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

_EVALUATION_LINEAGE = """
CREATE VIEW evaluation_lineage AS
WITH RECURSIVE run_order AS ({run_order}),
facts AS (
    SELECT
        run_id, started_at, ended_at, started_version, ended_version,
        json_extract_string(counts, '$.extra.revision') AS revision,
        try_cast(json_extract_string(counts, '$.extra.optimiser_steps') AS BIGINT) AS steps,
        json_extract_string(counts, '$.extra.distillation') AS distillation_run,
        try_cast(json_extract_string(counts, '$.extra.examples') AS BIGINT) AS examples_learned,
        json_extract_string(counts, '$.extra.ranking') AS ranking_run,
        -- A training names the model that it starts from first.
        models[1].revision AS base_revision,
        stage = 'sft' AND json_extract_string(config, '$.role') = 'student' AS is_distilled,
        stage, status
    FROM runs LEFT JOIN run_order USING (run_id)
),
-- Runs that were made again have the same weights: the newest stands for them.
trainings AS (
    SELECT revision, arg_max(facts, (coalesce(ended_version, -1), ended_at, run_id)) AS training
    FROM facts WHERE revision IS NOT NULL AND status = 'finished' GROUP BY revision
),
trained AS (
    SELECT DISTINCT model_revision, training, 0 AS depth
    FROM evaluations JOIN trainings ON revision = model_revision
    UNION ALL
    SELECT model_revision, trainings.training, depth + 1
    FROM trained JOIN trainings ON trainings.revision = trained.training.base_revision
    WHERE depth < 32 AND trainings.revision <> trained.training.revision
),
students AS (
    SELECT model_revision, list(training.run_id ORDER BY depth) AS student_runs
    FROM trained GROUP BY model_revision
),
distilled AS (
    SELECT
        model_revision, training.examples_learned,
        coalesce(
            training.distillation_run,
            (SELECT arg_max(facts.run_id, (coalesce(facts.ended_version, -1), facts.ended_at, facts.run_id))
             FROM facts
             WHERE facts.stage = 'substitute' AND facts.status = 'finished'
                 AND coalesce(
                     facts.ended_version < training.started_version, facts.ended_at <= training.started_at
                 ))
        ) AS distillation_run
    FROM trained WHERE training.is_distilled
    QUALIFY row_number() OVER (PARTITION BY model_revision ORDER BY depth) = 1
),
sets AS (
    SELECT DISTINCT distilled.distillation_run, facts.ranking_run
    FROM distilled JOIN facts ON facts.run_id = distilled.distillation_run
),
examples AS (
    SELECT sets.distillation_run, sets.ranking_run, question_id, trace_id
    FROM sets JOIN distillation ON distillation.run_id = sets.distillation_run
),
set_scores AS (
    SELECT distillation_run, list_sort(list(DISTINCT scores.run_id)) AS score_runs
    FROM (
        SELECT distillation_run, unnest(coalesce(score_ids, [score_id])) AS score_id
        FROM examples JOIN rankings ON rankings.run_id = ranking_run AND rankings.trace_id = examples.trace_id
    ) JOIN scores USING (score_id)
    GROUP BY distillation_run
),
-- A rewritten trace leads to the trace that it was made from.
set_lines AS (
    SELECT distillation_run, question_id, trace_id, 0 AS depth FROM examples
    UNION ALL
    SELECT distillation_run, set_lines.question_id, parent_trace_id AS trace_id, depth + 1
    FROM set_lines JOIN traces USING (trace_id)
    WHERE parent_trace_id IS NOT NULL AND depth < 32
),
set_traces AS (
    SELECT
        distillation_run,
        count(*) FILTER (depth = 0) AS examples,
        list_sort(list(DISTINCT traces.run_id)) AS trace_runs,
        list_sort(list(DISTINCT traces.teacher) FILTER (traces.teacher IS NOT NULL)) AS teachers,
        list_sort(list(DISTINCT traces.teacher_revision) FILTER (traces.teacher_revision IS NOT NULL))
            AS teacher_revisions,
        list_sort(list(DISTINCT training.run_id) FILTER (training.run_id IS NOT NULL)) AS teacher_runs,
        list_sort(list(DISTINCT training.steps) FILTER (training.steps IS NOT NULL)) AS teacher_steps,
        list_sort(list(DISTINCT questions.source)) AS training_sources
    FROM set_lines
    LEFT JOIN traces USING (trace_id)
    LEFT JOIN trainings ON trainings.revision = traces.teacher_revision
    LEFT JOIN questions ON questions.question_id = set_lines.question_id
    GROUP BY distillation_run
),
verdicts AS (
    SELECT
        evaluation_id,
        arg_max(verdict, (coalesce(ended_version, -1), coalesce(ended_at, started_at), grade_id)) AS verdict
    FROM grades JOIN facts USING (run_id)
    WHERE "primary" AND extraction = 'stated'
    GROUP BY evaluation_id
)
SELECT
    evaluation_id, evaluations.task, evaluations.question_id, sample_index, verdict,
    evaluations.source, evaluations.source_row, evaluations.run_id AS evaluate_run,
    evaluations.model, evaluations.model_revision, student_runs,
    distillation_run, set_traces.examples, distilled.examples_learned,
    CASE WHEN distillation_run IS NOT NULL THEN seen.question_id IS NOT NULL END AS question_in_set,
    ranking_run, score_runs, trace_runs, teachers, teacher_revisions, teacher_runs, teacher_steps,
    training_sources
FROM evaluations
LEFT JOIN verdicts USING (evaluation_id)
LEFT JOIN students USING (model_revision)
LEFT JOIN distilled USING (model_revision)
LEFT JOIN sets USING (distillation_run)
LEFT JOIN set_scores USING (distillation_run)
LEFT JOIN set_traces USING (distillation_run)
LEFT JOIN (SELECT DISTINCT distillation_run, question_id FROM examples) AS seen
    USING (distillation_run, question_id)
"""

# The same order as that of `evaluation_lineage`: grades of unfinished runs count from their last state.
_GRADES_LATEST = """
CREATE VIEW grades_latest AS
WITH run_order AS ({run_order}),
graded AS (
    SELECT run_id, started_at, ended_at, ended_version FROM runs LEFT JOIN run_order USING (run_id)
)
SELECT grades.* FROM grades LEFT JOIN graded USING (run_id)
QUALIFY row_number() OVER (
    PARTITION BY evaluation_id, grader, extraction
    ORDER BY
        coalesce(ended_version, -1) DESC, coalesce(ended_at, started_at) DESC NULLS LAST, grade_id DESC
) = 1
"""

DERIVED_VIEWS = {
    "token_scores": _TOKEN_SCORES,
    "grades_latest": _GRADES_LATEST,
    "evaluation_lineage": _EVALUATION_LINEAGE,
}
VIEW_SOURCES = {
    "token_scores": ("scores", "traces", "questions"),
    "grades_latest": ("grades", "runs"),
    "evaluation_lineage": (
        "evaluations",
        "grades",
        "runs",
        "distillation",
        "rankings",
        "scores",
        "traces",
        "questions",
    ),
    "run_events": ("runs",),
}
_RUN_ORDER = "{run_order}"
RunOrder = Sequence[tuple[str, int, int]]


def write_view(name: str, read_order: Callable[[], RunOrder]) -> str:
    """Return the statement that creates a derived view.

    Clocks may be set back: where a view needs the order of the runs, `read_order` returns the run ids with
    the versions of `runs` in which they started and ended.
    """
    sql = DERIVED_VIEWS[name]
    return sql.replace(_RUN_ORDER, _write_order(read_order())) if _RUN_ORDER in sql else sql


def _write_order(order: RunOrder) -> str:
    typed = "CAST(NULL AS VARCHAR), CAST(NULL AS BIGINT), CAST(NULL AS BIGINT)"
    rows = ", ".join(f"({quote_text(run_id)}, {started}, {ended})" for run_id, started, ended in order)
    values = f"VALUES {rows}" if rows else f"SELECT {typed} WHERE false"
    return f"SELECT * FROM ({values}) AS stored (run_id, started_version, ended_version)"


def quote_text(text: str) -> str:
    """Quote an SQL string."""
    return "'" + text.replace("'", "''") + "'"
