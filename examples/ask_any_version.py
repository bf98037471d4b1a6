"""Ingest problems, query them with SQL, and query an older version. No model is needed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from rlt_data import Lake
from rlt_data.stages.ingest import IngestConfig, ingest


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")

        # Columns with other names are mapped. The third row has no question and goes to `rejects`.
        first = Path(folder) / "first.jsonl"
        rows = [
            {"prompt": "What is 2 + 3?", "response": "2 + 3 = 5.", "final": "5"},
            {"prompt": "What is 6 * 7?", "response": "6 * 7 = 42.", "final": "42"},
            {"response": "a solution without a question"},
        ]
        first.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        columns = {"question": "prompt", "solution": "response", "answer": "final"}
        summary = ingest(lake, IngestConfig(source=str(first), map=columns))
        print(
            f"{summary.rows_in} rows in, {summary.tables['questions']} questions, {summary.rejected} rejected"
        )

        version = lake.table("questions").version()
        second = Path(folder) / "second.jsonl"
        second.write_text(
            json.dumps({"question": "What is 1 + 1?", "solution": "1 + 1 = 2."}), encoding="utf-8"
        )
        ingest(lake, IngestConfig(source=str(second)))

        print(lake.sql("SELECT reason, source_row FROM rejects").to_pylist())
        now = lake.sql("SELECT count(*) AS questions FROM questions").to_pylist()
        then = lake.sql(f'SELECT count(*) AS questions FROM "questions@{version}"').to_pylist()
        print(f"now {now}, at version {version} {then}")


if __name__ == "__main__":
    main()
