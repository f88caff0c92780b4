"""The commands that concern the embedded server itself, in processes of their own as users run them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from llm_sql.errors import ServerError
from llm_sql.server import EmbeddedServer

from ..amount import EXTENDED, extended, grows
from ..support import commands
from ..support.places import new_place

COUNT = "SELECT count(*) FROM llm_param"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    root = new_place("llm-sql-cli-")
    yield root / "home"
    with contextlib.suppress(ServerError):
        EmbeddedServer(root / "home").stop()
    shutil.rmtree(root, ignore_errors=True)


def environment(home: Path) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return variables | {"LLM_SQL_HOME": str(home), "COLUMNS": "120", "NO_COLOR": "1"}


def run(home: Path, *arguments: str) -> str:
    done = commands.run(*arguments, env=environment(home))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_starts_provisions_and_stops(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from llm_sql.cli import main; main()", "psql", "-Atc", COUNT],
        env=environment(home), capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert done.stdout == "0\n"
    assert not EmbeddedServer(home).running


def test_up_keeps_and_down_stops(home: Path) -> None:
    url = json.loads(run(home, "up", "--json"))["url"]
    assert EmbeddedServer(home).running
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM llm_model_config").fetchone() != (0,)
    assert run(home, "psql", "-Atc", "SELECT 1") == "1\n"
    assert EmbeddedServer(home).running
    assert run(home, "url").strip() == url
    assert json.loads(run(home, "doctor", "--json"))["ok"]
    assert json.loads(run(home, "down", "--json")) == {"stopped": True}
    assert not EmbeddedServer(home).running
    assert "not running" in run(home, "down")


def test_url_of_a_stopped_server_starts_it_for_good(home: Path) -> None:
    url = run(home, "url").strip()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    run(home, "down")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_command_lets_the_server_go(home: Path, number: signal.Signals) -> None:
    process = commands.Command("demo", "--steps", "100000", env=environment(home))
    for line in process.stdout:
        if line.startswith("before"):
            break
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert "Traceback" not in errors
    assert not EmbeddedServer(home).running


def test_a_home_that_cannot_be_used_is_an_error_of_one_line(home: Path) -> None:
    done = commands.run("evaluate", env=environment(home) | {"LLM_SQL_HOME": "/proc/nowhere"})
    assert done.returncode == 3
    assert "/proc/nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@extended
@grows
def test_demo_learns_and_can_be_repeated(home: Path) -> None:
    steps = "40" if EXTENDED else "20"
    first = json.loads(run(home, "demo", "--steps", steps, "--json"))
    assert first["made"]["heldout_rows"] > 0
    assert first["loss_after"] < first["unigram"] + 0.2 < first["loss_before"]
    assert len(first["samples"]) == 8
    second = json.loads(run(home, "demo", "--steps", steps, "--json"))
    measured = ("loss_before", "loss_after", "samples", "made")
    assert {name: first[name] for name in measured} == {name: second[name] for name in measured}
    overlap = run(
        home, "psql", "-Atc",
        "SELECT count(*) FROM llm_dataset v JOIN llm_dataset t ON t.tokens = v.tokens AND t.model = v.model"
        " WHERE v.split = 'validation' AND t.split = 'train'",
    )  # fmt: skip
    assert overlap == "0\n"
