"""Text that attacks the terminal reaches no command's output, on a terminal or in a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command_line import Program, QuickProgram, find_program
from opened_run import open_run
from small_lake import MadeConfig, make_question, make_score, make_trace

from rlt_data.lake import Lake
from rlt_data.models.identity import ModelIdentity
from rlt_data.stages.runtime.contract import RunField, StageConfig
from rlt_data.terminal import show_line

# Colour, title, clipboard, link, clear; 8-bit codes; reordering and invisible marks.
NASTY = (
    "N\x1b[35;7mx\x1b]0;t\x07\x1b]52;c;aGk=\x07\x1b]8;;http://a\x1b\\l\x1b[2J\r\x08\x7f\x9b2J\x85\x9d8;;b\x9c"
    "\u202ecod\u2066\u200b\u200f\u2028[bold]Z"
)
# A path holds no control characters that the lake refuses, and no slash.
NASTY_NAME = NASTY.replace("/", "_")
# What the program itself writes on a terminal: colours, the cursor of bars, and erased lines.
OWN_CODES = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[hl]|[0-9]*[AK])")
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class NastyConfig(StageConfig):
    file: RunField[str]
    values: RunField[dict[str, str]]


class Served:
    """A server whose list of models, errors and version are nasty."""

    def __init__(self, status: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(
                    {"data": [{"id": NASTY}]} if status == 200 else {"error": {"message": NASTY}},
                    ensure_ascii=False,
                ).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake, a recipe, settings and files that hold nasty text wherever they may."""
    folder = tmp_path_factory.mktemp("nasty")
    lake = Lake(folder / "lake")
    question = make_question(1) | {"question": NASTY, "dataset": NASTY, "source": NASTY}
    trace = make_trace(1, 0, think=NASTY, teacher=NASTY, teacher_model=NASTY, teacher_revision=NASTY)
    config = NastyConfig(file=NASTY, values={NASTY: NASTY})
    with open_run(lake, "ingest", config, outputs=("questions",)) as run:
        run.append("questions", [question])
        run.reject(source=NASTY, reason="missing_question", detail=NASTY, content=NASTY)
        run.note(NASTY)
    model = ModelIdentity("teacher", NASTY, NASTY, NASTY)
    with open_run(
        lake, "generate", config, inputs=("questions",), outputs=("traces",), models=[model]
    ) as run:
        run.append("traces", [trace])
    with open_run(lake, "score", MadeConfig(), inputs=("traces",), outputs=("scores",)) as run:
        run.append("scores", [make_score(trace, -1.0, student=NASTY)])
    with (
        pytest.raises(RuntimeError),
        open_run(lake, "rank", config, inputs=("scores",), outputs=("rankings",)) as run,
    ):
        raise RuntimeError(NASTY)
    (folder / "files").mkdir()
    (folder / "files" / "good.jsonl").write_text('{"question": "1 + 1?", "solution": "2"}\n')
    (folder / "files" / f"{NASTY_NAME}.jsonl").write_text("{broken\n")
    (folder / "keys.jsonl").write_text(json.dumps({NASTY: 1}) + "\n", encoding="utf-8")
    (folder / "recipe.toml").write_text(
        f"[ingest]\nsource = {json.dumps(NASTY)}\n[generate]\nteacher = {json.dumps(NASTY)}\n", "utf-8"
    )
    (folder / "wrong.toml").write_text(f"[ingest]\n{json.dumps(NASTY)} = 1\n", "utf-8")
    (folder / "settings").mkdir()
    (folder / "settings" / "rlt-data.toml").write_text(
        f"[models.{json.dumps(NASTY)}]\nmodel = {json.dumps('./' + NASTY)}\nabout = {json.dumps(NASTY)}\n",
        "utf-8",
    )
    (folder / "wrong-settings").mkdir()
    (folder / "wrong-settings" / "rlt-data.toml").write_text(f"{json.dumps(NASTY)} = 1\n", "utf-8")
    return folder


