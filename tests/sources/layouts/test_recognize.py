"""The layout of a source is recognized by its columns and values."""

from __future__ import annotations

from pathlib import Path

import pytest
from sources.layouts.public_rows import recognize

from rlt_data.errors import UsageError
from rlt_data.sources.files.parts import open_file
from rlt_data.sources.layouts import LAYOUTS, recognize_layout
from rlt_data.sources.rows import BadRow, SourceRow


def test_the_real_files_are_recognized(shared_data: Path) -> None:
    expected = {
        "gsm8k_test.jsonl": "gsm8k",
        "math500.jsonl": "math500",
        "aime24.jsonl": "aime",
        "skyt1_27b_math500.jsonl": "traces",
    }
    for file, name in expected.items():
        layout = recognize_layout(open_file(shared_data / file).read(), where=file)
        assert layout is not None
        assert layout.name == name


def test_gsm8k_needs_its_mark_and_aime_its_integers() -> None:
    assert recognize({"question": "q", "answer": "no mark"}) == "plain"
    assert recognize({"id": 1, "problem": "p", "answer": "x + 1"}) == "math"


def test_columns_of_all_first_rows_count_and_bad_rows_do_not() -> None:
    rows = [BadRow(0, "malformed_json", "."), SourceRow(1, {"question": "q"}), SourceRow(2, {"answer": "a"})]
    layout = recognize_layout(rows, where="x")
    assert layout is not None
    assert layout.name == "plain"
    assert recognize_layout([BadRow(0, "malformed_json", ".")], where="x") is None


def test_unknown_columns_are_named_with_the_layouts_and_a_mapping_that_works() -> None:
    with pytest.raises(UsageError) as refused:
        recognize({"prompt": "p", "response": "r", "extra": 1})
    assert "prompt, response, extra" in refused.value.what
    remedy = refused.value.remedy or ""
    assert "--map question=prompt,solution=response" in remedy
    assert all(layout.name in remedy for layout in LAYOUTS)
    assert (
        recognize({"prompt": "p", "response": "r"}, mapping={"question": "prompt", "solution": "response"})
        == "plain"
    )


def test_the_nearest_layout_is_named_with_what_it_lacks() -> None:
    with pytest.raises(UsageError) as refused:
        recognize({"Problem": "p", "deepseek_reasoning": "r"})
    assert "nearest layout: openthoughts, which also needs deepseek_solution" in (refused.value.remedy or "")
    with pytest.raises(UsageError) as refused:
        recognize({f"c{number}": 1 for number in range(30)})
    assert "nearest layout" not in (refused.value.remedy or "")
    assert "c19 and 10 more" in refused.value.what


def test_layouts_that_fit_equally_are_not_chosen_between() -> None:
    row = {"messages": [], "conversations": []}
    with pytest.raises(
        UsageError, match="match messages and sharegpt equally well: messages, conversations"
    ) as refused:
        recognize(row)
    assert refused.value.remedy == "choose one: --layout messages or --layout sharegpt"
    assert recognize(row, layout="sharegpt") == "sharegpt"
