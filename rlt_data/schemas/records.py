"""Tables of records: what was rejected, and what ran."""

from __future__ import annotations

from rlt_data.schemas.columns import (
    BIG,
    COUNT,
    MODELS,
    RUN_ID,
    TABLE_VERSIONS,
    TEXT,
    TIME,
    Column,
    TableSchema,
    required,
)

REJECTS = TableSchema(
    "rejects",
    "One input that a stage rejected, with the reason. No input is dropped silently.",
    (
        required("reject_id", TEXT, "Content hash of run, stage, source, row, key, reason and content."),
        required("stage", TEXT, "The stage that rejected the input."),
        required("source", TEXT, "File, hub id or table of the input."),
        Column("source_row", BIG, "Row number in the source, from 0."),
        Column("key", TEXT, "Key of the row, where it has one: a question_id or trace_id."),
        required("reason", TEXT, "Reason as a short code, such as missing_question."),
        required("detail", TEXT, "Reason as a sentence: the column, what was found and what was expected."),
        Column("content", TEXT, "The rejected row, as JSON or as the raw line."),
        RUN_ID,
    ),
)

RUNS = TableSchema(
    "runs",
    "One state of one run: a row when it starts, resumes and ends. SQL shows the newest state of each run.",
    (
        required("run_event_id", TEXT, "Content hash of run and sequence."),
        required("run_id", TEXT, "Content hash of the fingerprint and the attempt."),
        required("sequence", COUNT, "Number of the state within its run, from 0."),
        required("stage", TEXT, "The stage, such as score."),
        required("status", TEXT, "`started`, `resumed`, `finished` or `failed`."),
        required("config", TEXT, "Configuration of the stage, as a JSON object."),
        required("fingerprint", TEXT, "Content hash of everything that determines the result."),
        required("scheme_version", COUNT, "Version of the stage's fingerprint scheme."),
        required("attempt", COUNT, "Number of earlier finished runs with this fingerprint."),
        required("inputs", TABLE_VERSIONS, "Tables read: version, row count and key digest of each."),
        required("outputs", TABLE_VERSIONS, "Tables written: version, row count and key digest of each."),
        required("models", MODELS, "Models used: role, name, resolved model and revision of each."),
        required("packages", TEXT, "Versions of the relevant packages, as a JSON object."),
        required(
            "counts",
            TEXT,
            "The run's summary as a JSON object: rows, rejects, tokens, seconds; until it ends, its process.",
        ),
        required("started_at", TIME, "When the run first started."),
        Column("ended_at", TIME, "When the run finished or failed."),
        Column("error", TEXT, "Why the run failed."),
    ),
)
