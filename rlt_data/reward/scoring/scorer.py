"""The scorer: explanations in, token scores out. `rlt-data score` and the GRPO reward share this path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlt_data.errors import UsageError
from rlt_data.formats.definition import ConversationFormat
from rlt_data.reward.forward.backbone import Mode
from rlt_data.reward.forward.head import score_divergences, score_targets
from rlt_data.reward.forward.memory import Sizes, TileSize, choose_sizes, read_shape
from rlt_data.reward.scoring.scoring_model import ModelRunner, ScoredRows, ScoringModel
from rlt_data.reward.scoring.texts import (
    FailedText,
    ScoreRequest,
    ScoringText,
    build_student_texts,
    build_teacher_texts,
    find_failure,
)
from rlt_data.reward.tokenizers import refuse_other_tokens


@dataclass(frozen=True)
class TokenScores:
    """One explanation scored by one student: log-probabilities in nats, one value per token.

    `think_teacher` is None without a teacher; `think_divergences` is None unless the exact divergence was
    requested. Character spans are half-open, relative to the solution and to the explanation.
    """

    key: str
    student: str
    closed: bool
    solution_logprobs: list[float]
    think_student: list[float]
    think_teacher: list[float] | None
    think_divergences: list[float] | None
    solution_characters: list[tuple[int, int]]
    think_characters: list[tuple[int, int]]
    student_tokens: int
    teacher_tokens: int | None

    def as_row(self) -> dict[str, Any]:
        """The columns of `scores` that hold these numbers, with all inputs of `derive_reward`."""
        return {
            "student_tokens": self.student_tokens,
            "teacher_tokens": self.teacher_tokens,
            "solution_tokens": len(self.solution_logprobs),
            "think_tokens": len(self.think_student),
            "closed": self.closed,
            "solution_logprobs": self.solution_logprobs,
            "think_student_logprobs": self.think_student,
            "think_teacher_logprobs": self.think_teacher,
            "think_divergences": self.think_divergences,
            "solution_token_starts": [start for start, _ in self.solution_characters],
            "solution_token_ends": [end for _, end in self.solution_characters],
            "think_token_starts": [start for start, _ in self.think_characters],
            "think_token_ends": [end for _, end in self.think_characters],
            "teacher_source": "torch" if self.think_teacher is not None else None,
        }


@dataclass(frozen=True)
class FailedScore:
    """A request that a student could not score; `student` is None where none could."""

    failure: FailedText
    student: str | None = None


class Scorer:
    """Scores explanations with one or several students and at most one teacher, which runs once.

    Models may be frozen or in training: weights are read at every call. `exact` also computes the
    divergence over the whole vocabulary at each explanation token. `memory` is a budget in bytes beyond the
    weights; it sets the sizes of passes and tiles, which the other arguments override. `mode` overrides how
    the models are run (see `rlt_data.reward.forward.backbone`).

    Raises `UsageError` where teacher and student split text into different tokens, so that no divergence
    token by token exists, or where the budget is too small.
    """

    def __init__(
        self,
        format: ConversationFormat,
        students: Sequence[ScoringModel],
        teacher: ScoringModel | None = None,
        *,
        exact: bool = False,
        memory: int | None = None,
        pack_tokens: int | None = None,
        batch_tokens: int | None = None,
        tile: TileSize | None = None,
        share_prefixes: bool = True,
        mode: Mode | None = None,
    ) -> None:
        if not students:
            raise UsageError("scoring needs at least one student", remedy="--student MODEL")
        self.format = format
        self.exact = exact and teacher is not None
        loaded = [*students, *([teacher] if teacher is not None else [])]
        shapes = [read_shape(one.model) for one in loaded]
        chosen = choose_sizes(shapes, budget=memory, exact=self.exact, device=students[0].model.device.type)
        self.sizes = Sizes(
            pack_tokens or chosen.pack_tokens, batch_tokens or chosen.batch_tokens, tile or chosen.tile
        )
        for student in students if teacher is not None else ():
            assert teacher is not None
            refuse_other_tokens(
                teacher.tokenizer,
                student.tokenizer,
                where=f"teacher {teacher.name}, student {student.name}",
            )

        def build_runner(scoring: ScoringModel) -> ModelRunner:
            return ModelRunner(scoring, self.sizes, share_prefixes=share_prefixes, mode=mode)

        self.students = [build_runner(student) for student in students]
        self.teacher = build_runner(teacher) if teacher is not None else None
        runners = [*self.students, *([self.teacher] if self.teacher is not None else [])]
        self.notes = [runner.note for runner in runners if runner.note is not None]
        """Notes for the user about the models, such as one that runs in a slower mode."""
        if self.exact and any(runner.mode == "dense" for runner in runners):
            # Whole logits of the teacher are kept for a batch, so a batch is one text.
            self.sizes = replace(self.sizes, batch_tokens=1)

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[TokenScores | FailedScore]:
        """Score requests in their order, batch by batch: one result or failure per request and student.

        Requests of one question should be adjacent: the prompt that their texts share is then computed once.
        """
        batch: list[ScoreRequest] = []
        size = 0
        for request in requests:
            batch.append(request)
            # Four characters per token, prompt included: only the order of magnitude matters here.
            size += 256 + (len(request.question) + len(request.think) + len(request.solution)) // 4
            if size >= self.sizes.batch_tokens:
                yield from self._score_batch(batch)
                batch, size = [], 0
        if batch:
            yield from self._score_batch(batch)

    def _score_batch(self, requests: list[ScoreRequest]) -> Iterator[TokenScores | FailedScore]:
        teacher_texts: list[ScoringText | FailedText] | None = None
        student_texts = [
            build_student_texts(self.format, runner.scoring.tokenizer, requests, context=runner.context)
            for runner in self.students
        ]
        if self.teacher is not None:
            teacher_texts = build_teacher_texts(
                self.format, self.teacher.scoring.tokenizer, requests, context=self.teacher.context
            )
            student_texts = [
                [
                    find_failure(request, text, teacher_text) or text
                    for request, text, teacher_text in zip(requests, texts, teacher_texts, strict=True)
                ]
                for texts in student_texts
            ]
        needed = [
            any(isinstance(texts[i], ScoringText) for texts in student_texts) for i in range(len(requests))
        ]
        teacher_rows = self._run_teacher(teacher_texts, needed) if teacher_texts is not None else None
        results = [
            self._run_student(runner, texts, teacher_rows)
            for runner, texts in zip(self.students, student_texts, strict=True)
        ]
        for i, request in enumerate(requests):
            for runner, texts, scored in zip(self.students, student_texts, results, strict=True):
                text = texts[i]
                if isinstance(text, FailedText):
                    yield FailedScore(text, runner.scoring.name)
                else:
                    teacher_text = teacher_texts[i] if teacher_texts is not None else None
                    yield self._join(request, runner, text, teacher_text, scored[i], teacher_rows, i)

    def _run_teacher(
        self, texts: Sequence[ScoringText | FailedText], needed: Sequence[bool]
    ) -> dict[int, Tensor]:
        """Return log-probabilities [tokens] by text index; if exact, hidden states [tokens, hidden]."""
        runner = self.teacher
        assert runner is not None
        rows: dict[int, Tensor] = {}
        head = runner.read_head()

        def consume(scored: ScoredRows) -> None:
            values = scored.hidden
            if not self.exact:
                values = score_targets(scored.hidden, head, scored.targets, runner.tile).cpu()
            for index, part in scored.text_rows:
                rows[index] = values[part]

        runner.score(
            [_text_or_none(text) if need else None for text, need in zip(texts, needed, strict=True)], consume
        )
        return rows

    def _run_student(
        self,
        runner: ModelRunner,
        texts: Sequence[ScoringText | FailedText],
        teacher_rows: dict[int, Tensor] | None,
    ) -> dict[int, _StudentRows]:
        results: dict[int, _StudentRows] = {}
        head = runner.read_head()
        teacher_head = self.teacher.read_head() if self.teacher is not None and self.exact else None
        usable = [_text_or_none(text) for text in texts]

        def consume(scored: ScoredRows) -> None:
            if teacher_head is None or teacher_rows is None:
                values = score_targets(scored.hidden, head, scored.targets, runner.tile).cpu()
                for index, part in scored.text_rows:
                    results[index] = _StudentRows(values[part])
                return
            think_rows, solution_rows = _split_rows(scored, usable)
            left = [teacher_rows[i] for i, _ in scored.text_rows if i in teacher_rows]
            hidden = scored.hidden.index_select(0, think_rows)
            teacher_hidden = torch.cat(left).to(hidden.device) if left else hidden.new_empty(0, 1)
            think_targets = scored.targets.index_select(0, think_rows)
            compared = score_divergences(
                teacher_hidden, teacher_head, hidden, head, think_targets, runner.tile
            )
            values = torch.empty(scored.targets.shape[0])
            values[think_rows.cpu()] = compared.student_logprobs.cpu()
            rest = score_targets(
                scored.hidden.index_select(0, solution_rows),
                head,
                scored.targets.index_select(0, solution_rows),
                runner.tile,
            )
            values[solution_rows.cpu()] = rest.cpu()
            at = 0
            teacher_values, divergences = compared.teacher_logprobs.cpu(), compared.divergences.cpu()
            for index, part in scored.text_rows:
                text = usable[index]
                count = len(text.think) if text is not None else 0
                own = slice(at, at + count)
                results[index] = _StudentRows(values[part], teacher_values[own], divergences[own])
                at += count

        runner.score(usable, consume)
        return results

    def _join(
        self,
        request: ScoreRequest,
        runner: ModelRunner,
        text: ScoringText,
        teacher_text: ScoringText | FailedText | None,
        rows: _StudentRows,
        teacher_rows: dict[int, Tensor] | None,
        index: int,
    ) -> TokenScores:
        teacher: list[float] | None = None
        if teacher_rows is not None:
            values = rows.teacher if self.exact else teacher_rows.get(index)
            teacher = values.tolist() if values is not None else []
        count = len(text.think)
        divergences = rows.divergences.tolist() if rows.divergences is not None else None
        return TokenScores(
            key=request.key,
            student=runner.scoring.name,
            closed=request.closed,
            solution_logprobs=rows.student[count:].tolist(),
            think_student=rows.student[:count].tolist(),
            think_teacher=teacher,
            think_divergences=divergences,
            solution_characters=text.solution_characters,
            think_characters=text.think_characters,
            student_tokens=text.total_tokens,
            teacher_tokens=teacher_text.total_tokens if isinstance(teacher_text, ScoringText) else None,
        )


@dataclass(frozen=True)
class _StudentRows:
    student: Tensor
    teacher: Tensor | None = None
    divergences: Tensor | None = None


def _text_or_none(text: ScoringText | FailedText) -> ScoringText | None:
    return text if isinstance(text, ScoringText) else None


def _split_rows(scored: ScoredRows, texts: Sequence[ScoringText | None]) -> tuple[Tensor, Tensor]:
    """Row numbers of explanation tokens and of solution tokens, in order."""
    think: list[int] = []
    solution: list[int] = []
    for index, part in scored.text_rows:
        text = texts[index]
        middle = part.start + (len(text.think) if text is not None else 0)
        think.extend(range(part.start, middle))
        solution.extend(range(middle, part.stop))
    device = scored.hidden.device
    return torch.tensor(think, dtype=torch.long, device=device), torch.tensor(
        solution, dtype=torch.long, device=device
    )