# Name: how to make the arguments from the folder, where to run, and whether text must be shown.
Case = Callable[[Path], list[str]]
CASES: dict[str, Case] = {
    "cell": lambda f: ["sql", "select question, dataset from questions"],
    "cell in full": lambda f: ["sql", "select think, [think] as l, {'a': think} as s from traces", "--full"],
    "alias": lambda f: ["sql", f'select 1 as "{NASTY}"'],
    "json cell": lambda f: ["sql", "select * from questions", "-f", "json"],
    "json alias": lambda f: ["sql", f'select 1 as "{NASTY}"', "-f", "json"],
    "query error": lambda f: ["sql", f'select "{NASTY}" from questions'],
    "raised text": lambda f: ["sql", "select error(question) from questions"],
    "no such table": lambda f: ["sql", f'select * from "{NASTY}"'],
    "log": lambda f: ["log"],
    "log of a run": lambda f: ["log", find_run(f, "generate")],
    "log of a failure": lambda f: ["log", find_run(f, "rank")],
    "log in JSON": lambda f: ["log", "--json"],
    "no such run": lambda f: ["log", NASTY],
    "no such stage": lambda f: ["log", "--stage", NASTY],
    "lineage": lambda f: ["lineage", "traces"],
    "lineage of a run": lambda f: ["lineage", find_run(f, "generate")],
    "no such table to describe": lambda f: ["tables", NASTY],
    "no lake": lambda f: ["tables", "--lake", NASTY],
    "no lake without C0": lambda f: ["doctor", "--lake", "\u202e\u200b\x9bx"],
    "ingest": lambda f: ["ingest", "files", "--lake", "ingested"],
    "ingest in JSON": lambda f: ["ingest", "files", "--lake", "ingested", "--json"],
    "nothing to ingest": lambda f: ["ingest", NASTY, "--lake", "ingested"],
    "unknown columns": lambda f: ["ingest", "keys.jsonl", "--lake", "ingested"],
    "rank": lambda f: ["rank", "--student", NASTY],
    "wrong value": lambda f: ["rank", "--policy", NASTY],
    "wrong option": lambda f: ["rank", f"--{NASTY}"],
    "wrong command": lambda f: [NASTY],
    "where": lambda f: ["rank", "--where", NASTY],
    "plan": lambda f: ["run", "recipe.toml", "--dry-run", "--lake", "planned"],
    "wrong key": lambda f: ["run", "wrong.toml", "--lake", "planned"],
    "wrong setting": lambda f: ["run", "recipe.toml", "--set", f"{NASTY}=1", "--lake", "planned"],
    "no such recipe": lambda f: ["run", NASTY],
    "no such model": lambda f: ["generate", "--teacher", NASTY],
    "no such template": lambda f: ["generate", "--teacher", "qwen7b", "--format", NASTY],
    "export": lambda f: ["export", NASTY],
    "training": lambda f: ["train-teacher", "wrong.toml", "--dry-run"],
}
PLACES: dict[str, tuple[str, list[str]]] = {
    "models": ("settings", ["models"]),
    "doctor": ("settings", ["doctor"]),
    "wrong settings": ("wrong-settings", ["models"]),
    "doctor over wrong settings": ("wrong-settings", ["doctor"]),
}


def find_run(folder: Path, stage: str) -> str:
    return next(run.run_id for run in Lake(folder / "lake").runs() if run.stage == stage)


def run_on_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the program with a terminal as its stdout and stderr; return its exit code and all it wrote."""
    terminal, end = pty.openpty()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RLT_DATA")}
    process = subprocess.Popen(
        [find_program(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=end,
        stderr=end,
        cwd=folder,
        env=env | {"TERM": "xterm-256color", "COLUMNS": "120", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    os.close(end)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # The other end is closed.
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    return process.wait(), shown.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def check(shown: str, *, terminal: bool) -> None:
    assert "\x1b[35;7m" not in shown
    assert "aGk=" not in OWN_CODES.sub("", shown) or "\x1b]52" not in shown
    left = OWN_CODES.sub("", shown).replace("\r", "") if terminal else shown
    found = ACTING.search(left)
    assert found is None, f"{found} in {left!r}"


def is_shown(shown: str) -> bool:
    plain = OWN_CODES.sub("", shown)
    return any(
        show_line(mark) in plain or json.dumps(mark)[1:-1] in plain for mark in ("\x1b", "\u202e", "\x9b")
    )


# Their output need not name any of the text.
SILENT = {"log", "rank", "export"}


@pytest.mark.parametrize("name", CASES)
def test_no_command_lets_text_act(folder: Path, name: str):
    arguments = CASES[name](folder)
    done = QuickProgram(folder)(*arguments)
    check(done.stdout + done.stderr, terminal=False)
    _, shown = run_on_terminal(folder, *arguments)
    check(shown, terminal=True)
    assert "defect of rlt-data" not in shown
    if name not in SILENT:
        assert is_shown(shown), shown


@pytest.mark.parametrize("name", PLACES)
def test_no_setting_lets_text_act(folder: Path, name: str):
    place, arguments = PLACES[name]
    done = Program(folder / place)(*arguments)
    check(done.stdout + done.stderr, terminal=False)
    _, shown = run_on_terminal(folder / place, *arguments)
    check(shown, terminal=True)
    assert is_shown(shown) or name == "doctor", shown


@pytest.mark.parametrize("status", [200, 401, 500])
def test_no_server_lets_text_act(folder: Path, status: int):
    served = Served(status)
    engine = ["--engine", "openai", "--base-url", served.url, "--engine-option", "max_retries=0"]
    arguments = ["generate", "--teacher", "qwen7b", *engine]
    code, shown = run_on_terminal(folder, *arguments)
    served.server.shutdown()
    assert code in (1, 2)
    check(shown, terminal=True)
    assert "defect of rlt-data" not in shown


def test_json_holds_the_text_exactly(folder: Path):
    rows = json.loads(Program(folder).succeed("sql", "select question from questions", "-f", "json"))
    assert rows == [{"question": NASTY}]
    run = json.loads(Program(folder).succeed("log", find_run(folder, "ingest"), "--json"))
    assert run["config"]["file"] == NASTY
