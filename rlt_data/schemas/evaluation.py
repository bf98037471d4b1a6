"""Tables of evaluation: completions, verdicts, comparisons."""

from __future__ import annotations

import pyarrow as pa

from rlt_data.schemas.columns import (
    BIG,
    COUNT,
    DOUBLE,
    FLAG,
    RUN_ID,
    TEXT,
    Column,
    TableSchema,
    required,
)

EVALUATIONS = TableSchema(
    "evaluations",
    "One completion of one model for one question of a task.",
    (
        required("evaluation_id", TEXT, "Content hash of prompt, question, model, sampling and sample."),
        required("task", TEXT, "The task, such as aime24."),
        required("prompt_hash", TEXT, "Content hash of everything that turns the question into a prompt."),
        required(
            "question_id",
            TEXT,
            "Content hash of the question text, and of its options; see questions, if there.",
        ),
        required("question", TEXT, "The question as the task has it, without options."),
        Column("options", pa.list_(TEXT), "Options of a multiple choice, in the order shown: A, B, ..."),
        Column("answer", TEXT, "The true answer; of a multiple choice, the letter of the right option."),
        Column("source", TEXT, "File, hub id, generator or lake table of the question."),
        Column("source_row", BIG, "Row number in the source, from 0."),
        Column("metadata", TEXT, "All other columns of the source row, as a JSON object."),
        required("model", TEXT, "The model as the user named it."),
        Column("model_resolved", TEXT, "Hub id or path that the name resolved to."),
        Column("model_revision", TEXT, "Commit of a hub model, or content hash of local weights."),
        Column("engine", TEXT, "Engine and version; null for completions that were read from a file."),
        Column("format", TEXT, "Conversation format of the prompt."),
        required("sample_index", COUNT, "Number of the sample among those of this question, from 0."),
        required("completion", TEXT, "The model's raw output, nothing stripped."),
        Column("think", TEXT, "The thinking; null where there are no tags."),
        Column("response", TEXT, "What follows the thinking, or all of a completion without tags."),
        Column("state", TEXT, "As in traces.state."),
        Column("finish_reason", TEXT, "As in traces.finish_reason."),
        Column("failure", TEXT, "Why the model could not be asked, such as over_context; else null."),
        required("truncated", FLAG, "True where the length limit truncated it."),
        Column("prompt_tokens", COUNT, "Number of tokens of the rendered prompt."),
        Column("completion_tokens", COUNT, "Number of completion tokens."),
        Column("temperature", DOUBLE, "Sampling temperature; 0 means greedy."),
        Column("top_p", DOUBLE, "Nucleus (top-p) sampling mass; 1 means off."),
        Column("top_k", COUNT, "Number of likeliest tokens that are sampled from; 0 means all."),
        Column("max_tokens", COUNT, "Maximum number of completion tokens."),
        Column("seed", BIG, "Seed of this sample."),
        RUN_ID,
    ),
)

GRADES = TableSchema(
    "grades",
    "The verdict of one grader on one completion, by one way of extracting the answer.",
    (
        required(
            "grade_id",
            TEXT,
            "Content hash of completion, grader, version and extraction, and of the run where it was forced.",
        ),
        required("evaluation_id", TEXT, "The completion that is graded."),
        required("task", TEXT, "The task of the completion."),
        required("question_id", TEXT, "The question of the completion."),
        required("model", TEXT, "The model of the completion, as the user named it."),
        Column("model_revision", TEXT, "Commit of a hub model, or content hash of local weights."),
        required("sample_index", COUNT, "Number of the sample of the completion, from 0."),
        required(
            "grader", TEXT, "The grader: math, integer, choice, countdown, reasoning_gym, text or code."
        ),
        required("grader_version", TEXT, "Version of the grader and of the library that it uses."),
        required("primary", FLAG, "True for the grader that the task's metrics use."),
        required("extraction", TEXT, "`stated` (after the thinking) or `last` (anywhere)."),
        Column("extracted_answer", TEXT, "The answer that was found; null where there is none."),
        Column("extracted_from", TEXT, "How it was found: boxed, hashes, stated, letter, number, ..."),
        Column("answer", TEXT, "The true answer."),
        required(
            "verdict",
            TEXT,
            "correct, wrong, no_answer, truncated, unclosed_think, timed_out, failed or ungradable.",
        ),
        Column("detail", TEXT, "Why there is no verdict, as a sentence."),
        RUN_ID,
    ),
)

COMPARISONS = TableSchema(
    "comparisons",
    "The score of one model on one task, or its paired difference from a baseline on the same questions.",
    (
        required("comparison_id", TEXT, "Content hash of the run, the task, the model and the baseline."),
        required("task", TEXT, "The task; `overall` for the mean over tasks."),
        required(
            "model",
            TEXT,
            "The model, as the user named it; with the run where several of its evaluations are compared.",
        ),
        Column(
            "model_revision",
            TEXT,
            "Commit of a hub model, or content hash of local weights; null where tasks differ.",
        ),
        Column("baseline", TEXT, "The model that it is compared with; null in rows of scores."),
        Column("baseline_revision", TEXT, "Revision of that model."),
        required("extraction", TEXT, "As in grades.extraction."),
        Column("grader", TEXT, "Grader and version of the verdicts; null for `overall`."),
        Column(
            "settings_differ",
            TEXT,
            "Settings of prompt and sampling in which the two models differ, separated by commas.",
        ),
        required("questions", COUNT, "Number of questions; in rows of differences, those of both models."),
        Column("left_out", COUNT, "Questions of one of the two models only, which are not compared."),
        Column("samples", DOUBLE, "Mean number of samples a question."),
        required("score", DOUBLE, "avg@k of the model over these questions, 0 to 1."),
        Column("score_low", DOUBLE, "Lower end of its 95% interval."),
        Column("score_high", DOUBLE, "Upper end of its 95% interval."),
        Column("baseline_score", DOUBLE, "avg@k of the baseline over these questions."),
        Column("difference", DOUBLE, "Score minus the score of the baseline, over the same questions."),
        Column("difference_low", DOUBLE, "Lower end of the 95% interval of the difference."),
        Column("difference_high", DOUBLE, "Upper end of the 95% interval of the difference."),
        Column("p_value", DOUBLE, "Two-sided p-value of no difference, by the method in `method`."),
        Column(
            "separated",
            FLAG,
            "True where the 95% interval of the difference excludes 0 and the p-value is below 0.05.",
        ),
        Column(
            "samples_needed",
            BIG,
            "Samples a question at which this difference would be told apart with power 0.8; null where no "
            "number of samples is enough, because the questions themselves are too few, or without a "
            "difference.",
        ),
        Column(
            "samples_at_least",
            FLAG,
            "True where samples_needed is only a lower bound: with one sample a question, the spread between "
            "questions is not known.",
        ),
        Column(
            "questions_needed",
            BIG,
            "Questions at which this difference would be told apart with power 0.8, at the present number of "
            "samples; null without a difference.",
        ),
        required("method", TEXT, "How intervals were computed, such as wilson or bootstrap over questions."),
        RUN_ID,
    ),
)
