"""`RltReward`: the reward of Reinforcement Learning Teachers as an ordinary reward function of TRL.

It scores with the code of `rlt-data score`. In a training loop of your own:

    reward = RltReward(["student"], format="stratos", policy_tokenizer=tokenizer)
    trainer = GRPOTrainer(model, reward_funcs=[reward], ...)
    reward.follow(trainer)

The dataset needs the columns `question` and `solution` beside `prompt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, assert_never, cast

from rlt_data.errors import UsageError
from rlt_data.formats import ConversationFormat, check_template, load_format, parse_teacher_completion
from rlt_data.reward.backends.base import LogprobBackend
from rlt_data.reward.derive import PART_COLUMNS
from rlt_data.reward.estimators import list_estimators
from rlt_data.reward.reuse import SampledTokens, find_reusable, score_reusable, split_reusable
from rlt_data.reward.rewards import Combine, combine_parts, derive_parts
from rlt_data.reward.scoring.scorer import FailedScore, TokenScores
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import FailedText, ScoreRequest
from rlt_data.reward.settings import RewardSettings
from rlt_data.reward.tokenizers import refuse_other_tokens
from rlt_data.training.common.weights import borrow_policy, is_sharded
from rlt_data.training.rewards.completions import read_completions
from rlt_data.training.rewards.students import (
    AnyScorer,
    LoadedStudents,
    ServedStudents,
    Students,
    load_student,
)

TeacherLogprobs = Literal["auto", "policy", "reference", "sampled", "none"]

_OTHER_TOKENS = (
    "other_tokens",
    "the rendered texts tokenize the explanation differently from the sampled tokens, whose "
    "log-probabilities therefore cannot be used",
)


@dataclass(frozen=True)
class ScoredCompletion:
    """One completion as scored: its parse, and the columns of `schemas.REWARD_COLUMNS` in `parts`.

    `reward` is None where it could not be scored; `failure` then holds the reason.
    """

    think: str
    state: str
    parts: Mapping[str, Any]
    failure: str | None = None

    @property
    def reward(self) -> float | None:
        """The reward; None where the completion could not be scored."""
        value = self.parts.get("reward")
        return None if value is None else float(value)


class RltReward:
    """Rewards explanations by how well frozen students understand them (arXiv 2506.08388).

    `students` are loaded models, names that `rlt_data.models.resolve_model` resolves, or backends of
    log-probabilities such as a served model; either all of them are backends or none. `policy_tokenizer`
    is the tokenizer of the model in training. `teacher_logprobs` chooses where the teacher's
    log-probabilities come from:

    - `policy`: a forward pass of the model in training;
    - `sampled`: the log-probabilities of the sampled tokens (column `completion_logprobs`). They are the
      same quantity for k1 and k3 where sampling used `teacher_temperature`. There is never a forward pass:
      a completion that the rendered texts tokenize differently has no reward;
    - `auto`: `sampled` where it is the same quantity, else `policy`; always `sampled` where the training
      shards its weights;
    - `reference`: a forward pass of the trainer's reference model;
    - `none`: no divergence.

    `combine` chooses the mean or the minimum of several students' rewards.
    """

    __name__ = "rlt"

    def __init__(
        self,
        students: Sequence[ScoringModel | LogprobBackend | str],
        *,
        policy_tokenizer: Any,
        format: ConversationFormat | str = "stratos",
        settings: RewardSettings | None = None,
        student_temperature: float = 0.7,
        teacher_temperature: float = 0.7,
        sampling_temperature: float | None = None,
        teacher_logprobs: TeacherLogprobs = "auto",
        combine: Combine = "mean",
        dtype: str = "auto",
        device: str = "auto",
        pack_tokens: int | None = None,
    ) -> None:
        self.format = load_format(format) if isinstance(format, str) else format
        self.settings = settings or RewardSettings()
        self.combine = combine
        self.tokenizer = policy_tokenizer
        self.teacher_temperature = teacher_temperature
        self.students = _gather_students(
            self.format, students, student_temperature, dtype=dtype, device=device, pack_tokens=pack_tokens
        )
        self.notes = [
            note
            for tokenizer in self.students.tokenizers
            for note in check_template(self.format, tokenizer, "student")
        ]
        """Sentences about what the students' chat templates drop, move or add."""
        self.teacher_logprobs: TeacherLogprobs = teacher_logprobs if self.settings.lambda_kl else "none"
        self.last: list[ScoredCompletion] = []
        """The completions of the last call, in its order."""
        self._same_temperature = sampling_temperature == teacher_temperature
        self._trainer: Any = None
        self._students_alone = self.students.make_scorer(None, exact=False)
        if self.teacher_logprobs != "none":
            for tokenizer in self.students.tokenizers:
                refuse_other_tokens(policy_tokenizer, tokenizer)
        if teacher_logprobs == "sampled" and self.settings.needs_divergences:
            raise UsageError(
                "the exact divergence needs the teacher's whole distribution, not only the sampled tokens",
                remedy=f"set teacher_logprobs to policy, or the estimator to {list_estimators(exact=False)}",
            )

    def follow(self, trainer: Any) -> None:
        """Use the policy and the reference model of a TRL trainer, as they are at each call."""
        self._trainer = trainer

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        question: Sequence[str] | None = None,
        solution: Sequence[str] | None = None,
        completion_logprobs: Sequence[Sequence[float]] | None = None,
        log_extra: Any = None,
        log_metric: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        """Score completions; None for one that cannot be scored, which TRL excludes from its group.

        Raises `UsageError` where the dataset lacks `question` or `solution`.
        """
        if question is None or solution is None:
            missing = "question" if question is None else "solution"
            raise UsageError(
                f"the reward needs the column {missing!r}, which the dataset lacks",
                remedy="give the dataset the columns prompt, question and solution",
            )
        texts = read_completions(self.tokenizer, completions, completion_ids)
        self.last = self.score(question, solution, texts, completion_ids, completion_logprobs)
        self._log(log_extra, log_metric)
        return [scored.reward for scored in self.last]

    def score(
        self,
        questions: Sequence[str],
        solutions: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]] | None = None,
        completion_logprobs: Sequence[Sequence[float]] | None = None,
    ) -> list[ScoredCompletion]:
        """Score completion texts; return one result per completion, in order."""
        parsed = [parse_teacher_completion(self.format, text) for text in completions]
        requests = [
            ScoreRequest(str(index), question, solution, trace.think or "", trace.state != "missing_close")
            for index, (question, solution, trace) in enumerate(
                zip(questions, solutions, parsed, strict=True)
            )
        ]
        results: dict[str, list[TokenScores | FailedScore]] = {request.key: [] for request in requests}
        for result in self._score_requests(requests, completion_ids, completion_logprobs):
            results[_find_key(result)].append(result)
        parts = self._derive([results[request.key] for request in requests])
        return [
            ScoredCompletion(request.think, trace.state, part, _explain_failure(results[request.key]))
            for request, trace, part in zip(requests, parsed, parts, strict=True)
        ]

    def _score_requests(
        self,
        requests: Sequence[ScoreRequest],
        completion_ids: Sequence[Sequence[int]] | None,
        logprobs: Sequence[Sequence[float]] | None,
    ) -> Iterator[TokenScores | FailedScore]:
        if self.teacher_logprobs == "none":
            yield from self._students_alone.score(requests)
            return
        reusable = self._find_reusable(requests, completion_ids, logprobs)
        reused, others = split_reusable(requests, reusable)
        yield from score_reusable(self._students_alone, reused, reusable)
        if others and self._reuses_only():
            for request in others:
                yield FailedScore(FailedText(request.key, *_OTHER_TOKENS))
        elif others:
            with self._open_teacher() as scorer:
                yield from scorer.score(others)

    def _find_reusable(
        self,
        requests: Sequence[ScoreRequest],
        completion_ids: Sequence[Sequence[int]] | None,
        logprobs: Sequence[Sequence[float]] | None,
    ) -> dict[str, list[float]]:
        """Find the sampled tokens' log-probabilities that are the teacher's, nats, by request key.

        They are where sampling used the teacher's temperature and the rendered texts of teacher and students
        split the explanation into the sampled tokens.
        """
        usable = self._same_temperature and not self.settings.needs_divergences
        if (
            self.teacher_logprobs not in ("auto", "sampled")
            or not usable
            or not logprobs
            or not completion_ids
        ):
            if self._reuses_only():
                raise UsageError(
                    "there are no log-probabilities of the sampled tokens under the teacher's temperature",
                    remedy="sample at the teacher's temperature, with estimator k1 or k3 (a sharded training "
                    "cannot run the policy for the reward), or set teacher_logprobs to policy",
                )
            return {}
        pairs = zip(requests, completion_ids, logprobs, strict=True)
        sampled = {request.key: SampledTokens(ids, values) for request, ids, values in pairs}
        return find_reusable(self.format, self.tokenizer, self.students.tokenizers, requests, sampled)

    def _reuses_only(self) -> bool:
        """Whether the teacher's log-probabilities can come from the sampled tokens only."""
        match self.teacher_logprobs:
            case "sampled":
                return True
            case "auto":
                return self._trainer is not None and is_sharded(self._trainer)
            case "policy" | "reference" | "none":
                return False
            case never:
                assert_never(never)

    @contextmanager
    def _open_teacher(self) -> Iterator[AnyScorer]:
        """Open a scorer that runs the policy, or the reference model, as the teacher."""
        if self._trainer is None:
            raise UsageError(
                "the reward has no policy whose log-probabilities it could compare",
                remedy="call reward.follow(trainer) before trainer.train()",
            )
        with borrow_policy(self._trainer, reference=self.teacher_logprobs == "reference") as model:
            teacher = ScoringModel("policy", model, self.tokenizer, self.teacher_temperature)
            yield self.students.make_scorer(teacher, exact=self.settings.needs_divergences)

    def _derive(self, groups: Sequence[Sequence[TokenScores | FailedScore]]) -> list[dict[str, Any]]:
        """Derive the reward columns of each completion, combined over its students."""
        scored = [result for group in groups for result in group if isinstance(result, TokenScores)]
        parts = iter(derive_parts(scored, self.settings))
        columns: list[dict[str, Any]] = []
        for group in groups:
            own = [next(parts) for result in group if isinstance(result, TokenScores)]
            # Where one student could not score the text, neither mean nor minimum would be fair.
            whole = own and len(own) == len(group)
            columns.append(asdict(combine_parts(own, self.combine)) if whole else {})
        return columns

    def _log(self, log_extra: Any, log_metric: Any) -> None:
        for name in PART_COLUMNS:
            values = [scored.parts.get(name) for scored in self.last]
            numbers = [value for value in values if value is not None]
            if log_extra is not None:
                log_extra(name, values)
            if log_metric is not None and numbers:
                log_metric(f"rlt/{name}", sum(numbers) / len(numbers))
        if log_metric is not None and self.last:
            failed = sum(scored.reward is None for scored in self.last)
            log_metric("rlt/unscored_share", failed / len(self.last))


def _gather_students(
    format: ConversationFormat,
    students: Sequence[ScoringModel | LogprobBackend | str],
    temperature: float,
    *,
    dtype: str,
    device: str,
    pack_tokens: int | None,
) -> Students:
    served = [student for student in students if not isinstance(student, ScoringModel | str)]
    if served and len(served) < len(students):
        raise UsageError(
            "some students are loaded and some are served", remedy="load all of them, or serve all"
        )
    if served:
        return ServedStudents(format, served)
    here = cast(Sequence[ScoringModel | str], students)
    models = [
        load_student(student, temperature, dtype=dtype, device=device)
        if isinstance(student, str)
        else student
        for student in here
    ]
    return LoadedStudents(format, models, pack_tokens=pack_tokens)


def _find_key(result: TokenScores | FailedScore) -> str:
    return result.key if isinstance(result, TokenScores) else result.failure.key


def _explain_failure(results: Sequence[TokenScores | FailedScore]) -> str | None:
    for result in results:
        if isinstance(result, FailedScore):
            return f"{result.failure.reason}: {result.failure.detail}"
    return None
