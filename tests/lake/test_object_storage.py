"""A lake on S3-compatible storage: a real server on this machine that honors conditional puts."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from opened_run import open_run

from rlt_data.errors import LakeError
from rlt_data.lake import Lake
from rlt_data.lake.tables.log import name_entry
from rlt_data.stages.runtime.contract import StageConfig

MakeQuestions = Callable[..., pl.DataFrame]

NO_RETRY = {"retry_timeout": "1ns"}  # of the storage client below delta-rs


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the storage server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the storage server did not listen within 30 seconds")


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """Serve an empty bucket named `bucket`; yields the storage options that reach it.

    The server is a process of its own: some calls of delta-rs keep other threads from running.
    """
    pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"import moto.server; moto.server.main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    endpoint = f"http://127.0.0.1:{port}"
    wait_until_listening(port, process)
    boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    ).create_bucket(Bucket="bucket")
    yield {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    process.terminate()
    process.wait()


def test_append_scan_sql_versions_and_upkeep(server: dict[str, str], make_questions: MakeQuestions) -> None:
    lake = Lake("s3://bucket/some/lake/", storage_options=server)
    table = lake.table("questions")
    for number in range(3):
        table.append(make_questions(number), run_id="r")
    assert not table.commit(make_questions(1), run_id="r").written
    assert table.scan().collect().height == table.to_arrow().num_rows == table.count() == 3
    query = 'select count(*) as n, (select count(*) from "questions@2") as o from questions'
    assert lake.sql(query).to_pylist() == [{"n": 3, "o": 2}]
    before = table.state()
    lake.compact()
    assert len(lake.vacuum(retention_hours=0, dry_run=False)[0].files) == 3
    assert table.state().digest == before.digest
    assert Lake("s3://bucket/some/lake", create=False, storage_options=server).tables()[0].count() == 3


def test_credentials_come_from_the_environment(
    server: dict[str, str], monkeypatch: pytest.MonkeyPatch, make_questions: MakeQuestions
) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RLT_DATA_LAKE", "s3://bucket/by-environment")
    Lake().table("questions").append(make_questions(1, 2), run_id="r")
    assert Lake().table("questions").scan().collect().height == 2
    assert Lake().sql("select count(*) as n from questions").to_pylist() == [{"n": 2}]


def test_concurrent_writers_lose_nothing(server: dict[str, str], make_questions: MakeQuestions) -> None:
    """Both writers append the numbers 0 to 9, and each of them ten others."""
    failures: list[BaseException] = []

    def write(own: int) -> None:
        table = Lake("s3://bucket/shared", storage_options=server).table("questions")
        try:
            for number in range(10):
                table.append(make_questions(number, own + number), run_id=f"r{own}")
        except LakeError as error:
            failures.append(error)

    Lake("s3://bucket/shared", storage_options=server).prepare()
    threads = [threading.Thread(target=write, args=(own,)) for own in (100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    keys = (
        Lake("s3://bucket/shared", storage_options=server)
        .table("questions")
        .scan()
        .collect()
        .get_column("question_id")
    )
    assert len(keys) == keys.n_unique() == 30


def test_a_run_resumes(server: dict[str, str], make_questions: MakeQuestions) -> None:
    def ingest(*, fail: bool) -> str:
        lake = Lake("s3://bucket/runs", storage_options=server)
        with open_run(lake, "ingest", StageConfig(), inputs=(), outputs=("questions",)) as run:
            run.append("questions", make_questions(1, 2))
            if fail:
                raise LakeError("the connection was lost")
            run.append("questions", make_questions(3))
        return run.run_id

    with pytest.raises(LakeError, match="connection was lost"):
        ingest(fail=True)
    run_id = ingest(fail=False)
    lake = Lake("s3://bucket/runs", storage_options=server)
    assert lake.table("questions").count() == 3
    assert lake.sql("select run_id, status from runs").to_pylist() == [
        {"run_id": run_id, "status": "finished"}
    ]
    assert lake.run(run_id).counts["rows_in"] == 0
    assert lake.run(run_id).counts["tables"] == {"questions": 3}


@contextmanager
def drop_replies(server: dict[str, str], pattern: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Drop the reply to the first conditional PUT of each path that matches `pattern`; see lossy_proxy.py.

    Yields the storage options of the proxy, and a list that is filled on leaving the block: status and path
    of each request whose reply was dropped.
    """
    port = server["AWS_ENDPOINT_URL"].rpartition(":")[2]
    dropped: list[str] = []
    program = [sys.executable, str(Path(__file__).with_name("lossy_proxy.py")), port, pattern]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        own_port = process.stdout.readline().strip()
        try:
            yield {**server, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{own_port}"}, dropped
        finally:
            process.terminate()
            dropped += process.stdout.read().split("\n")[:-1]


# With retries the storage client sends the put again, which is refused as a conflict; without them the lost
# reply is an I/O error.
@pytest.mark.parametrize("retry", [False, True])
def test_a_run_survives_lost_replies_to_its_commits(
    server: dict[str, str], make_questions: MakeQuestions, retry: bool
) -> None:
    name = f"lost-replies-{retry}"
    uri = f"s3://bucket/{name}"
    options = server if retry else {**server, **NO_RETRY}

    def ingest(options: dict[str, str], *, fail: bool) -> str:
        lake = Lake(uri, storage_options=options)
        with open_run(lake, "ingest", StageConfig(), inputs=(), outputs=("questions",)) as run:
            run.append("questions", make_questions(1, 2))
            run.flush()
            if fail:
                raise LakeError("the connection was lost")
            run.append("questions", make_questions(3))
        return run.run_id

    with drop_replies(options, r"/_delta_log/\d+\.json") as (lossy, dropped):
        with pytest.raises(LakeError, match="connection was lost"):
            ingest(lossy, fail=True)
        run_id = ingest(lossy, fail=False)
    lake = Lake(uri, storage_options=server)
    assert lake.table("questions").count() == 3
    events = lake.sql("select run_id, status from run_events order by sequence").to_pylist()
    assert [event["run_id"] for event in events] == [run_id] * 4
    assert [event["status"] for event in events] == ["started", "failed", "resumed", "finished"]
    assert lake.run(run_id).counts["tables"] == {"questions": 3}
    # The creation of each table and each commit lost its reply.
    newest = {
        table: DeltaTable(f"{uri}/{table}", storage_options=server).version()
        for table in ("_rlt_data", "questions", "rejects", "runs")
    }
    assert sorted(dropped) == sorted(
        f"200 /bucket/{name}/{table}/_delta_log/{version:020}.json"
        for table in newest
        for version in range(newest[table] + 1)
    )


def test_a_commit_finds_its_own_rows_after_a_lost_reply(
    server: dict[str, str], make_questions: MakeQuestions
) -> None:
    """It reports the rows that it skipped, too."""
    uri = "s3://bucket/lost-reply"
    Lake(uri, storage_options=server).table("questions").append(make_questions(1), run_id="r")
    with drop_replies({**server, **NO_RETRY}, r"/0*2\.json") as (lossy, dropped):
        table = Lake(uri, storage_options=lossy).table("questions")
        first = table.commit(make_questions(1, 2), run_id="s")
        again = table.commit(make_questions(1, 2), run_id="s")
    assert (first.version, first.written, len(first.skipped)) == (2, True, 1)
    assert (again.version, again.written) == (2, False)
    assert len(dropped) == 1


def test_unreachable_storage_gives_a_lake_error(server: dict[str, str]) -> None:
    with pytest.raises(LakeError, match="cannot be"):
        Lake("s3://no-such-bucket/lake", storage_options=server).prepare()


def test_damage_is_found_and_repaired(server: dict[str, str], make_questions: MakeQuestions) -> None:
    lake = Lake("s3://bucket/damaged", storage_options=server)
    table = lake.table("questions")
    for number in range(3):
        table.append(make_questions(number), run_id="r")
    assert [report.damages for report in lake.verify() if report.damages] == []
    damaged, torn = sorted(table.folder.list_sizes())[0], name_entry(2)
    content = bytearray(table.folder.read(damaged))
    content[100] ^= 1
    table.folder.write(damaged, bytes(content))
    table.folder.write(torn, b"")
    lake = Lake(lake.uri, storage_options=server)
    reports = lake.verify()
    assert f"questions/{torn}" in {damage.path for report in reports for damage in report.damages}
    done = lake.repair(reports)
    assert f"questions/{torn}" in done.moved
    lake = Lake(lake.uri, storage_options=server)
    assert [report.damages for report in lake.verify() if report.damages] == []
    again = [
        lake.table("questions").commit(make_questions(number), run_id="r").written for number in range(3)
    ]
    assert True in again
    assert lake.table("questions").count() == 3
