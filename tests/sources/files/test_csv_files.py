"""CSV: quoting, ragged rows, bytes, and quotes that never close."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.errors import InputError
from rlt_data.sources.files.csv_files import read_csv
from rlt_data.sources.rows import BadRow, SourceRow

# What the format cannot distinguish: an empty field from a missing one, a bare CR from a line end.
FIELDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1, max_size=20)


def read(data: bytes | str, **options: int) -> list[SourceRow | BadRow]:
    raw = data if isinstance(data, bytes) else data.encode()
    return list(read_csv(io.BytesIO(raw), **options))


def test_fields_may_hold_delimiters_quotes_and_line_ends() -> None:
    rows = read('question,answer\n"one, ""two""\nthree",3\n')
    assert rows == [SourceRow(0, {"question": 'one, "two"\nthree', "answer": "3"})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_the_delimiter_is_detected_from_the_header(delimiter: str, start: str) -> None:
    text = start + delimiter.join(("question", "answer")) + "\r\n" + delimiter.join(("a", "b")) + "\r\n"
    assert read(text) == [SourceRow(0, {"question": "a", "answer": "b"})]


def test_empty_fields_are_missing_and_empty_lines_no_rows() -> None:
    assert read("question,answer\n\na,\n\n,\nb,c\n") == [
        SourceRow(0, {"question": "a", "answer": None}),
        SourceRow(1, {"question": "b", "answer": "c"}),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"a", "ragged_row"),
        (b"a,b,c", "ragged_row"),
        (b"\xff\xfe,b", "encoding_error"),
        (b'"a" b,c', "malformed_csv"),
        (b'"no end,c', "malformed_csv"),
    ],
)
def test_a_bad_record_loses_only_itself(record: bytes, reason: str) -> None:
    before, bad, after = read(b"question,answer\nx,1\n" + record + b"\ny,2\n")
    assert before == SourceRow(0, {"question": "x", "answer": "1"})
    assert after == SourceRow(2, {"question": "y", "answer": "2"})
    assert isinstance(bad, BadRow)
    assert (bad.number, bad.reason) == (1, reason)
    assert "line 3" in bad.detail
    assert bad.content == record.decode("utf-8", "backslashreplace")


def test_a_quote_that_never_closes_does_not_swallow_the_file() -> None:
    lines = [f"q{n},{n}" for n in range(50)]
    lines[10] = '"q10,10'
    rows = read("question,answer\n" + "\n".join(lines), record_lines=20)
    assert [row.number for row in rows] == list(range(50))
    assert [row.number for row in rows if isinstance(row, BadRow)] == [10]


def test_fields_longer_than_the_csv_module_takes_are_read() -> None:
    long = "x" * 500_000
    before = csv.field_size_limit()
    assert read(f"question,answer\n{long},1\n") == [SourceRow(0, {"question": long, "answer": "1"})]
    assert csv.field_size_limit() == before


def test_columns_without_a_name_get_one_and_repeated_names_are_refused() -> None:
    assert read(",question\n0,a\n") == [SourceRow(0, {"column_0": "0", "question": "a"})]
    with pytest.raises(InputError, match="names a column twice: answer"):
        read("question,answer,answer\na,b,c\n")


@pytest.mark.parametrize("data", ["", "question,answer\n", "\n"])
def test_without_records_there_are_no_rows(data: str) -> None:
    assert read(data) == []


@given(st.lists(st.tuples(FIELDS, FIELDS, FIELDS)), st.sampled_from(["\n", "\r\n"]))
def test_what_was_written_is_read(records: list[tuple[str, str, str]], end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(("a", "b", "c"))
    writer.writerows(records)
    rows = [SourceRow(number, dict(zip("abc", record, strict=True))) for number, record in enumerate(records)]
    assert read(text.getvalue()) == rows


@given(st.text(alphabet='ab,"\n\r;', max_size=80) | st.binary(max_size=80).map(lambda b: b.decode("latin-1")))
def test_no_text_breaks_the_reader(text: str) -> None:
    rows = read("q,a\n" + text)
    assert [row.number for row in rows] == list(range(len(rows)))
