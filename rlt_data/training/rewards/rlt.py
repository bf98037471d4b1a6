"""`RltReward`: the reward of Reinforcement Learning Teachers as an ordinary reward function of TRL.

It scores by `rlt_data.reward.Scorer`, the path of `rlt-data score`. Outside this program:

    reward = RltReward(["student"], format="stratos", policy_tokenizer=tokenizer)
    trainer = GRPOTrainer(model, reward_funcs=[reward], ...)
    reward.follow(trainer)

The data set needs the columns `question` and `solution` beside `prompt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

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

TeacherSide = Literal["auto", "policy", "reference", "sampled", "none"]

_OTHER_TOKENS = (
    "other_tokens",
    "the explanation's text is cut into other tokens than were sampled, so their log-probabilities are not "
    "those of the teacher's side",
)


@dataclass(frozen=True)
class ScoredCompletion:
    """What one completion was worth: its parse, and the columns of `schemas.REWARD_COLUMNS`.

    `reward` is None where it could not be scored; `failure` then says why.
    """

    think: str
    state: str
    parts: Mapping[str, Any]
    failure: str | None = None

    @property
    def reward(self) -> float | None:
        """The reward, None where there is none."""
        value = self.parts.get("reward")
        return None if value is None else float(value)


class RltReward:
    """Rewards explanations by what frozen students make of them (arXiv 2506.08388).

    `students` are loaded models, names that `rlt_data.models.resolve_model` knows, or sources of
    log-probabilities such as a served model, either all of them or none. `policy_tokenizer` is the
    tokenizer of the model in training. `teacher_side` says whose log-probabilities stand on the
    teacher's side of the divergence:

    - `policy`: the model in training as it is now, by a forward pass;
    - `sampled`: those with which the tokens were sampled (column `completion_logprobs`), which is the same
      quantity for k1 and k3 where they were taken under `teacher_temperature`. No forward pass is ever
      made: a completion whose text is cut into other tokens than were sampled has no reward;
    - `auto`: `sampled` where that is so, else `policy`; in a sharded training `sampled`;
    - `reference`: the reference policy of the trainer; `none`: no divergence at all.

    `combine` is over several students: the mean of their rewards, or the least.
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
        teacher_side: TeacherSide = "auto",
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
        """What the students' chat templates drop, move or add."""
        self.teacher_side: TeacherSide = teacher_side if self.settings.lambda_kl else "none"
        self.last: list[ScoredCompletion] = []
        """What the last call scored, in its order."""
        self._sampled_is_teacher = sampling_temperature == teacher_temperature
        self._trainer: Any = None
        self._students_alone = self.students.make_scorer(None, exact=False)
        if self.teacher_side != "none":
            for tokenizer in self.students.tokenizers:
                refuse_other_tokens(policy_tokenizer, tokenizer)
        if teacher_side == "sampled" and self.settings.needs_divergences:
            raise UsageError(
                "the exact divergence needs the teacher's whole distribution, not the sampled tokens' alone",
                remedy=f"set teacher_side to policy, or the estimator to {list_estimators(exact=False)}",
            )

    def follow(self, trainer: Any) -> None:
        """Take the policy, and where asked the reference policy, from a TRL trainer at every call."""
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
        """Score completions; None for one that cannot be scored, which TRL leaves out of its group.

        Raises `UsageError` where the data set lacks `question` or `solution`.
        """
        if question is None or solution is None:
            missing = "question" if question is None else "solution"
            raise UsageError(
                f"the reward needs the column {missing!r}, which the data set lacks",
                remedy="give the data set the columns prompt, question and solution",
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
        """Score completion texts; one result a completion, in order."""
        parsed = [parse_teacher_completion(self.format, text) for text in completions]
        requests = [
            ScoreRequest(str(place), question, solution, trace.think or "", trace.state != "missing_close")
            for place, (question, solution, trace) in enumerate(
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
        if self.teacher_side == "none":
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
        """Log-probabilities of think tokens by request, where sampling left the very same quantity.

        That asks for one temperature, and that the sampled tokens are those into which the teacher's and
        the students' texts cut the explanation.
        """
        usable = self._sampled_is_teacher and not self.settings.needs_divergences
        if self.teacher_side not in ("auto", "sampled") or not usable or not logprobs or not completion_ids:
            if self._reuses_only():
                raise UsageError(
                    "there are no log-probabilities of the sampled tokens under the teacher's temperature",
                    remedy="sample at the teacher's temperature, with estimator k1 or k3 (a sharded training "
                    "cannot run the policy for the reward), or set teacher_side to policy",
                )
            return {}
        pairs = zip(requests, completion_ids, logprobs, strict=True)
        sampled = {request.key: SampledTokens(ids, values) for request, ids, values in pairs}
        return find_reusable(self.format, self.tokenizer, self.students.tokenizers, requests, sampled)

    def _reuses_only(self) -> bool:
        """Whether the policy cannot or shall not be run for the teacher's side."""
        sharded = self._trainer is not None and is_sharded(self._trainer)
        return self.teacher_side == "sampled" or (self.teacher_side == "auto" and sharded)

    @contextmanager
    def _open_teacher(self) -> Iterator[AnyScorer]:
        """A scorer with the teacher's side as it stands now."""
        if self._trainer is None:
            raise UsageError(
                "the reward does not know the policy whose log-probabilities it compares",
                remedy="call reward.follow(trainer) before trainer.train()",
            )
        with borrow_policy(self._trainer, reference=self.teacher_side == "reference") as model:
            teacher = ScoringModel("policy", model, self.tokenizer, self.teacher_temperature)
            yield self.students.make_scorer(teacher, exact=self.settings.needs_divergences)

    def _derive(self, groups: Sequence[Sequence[TokenScores | FailedScore]]) -> list[dict[str, Any]]:
        """Reward columns a completion; with several students, those of the least or the mean of all."""
        scored = [result for group in groups for result in group if isinstance(result, TokenScores)]
        parts = iter(derive_parts(scored, self.settings))
        columns: list[dict[str, Any]] = []
        for group in groups:
            own = [next(parts) for result in group if isinstance(result, TokenScores)]
            # A student that could not read the text leaves no fair mean, nor a least.
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
        raise UsageError("students are either all loaded here or all served", remedy="use one kind")
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
