"""Tables of training: what was sampled, and what was logged."""

from __future__ import annotations

from rlt_data.schemas.columns import (
    BIG,
    COUNT,
    DOUBLE,
    FLAG,
    REWARD_COLUMNS,
    RUN_ID,
    TEXT,
    Column,
    TableSchema,
    required,
)

ROLLOUTS = TableSchema(
    "rollouts",
    "One completion sampled in training, with the parts of its reward and its advantage.",
    (
        required("rollout_id", TEXT, "Content hash of run, step, position in the step and completion."),
        required("step", BIG, "Optimizer step to whose update it contributes, from 0."),
        required("question_id", TEXT, "The question."),
        required("group_id", TEXT, "The group within which its advantage is normalized."),
        required("sample_index", COUNT, "Position in the group, from 0."),
        required("completion", TEXT, "The model's raw output."),
        Column("think", TEXT, "The explanation between its tags."),
        Column("state", TEXT, "As in traces.state."),
        required("truncated", FLAG, "True where the length limit truncated it."),
        Column("prompt_tokens", COUNT, "Number of prompt tokens."),
        Column("completion_tokens", COUNT, "Number of completion tokens."),
        *REWARD_COLUMNS,
        Column("advantage", DOUBLE, "Group-normalized advantage."),
        Column("policy_step", BIG, "Number of optimizer steps that the sampling policy had taken."),
        Column("policy", TEXT, "Base model of the policy."),
        RUN_ID,
    ),
)

METRICS = TableSchema(
    "metrics",
    "One number logged in training.",
    (
        required("metric_id", TEXT, "Content hash of run, phase, step and name."),
        required("phase", TEXT, "sft or grpo."),
        required("step", BIG, "Optimizer step, from 0."),
        required("name", TEXT, "Name of the metric, as the trainer logs it."),
        required("value", DOUBLE, "Its value."),
        RUN_ID,
    ),
)
