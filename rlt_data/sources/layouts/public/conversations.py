"""Layouts of conversations: the assistant's turn contains thinking and solution, marked by tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rlt_data.sources.layouts.base import Example, Explanation, Layout, Row, Signatures
from rlt_data.sources.rows import RowError
from rlt_data.sources.values import read_flag, read_text, write_json

_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


class Sharegpt(Layout):
    """Conversations as lists of objects with `from` and `value`."""

    name = "sharegpt"
    about = "conversations [{from, value}], with one user turn and one assistant turn"
    signatures: ClassVar[Signatures] = (("conversations",),)

    def read(self, row: Row) -> Example:
        """Read the user turn as the question, the assistant turn as a trace that contains the solution."""
        return read_conversation(row, "conversations")


class BespokeStratos(Sharegpt):
    """bespokelabs/Bespoke-Stratos-17k, and the default subset of open-thoughts/OpenThoughts-114k."""

    name = "bespoke-stratos"
    about = "system, conversations [{from, value}]; the assistant turn has tagged thinking and solution"
    signatures: ClassVar[Signatures] = (("system", "conversations"),)


class Messages(Layout):
    """Conversations as lists of objects with `role` and `content`, as in chat APIs."""

    name = "messages"
    about = "messages [{role, content}], with one user turn and one assistant turn"
    signatures: ClassVar[Signatures] = (("messages",),)

    def read(self, row: Row) -> Example:
        """Read the user turn as the question, the assistant turn as a trace that contains the solution."""
        return read_conversation(row, "messages")


class OpenThoughts(Layout):
    """open-thoughts: OpenThoughts-114k (`metadata` subset), OpenThoughts2-1M, OpenThoughts3-1.2M, and the
    verified mathematical part open-r1/OpenThoughts-114k-math.
    """

    name = "openthoughts"
    about = (
        "problem, deepseek_reasoning, deepseek_solution, ground_truth_solution (subset metadata); or "
        "conversations with source and domain, difficulty, question or id"
    )
    signatures: ClassVar[Signatures] = (
        ("problem", "deepseek_reasoning", "deepseek_solution"),
        ("problem", "deepseek_reasoning", "deepseek_solution", "ground_truth_solution"),
        ("conversations", "source", "domain"),
        ("conversations", "source", "question"),
        ("conversations", "source", "domain", "difficulty"),
        ("conversations", "source", "question", "id"),
        ("conversations", "source", "system"),
        ("conversations", "source", "system", "problem", "solution", "correct"),
    )

    def read(self, row: Row) -> Example:
        """Read the ground truth as the solution where the row has it, else the solution of the model."""
        if row.take("deepseek_reasoning") is None and row.take("conversations") is not None:
            return self._read_conversation(row)
        reasoning, stated = row.take_text("deepseek_reasoning"), row.take_text("deepseek_solution")
        return Example(
            row.take_text("problem"),
            row.take_text("ground_truth_solution") or stated,
            traces=[Explanation(reasoning, tagged=False, solution=stated, teacher="deepseek-r1")]
            if reasoning
            else [],
            metadata=row.take_rest(),
        )

    def _read_conversation(self, row: Row) -> Example:
        solution, grade = row.take_text("solution"), read_flag(row.take("correct"))
        return read_conversation(
            row,
            "conversations",
            question=row.take_text("problem", "question"),
            solution=solution,
            grade=grade,
        )


def read_conversation(
    row: Row,
    column: str,
    *,
    question: str | None = None,
    solution: str | None = None,
    grade: bool | None = None,
) -> Example:
    """Read a conversation of one user turn and one assistant turn. Raises `RowError` for any other shape.

    `question` and `solution`, from columns of their own, replace those of the conversation.
    """
    turns = _read_turns(row.take(column), column)
    if turns is None:
        return Example(question, solution, metadata=row.take_rest())
    roles = [role for role, _ in turns if role != "system"]
    if roles not in (["user", "assistant"], ["user"]):
        raise RowError(
            "malformed_conversation",
            f"column {column!r} has the turns {', '.join(roles) or '(none)'}; expected user, assistant",
        )
    texts = dict(turns)
    assistant = texts.get("assistant")
    metadata = row.take_rest()
    if texts.get("system"):
        metadata = {"system": texts["system"], **metadata}
    return Example(
        question or texts["user"],
        solution,
        traces=[Explanation(assistant, grade=grade)] if assistant else [],
        metadata=metadata,
        solution_in_trace=solution is None,
    )


def _read_turns(value: Any, column: str) -> list[tuple[str, str | None]] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RowError(
            "malformed_conversation", f"column {column!r} is not a list of turns: {write_json(value)[:80]}"
        )
    turns = []
    for index, turn in enumerate(value):
        if not isinstance(turn, dict):
            raise RowError("malformed_conversation", f"turn {index} of column {column!r} is not an object")
        role, content = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        standard = _ROLES.get(role.casefold()) if isinstance(role, str) else None
        if standard is None:
            raise RowError(
                "malformed_conversation",
                f"turn {index} of column {column!r} has the role {role!r}; expected user or assistant",
            )
        turns.append((standard, read_text(content, f"{column}[{index}]")))
    return turns
