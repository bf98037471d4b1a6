"""Hub datasets from the local cache, and the messages without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlt_data.sources.hub import is_hub_id

pytest.importorskip("datasets")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# `datasets` reads its cache directory when it is imported, so each case runs in a process of its own.
LOAD = """
import sys
from rlt_data.errors import RltDataError
from rlt_data.sources.opening import open_source
try:
    for part in open_source(sys.argv[1], split=sys.argv[2] if len(sys.argv) > 2 else None).parts:
        print(part.name, part.count_rows(), part.identify())
        for row in part.read():
            print(row.number, row.values)
except RltDataError as error:
    print(type(error).__name__, error)
"""


def load(cache: Path, *arguments: str, **environment: str) -> str:
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fill_cache(cache: Path) -> None:
    """Put a dataset into the cache as `datasets` leaves it there after a download."""
    import datasets
    from datasets.info import DatasetInfo
    from datasets.splits import SplitDict, SplitInfo

    rows = [{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": "4"}]
    folder = cache / "datasets" / "acme___toy" / "default" / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    dataset = datasets.Dataset.from_list(rows)
    with datasets.arrow_writer.ArrowWriter(
        path=str(folder / "toy-train.arrow"), features=dataset.features
    ) as writer:
        writer.write_table(dataset.data.table)
        writer.finalize()
    splits = SplitDict({"train": SplitInfo("train", num_examples=2, dataset_name="toy")}, dataset_name="toy")
    info = DatasetInfo(
        features=dataset.features,
        splits=splits,
        builder_name="parquet",
        dataset_name="toy",
        config_name="default",
    )
    info.write_to_directory(str(folder))


def test_a_cached_data_set_is_read_without_a_network(tmp_path: Path) -> None:
    fill_cache(tmp_path)
    lines = load(tmp_path, "acme/toy").splitlines()
    assert lines[0].startswith("acme/toy/train 2 ")
    assert lines[1:] == ["0 {'question': '1 + 1?', 'answer': '2'}", "1 {'question': '2 + 2?', 'answer': '4'}"]
    assert load(tmp_path, "acme/toy", "train").splitlines() == lines


def test_an_unknown_split_is_a_usage_error(tmp_path: Path) -> None:
    fill_cache(tmp_path)
    printed = load(tmp_path, "acme/toy", "validation")
    assert printed.startswith("UsageError")
    assert "validation" in printed
    assert "--split" in printed


def test_without_network_and_cache_the_message_says_what_to_do(tmp_path: Path) -> None:
    printed = load(tmp_path, "acme/unheard-of")
    assert printed.startswith("InputError the dataset 'acme/unheard-of'")
    assert "hf download acme/unheard-of --repo-type dataset" in printed


def test_a_hub_that_cannot_be_looked_up_is_not_waited_for(tmp_path: Path) -> None:
    # A name that never resolves (RFC 2606): `datasets` alone would try for half a minute.
    printed = load(tmp_path, "acme/unheard-of", HF_HUB_OFFLINE="0", HF_ENDPOINT="https://hub.invalid")
    assert printed.startswith("InputError the dataset 'acme/unheard-of'")


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("gsm8k", True),
        ("openai/gsm8k", True),
        ("a/b/c", False),
        ("a b", False),
        ("C:\\x", False),
        ("/abs", False),
        ("", False),
    ],
)
def test_hub_ids_are_one_or_two_names(text: str, is_id: bool) -> None:
    assert is_hub_id(text) is is_id
