"""A row of each public schema, by the layout that must be recognized from it; and how tests read one."""

from __future__ import annotations

from typing import Any

from rlt_data.sources.layouts import Example, Row, find_layout, recognize_layout
from rlt_data.sources.rows import SourceRow

TAGGED = (
    "<|begin_of_thought|>\n\nTwo and two.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nIt is \\boxed{4}.\n\n<|end_of_solution|>"
)
QUESTION = "What is 2 + 2?"
TURNS = [{"from": "user", "value": QUESTION}, {"from": "assistant", "value": TAGGED}]

# A row of each public schema, by the layout that must be recognized.
PUBLIC: list[tuple[str, dict[str, Any]]] = [
    ("bespoke-stratos", {"system": "Think.", "conversations": TURNS}),
    ("sharegpt", {"conversations": TURNS}),
    (
        "messages",
        {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": TAGGED}]},
    ),
    (
        "s1k",
        {
            "solution": "4",
            "question": QUESTION,
            "cot_type": "math",
            "source_type": "made up",
            "metadata": "{}",
            "cot": None,
            "thinking_trajectories": ["Two and two."],
            "attempt": "It is 4.",
        },
    ),
    (
        "s1k",
        {
            "solution": "4",
            "question": QUESTION,
            "cot_type": "math",
            "source_type": "made up",
            "metadata": "{}",
            "gemini_thinking_trajectory": "Hm.",
            "gemini_attempt": "5",
            "deepseek_thinking_trajectory": "Two and two.",
            "deepseek_attempt": "It is 4.",
            "gemini_grade": "No",
            "gemini_grade_reason": "wrong",
            "deepseek_grade": "Yes",
            "deepseek_grade_reason": "right",
        },
    ),
    (
        "openthoughts",
        {
            "problem": QUESTION,
            "deepseek_reasoning": "Two and two.",
            "deepseek_solution": "It is 4.",
            "ground_truth_solution": "4",
            "domain": "math",
            "source": "made up",
            "test_cases": None,
            "starter_code": None,
        },
    ),
    ("openthoughts", {"conversations": TURNS, "question": QUESTION, "source": "made up", "id": 1}),
    ("openthoughts", {"difficulty": 5, "source": "made up", "domain": "math", "conversations": TURNS}),
    (
        "openthoughts",
        {
            "source": "made up",
            "problem": QUESTION,
            "solution": "4",
            "messages": [],
            "system": "Think.",
            "conversations": TURNS,
            "generated_token_count": 9,
            "correct": True,
        },
    ),
    ("gsm8k", {"question": QUESTION, "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}),
    ("math", {"problem": QUESTION, "level": "Level 1", "type": "Algebra", "solution": "It is \\boxed{4}."}),
    ("math", {"source": "made up", "problem": QUESTION, "solution": "It is \\boxed{4}."}),
    (
        "math500",
        {
            "problem": QUESTION,
            "solution": "It is \\boxed{4}.",
            "answer": "4",
            "subject": "Algebra",
            "level": 1,
            "unique_id": "test/1.json",
        },
    ),
    ("aime", {"id": 60, "problem": QUESTION, "answer": "4"}),
    ("aime", {"ID": "2024-I-1", "Problem": QUESTION, "Solution": "It is 4.", "Answer": 4}),
    (
        "aime",
        {"id": 0, "problem": QUESTION, "solution": "It is 4.", "answer": "004", "url": "u", "year": "2024"},
    ),
    (
        "aime",
        {
            "ID": "1983-1",
            "Year": 1983,
            "Problem Number": 1,
            "Question": QUESTION,
            "Answer": "4",
            "Part": None,
        },
    ),
    (
        "gpqa",
        {
            "Question": QUESTION,
            "Correct Answer": "4",
            "Incorrect Answer 1": "3",
            "Incorrect Answer 2": "5",
            "Incorrect Answer 3": "22",
            "Explanation": "Count on.",
            "Subdomain": "Arithmetic",
            "Record ID": "rec1",
        },
    ),
    (
        "traces",
        {
            "idx": 0,
            "question": QUESTION,
            "answer": "4",
            "level": 1,
            "completion": TAGGED,
            "pred": "4",
            "correct": True,
        },
    ),
    ("reasoning-gym", {"question": QUESTION, "answer": "4", "metadata": {"source_dataset": "chain_sum"}}),
    ("plain", {"question": QUESTION, "solution": "It is 4."}),
    ("plain", {"question": QUESTION, "answer": 4}),
    ("plain", {"question": QUESTION, "solution": "It is 4.", "answer": "4", "trace": "Two and two."}),
]


def recognize(*rows: dict[str, Any], **options: Any) -> str | None:
    layout = recognize_layout(
        [SourceRow(n, row) for n, row in enumerate(rows)], where="made-up.jsonl", **options
    )
    return None if layout is None else layout.name


def read(name: str, row: dict[str, Any]) -> Example:
    return find_layout(name).read(Row(row))
