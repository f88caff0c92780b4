"""Ctrl-C: what is said of the work, the exit code, and that it is true."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ..support import commands
from ..support.commands import Command
from .test_cli import Call, call, run, succeed

__all__ = ["call", "run"]


@pytest.fixture
def model(run: Call, tmp_path: Path) -> Path:
    """A model whose steps take some milliseconds, with data; a file of its characters."""
    file = tmp_path / "text"
    file.write_text("the cat sat on the mat. " * 2000)
    succeed(run("tokenizer", "chars", "m", "-i", str(file)))
    succeed(run("create", "m", "--layers", "2", "--width", "64"))
    succeed(run("dataset", "fill", "m", "-i", str(file)))
    return file


def interrupted(
    url: str, *arguments: str, when: Callable[[], bool], number: signal.Signals = signal.SIGINT
) -> tuple[str, str]:
    """stdout and stderr of the command, which gets the signal once `when` holds."""
    variables = {**os.environ, "DATABASE_URL": url, "NO_COLOR": "1", "COLUMNS": "120"}
    process = Command(*arguments, env=variables)
    end = time.monotonic() + 60
    while not when():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted: " in err
    return out, err


@pytest.fixture
def holds(conn: psycopg.Connection[Any]) -> Callable[[str], Callable[[], bool]]:
    def query(condition: str) -> Callable[[], bool]:
        return lambda: bool(conn.execute(f"SELECT {condition}").fetchone()[0])  # type: ignore[index]

    return query


def test_train_keeps_what_was_committed(model: Path, db_url: str, conn: Any, holds: Any) -> None:
    logged = "(SELECT count(*) FROM llm_train_log WHERE model = 'm')"
    out, err = interrupted(
        db_url, "train", "m", "-n", "100000", "--commit-every", "3", when=holds(f"{logged} >= 6")
    )
    assert out == ""
    steps = conn.execute(f"SELECT {logged}").fetchone()[0]
    assert f"{steps} steps of run" in err
    assert f"goes on from step {steps}" in err
    assert conn.execute("SELECT max(step) FROM llm_param WHERE model = 'm'").fetchone() == (steps,)


def test_train_in_one_transaction_keeps_nothing(model: Path, db_url: str, conn: Any, holds: Any) -> None:
    running = "EXISTS (SELECT FROM llm_train_progress WHERE step > 2)"
    _, err = interrupted(
        db_url, "train", "m", "-n", "100000", "--commit-every", "0", "--json", when=holds(running)
    )
    assert "nothing is kept" in err
    assert conn.execute("SELECT max(step) FROM llm_param WHERE model = 'm'").fetchone() == (0,)


def test_finetune_keeps_nothing(model: Path, db_url: str, conn: Any, holds: Any) -> None:
    running = "EXISTS (SELECT FROM llm_train_progress WHERE step > 2)"
    query = "SELECT 'the cat sat' || repeat(' on the mat', n) FROM generate_series(1, 40) n"
    _, err = interrupted(db_url, "finetune", "m", "-q", query, "-n", "100000", when=holds(running))
    assert "there is no copy" in err
    assert conn.execute("SELECT count(*) FROM llm_model_config WHERE model ~ 'finetuned'").fetchone() == (0,)


def active(text: str) -> str:
    return (
        "EXISTS (SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        f" AND state = 'active' AND query ~ '{text}')"
    )


# A session waits for a table that another has locked; an earlier command's may be active for a moment yet.
WAITING = (
    "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
)


def test_dataset_fill_inside_leaves_the_data_set(model: Path, db_url: str, conn: Any, holds: Any) -> None:
    before = conn.execute("SELECT count(*) FROM llm_dataset").fetchone()
    slow = "SELECT 'the cat' FROM pg_sleep(60)"
    _, err = interrupted(db_url, "dataset", "fill", "m", "-q", slow, when=holds(active("llm_fill_dataset")))
    assert "as it was" in err
    assert conn.execute("SELECT count(*) FROM llm_dataset").fetchone() == before


def test_dataset_fill_from_here_can_go_on(model: Path, db_url: str, holds: Any) -> None:
    slow = "SELECT 'the cat' FROM pg_sleep(60)"
    _, err = interrupted(db_url, "dataset", "fill", "m", "-q", slow, "--stream", when=holds(active("FETCH")))
    assert "run the same command again" in err


def test_provision(db_url: str, conn: Any, holds: Any) -> None:
    from llm_sql.migrations.state import UPGRADE_LOCK

    waits = holds("EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_xact_lock%'"
                  " AND datname = current_database() AND pid <> pg_backend_pid())")  # fmt: skip
    conn.execute("SELECT pg_advisory_lock(%s)", (UPGRADE_LOCK,))
    try:
        _, err = interrupted(db_url, "provision", when=waits)
    finally:
        conn.execute("SELECT pg_advisory_unlock(%s)", (UPGRADE_LOCK,))
    assert "run the same command again" in err


def test_a_command_that_only_reads(model: Path, db_url: str, connect: Any, holds: Any) -> None:
    with connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE llm_dataset")
        _, err = interrupted(db_url, "dataset", "show", "m", when=holds(WAITING))
    assert "committed" in err


def test_evaluate_and_generate(model: Path, db_url: str, conn: Any, holds: Any) -> None:
    slow = "SELECT 'the cat' FROM pg_sleep(60)"
    _, err = interrupted(db_url, "evaluate", "-m", "m", "-q", slow, when=holds(active("llm_evaluate")))
    assert "changes nothing" in err
    with psycopg.connect(conn.info.dsn) as other:
        other.execute("LOCK TABLE llm_param")
        _, err = interrupted(db_url, "generate", "the", "-m", "m", when=holds(WAITING))
    assert "after 0 tokens" in err


def test_import_and_export_are_all_or_nothing(
    model: Path, db_url: str, conn: Any, holds: Any, run: Call, tmp_path: Path
) -> None:
    target = tmp_path / "m.safetensors"
    succeed(run("export", str(target), "-m", "m"))
    # What another session holds locked makes both wait, an export behind the stronger lock.
    with psycopg.connect(conn.info.dsn) as other:
        other.execute("LOCK TABLE llm_param")
        _, err = interrupted(db_url, "import", str(target), "-m", "m", when=holds(WAITING))
        assert "nothing was imported" in err
        fresh = tmp_path / "new.safetensors"
        _, err = interrupted(db_url, "export", str(fresh), "-m", "m", when=holds(WAITING))
        assert f"{fresh} was not written" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "text"]


def test_the_demo_says_what_it_leaves(model: Path, db_url: str, holds: Any) -> None:
    logged = (
        "EXISTS (SELECT FROM llm_train_progress WHERE model = 'catalog-gpt' AND step > 2 AND total = 4000)"
    )
    out, err = interrupted(db_url, "demo", "--steps", "4000", when=holds(logged))
    assert "corpus" in out
    assert "no step was committed" in err or "steps of run" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error_of_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        process = commands.run("visualize", "schema", env=os.environ, stdout=full)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "No space left" in process.stderr
