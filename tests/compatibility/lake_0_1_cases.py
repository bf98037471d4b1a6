"""The two runs of every stage in the lake of version 0.1, and the queries of the test.

Paths are relative to the folder in which the stages run. An export's path enters its identity as an absolute
one; `/proc/self/cwd` is the only absolute path that means that folder wherever it is copied to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STAGES = {
    "ingest": ("rlt_data.stages.ingest", "ingest", "IngestConfig"),
    "generate": ("rlt_data.stages.generate", "generate", "GenerateConfig"),
    "score": ("rlt_data.stages.score", "score", "ScoreConfig"),
    "reward": ("rlt_data.stages.reward", "reward", "RewardConfig"),
    "rank": ("rlt_data.stages.rank", "rank", "RankConfig"),
    "substitute": ("rlt_data.stages.substitute", "substitute", "SubstituteConfig"),
    "export": ("rlt_data.stages.export", "export", "ExportConfig"),
    "sft": ("rlt_data.training.warm_up", "warm_up", "WarmUpConfig"),
    "grpo": ("rlt_data.training.grpo", "train_policy", "GrpoConfig"),
}
HERE = "/proc/self/cwd"
TEACHER, STUDENT = "models/teacher", "models/student"


@dataclass(frozen=True)
class Case:
    """The configuration of a stage's finished run, and of the one that is killed.

    That one is killed when `new_files` more files match `pattern` than before it started.
    """

    stage: str
    finished: dict[str, Any]
    interrupted: dict[str, Any]
    pattern: str
    new_files: int


def count_commits(table: str) -> str:
    """Return the pattern of the files of which each commit of a table makes one."""
    return f"lake/{table}/_delta_log/*.json"


GENERATE = {
    "teacher": [TEACHER], "samples": 2, "max_tokens": 40, "engine": "transformers", "dtype": "float32",
    "device": "cpu", "allow_truncated": True,
}  # fmt: skip
SCORE = {"students": [STUDENT], "teacher": TEACHER, "dtype": "float32", "device": "cpu"}
TRAINER = {"use_cpu": True, "gradient_checkpointing": False, "learning_rate": 1e-4}
SFT = {"teacher": TEACHER, "output": "training", "where": "origin = 'imported'"}
GRPO = {
    "teacher": TEACHER, "students": [STUDENT], "output": "training", "questions_per_step": 2, "group_size": 4,
    "max_tokens": 40, "max_prompt_tokens": 200, "save_every": 2, "student_dtype": "float32",
    "student_device": "cpu",
}  # fmt: skip

CASES = (
    Case("ingest", {"source": "problems.jsonl"}, {"source": "more"}, count_commits("questions"), 1),
    Case(
        "generate",
        {**GENERATE, "format": "r1", "where": "source = 'problems.jsonl'", "limit": 4},
        {
            **GENERATE,
            "seed": 7,
            "temperature": 1.0,
            "where": "question_id IN (SELECT question_id FROM traces WHERE origin = 'imported')",
            "limit": 6,
            "max_batch_rows": 2,
        },
        count_commits("traces"),
        3,
    ),
    Case(
        "score",
        {**SCORE, "exact": True},
        {**SCORE, "reward": {"estimator": "k3", "alpha": 0.05}},
        count_commits("scores"),
        1,
    ),
    Case(
        "reward",
        {"reward": {"estimator": "k3", "lambda_kl": 1.0, "clip_kl": 2.0}, "where": "closed"},
        {"reward": {"estimator": "full", "alpha": 0.1}},
        count_commits("rejects"),
        2,
    ),
    Case(
        "rank",
        {"policy": "best-of-n(1)", "filters": ["closed", "complete"]},
        {"policy": "top-quantile(0.5)", "where": "origin = 'generated'", "lambda_kl": 1.0},
        count_commits("rankings"),
        1,
    ),
    Case(
        "substitute",
        {"student": STUDENT},
        {"student": STUDENT, "format": "r1", "over_context": "keep", "batch_size": 2},
        count_commits("distillation"),
        3,
    ),
    Case(
        "export",
        {"path": f"{HERE}/exports/finished", "form": "dataset", "title": "Sums", "license": "apache-2.0"},
        {"path": f"{HERE}/exports/interrupted.jsonl", "form": "jsonl"},
        "exports/.*.partial",
        1,
    ),
    Case(
        "sft",
        {**SFT, "trainer": {**TRAINER, "max_steps": 1, "per_device_train_batch_size": 4}},
        {
            **SFT,
            "seed": 1,
            "keep_checkpoints": 2,
            "trainer": {**TRAINER, "max_steps": 6, "save_steps": 3},
        },
        count_commits("metrics"),
        4,
    ),
    Case(
        "grpo",
        {**GRPO, "steps": 1, "limit": 2, "trainer": TRAINER},
        {**GRPO, "seed": 1, "steps": 4, "keep_checkpoints": 2, "trainer": {**TRAINER, "beta": 0.04}},
        count_commits("rollouts"),
        3,
    ),
)

# Of each table its key, and a text of each row, to be digested in the order of the keys.
DIGESTED = {
    "questions": ("question_id", "question || solution || source || coalesce(metadata, '')"),
    "traces": ("trace_id", "question_id || state || completion || coalesce(generation_id, '')"),
    "scores": ("score_id", "trace_id || student || array_to_string(solution_token_ends, ' ')"),
    "rewards": ("reward_id", "score_id || estimator"),
    "rankings": ("ranking_id", "trace_id || policy || rank || selected"),
    "distillation": ("example_id", "trace_id || text"),
    "rollouts": ("rollout_id", "group_id || step || completion"),
    "metrics": ("metric_id", "phase || step || name"),
    "rejects": ("reject_id", "stage || source || reason || detail"),
    "run_events": ("run_event_id", "run_id || stage || status || fingerprint"),
}
QUERIES = (
    *(
        f"SELECT count(*), count(DISTINCT {key}), md5(string_agg({key}, ' ' ORDER BY {key})), "
        f"md5(string_agg({text}, ' ' ORDER BY {key})) FROM {table}"
        for table, (key, text) in DIGESTED.items()
    ),
    "SELECT run_id, stage, status, sequence, attempt, scheme_version, fingerprint, epoch_us(started_at), "
    "epoch_us(ended_at), [m.role || ' ' || m.name || ' ' || m.revision FOR m IN models], "
    "[s.table || ' ' || s.version || ' ' || s.rows || ' ' || s.digest FOR s IN inputs] "
    "FROM runs ORDER BY started_at",
    "SELECT stage, status, count(*) FROM run_events GROUP BY ALL ORDER BY ALL",
    "SELECT stage, reason, count(*) FROM rejects GROUP BY ALL ORDER BY ALL",
    "SELECT q.question, t.origin, t.format, t.state, t.truncated, s.reward, s.r_ss, s.kl_avg, "
    "s.teacher_source FROM scores s JOIN traces t USING (trace_id) "
    "JOIN questions q ON q.question_id = t.question_id ORDER BY s.score_id",
    "SELECT k.rank, k.selected, k.reward, s.reward, w.reward, w.estimator FROM rankings k "
    "JOIN scores s USING (score_id) LEFT JOIN rewards w USING (score_id) ORDER BY k.ranking_id, w.reward_id",
    "SELECT d.prompt_tokens, d.total_tokens, d.messages[-1].content, r.stage, r.status FROM distillation d "
    "JOIN runs r USING (run_id) ORDER BY d.example_id",
    "SELECT part, count(*), count(teacher_logprob), count(divergence), min(token_start), max(token_end), "
    "md5(string_agg(token, '|' ORDER BY score_id, part, position)) FROM token_scores "
    "GROUP BY part ORDER BY part",
    "SELECT token, student_logprob, teacher_logprob, divergence FROM token_scores "
    "WHERE part = 'think' ORDER BY score_id, position LIMIT 40",
    "SELECT step, sample_index, state, reward, advantage FROM rollouts ORDER BY rollout_id LIMIT 10",
    "SELECT phase, name, count(*), min(value), max(value) FROM metrics WHERE name <> 'step_time' "
    "GROUP BY ALL ORDER BY ALL",
    "SELECT (SELECT count(*) FROM \"traces@1\"), (SELECT count(*) FROM \"traces@3\"), "
    '(SELECT count(*) FROM traces)',
    'SELECT md5(string_agg(trace_id, \' \' ORDER BY trace_id)) FROM "traces@3"',
    'SELECT new.question_id FROM questions new ANTI JOIN "questions@1" old USING (question_id) ORDER BY 1',
    'SELECT stage, status, sequence FROM "runs@9" ORDER BY started_at',
)  # fmt: skip
