"""llm-sql as its users call it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from llm_sql.cli import main
from llm_sql.cli.demo import CORPUS
from llm_sql.url import libpq_url

from ..support import commands

TEXT = "SELECT unnest(ARRAY['the cat sat', 'the dog ran', 'a cat ran', 'a dog sat', 'the end'])"


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Result]


def variables_for(url: str | None) -> dict[str, str]:
    unwanted = ("DATABASE_URL", "LLM_SQL_DEBUG")
    variables = {name: value for name, value in os.environ.items() if name not in unwanted}
    return variables | {"COLUMNS": "120", "NO_COLOR": "1"} | ({} if url is None else {"DATABASE_URL": url})


def as_process(*arguments: str, url: str | None) -> Result:
    """The console script's main in a process of its own."""
    done = commands.run(*arguments, env=variables_for(url))
    return Result(done.returncode, done.stdout, done.stderr)


def as_new_process(*arguments: str, url: str | None) -> Result:
    """The same, which imports everything itself."""
    command = [sys.executable, "-c", "from llm_sql.cli import main; main()", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=variables_for(url), stdin=subprocess.DEVNULL,
        timeout=300, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The same in this process, which saves the imports."""

    def call_main(*arguments: str, url: str | None) -> Result:
        monkeypatch.setattr(sys, "argv", ["llm-sql", *arguments])
        monkeypatch.delenv("LLM_SQL_DEBUG", raising=False)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("NO_COLOR", "1")
        if url is None:
            monkeypatch.delenv("DATABASE_URL", raising=False)
        else:
            monkeypatch.setenv("DATABASE_URL", url)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Result(int(ended.value.code or 0), printed.out, printed.err)

    return call_main


@pytest.fixture
def run(call: Call, db_url: str) -> Call:
    """`call` with the test's database."""

    def run_here(*arguments: str) -> Result:
        return call(*arguments, url=db_url)

    return run_here


def succeed(result: Result) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def refuse(result: Result, code: int, *parts: str) -> None:
    """The exit code, every part in the message, and never a traceback."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


def test_from_text_to_text(run: Call) -> None:
    assert json.loads(succeed(run("tokenizer", "chars", "toy", "-q", TEXT, "--json"))) == {
        "model": "toy",
        "vocab": 13,
    }
    created = json.loads(
        succeed(run("create", "toy", "--width", "16", "--layers", "1", "--context", "32", "--json"))
    )
    assert created["vocab"] == 13
    assert created["parameters"] == 13 * 16 + 32 * 16 + 12 * 16 * 16 + 13 * 16 + 2 * 16
    rows = json.loads(succeed(run("dataset", "fill", "toy", "-q", TEXT, "--validation", "0.2", "--json")))
    assert {row["split"]: row["rows"] for row in rows} == {"train": 4, "validation": 1}
    assert json.loads(succeed(run("dataset", "show", "toy", "--json"))) == rows
    trained = json.loads(
        succeed(
            run(
                "train",
                "toy",
                "-n",
                "80",
                "-b",
                "4",
                "--lr",
                "3e-3",
                "--warmup",
                "5",
                "--commit-every",
                "30",
                "--json",
            )
        )
    )
    assert trained["steps"] == trained["step"] == 80
    assert trained["last_loss"] < trained["first_loss"]
    evaluated = json.loads(succeed(run("evaluate", "-m", "toy", "--split", "train", "--json")))
    assert evaluated["tokens"] > 0
    assert evaluated["loss"] < trained["first_loss"]
    assert json.loads(succeed(run("evaluate", "--text", "the cat", "--json")))["perplexity"] > 1
    generated = json.loads(succeed(run("generate", "the ", "-n", "10", "-t", "0", "--json")))
    assert generated["model"] == "toy"
    assert len(generated["token_ids"]) <= 10
    # For people: the prompt, then the same text.
    assert succeed(run("generate", "the ", "-n", "10", "-t", "0")) == f"the {generated['text']}\n"
    penalised = run("generate", "the ", "-n", "10", "-t", "0", "--repetition-penalty", "5", "--json")
    assert json.loads(succeed(penalised))["text"] != generated["text"]
    refuse(run("train", "toy", "-n", "3", "--batch-size", "0"), 5, "batch_size must be at least 1, got 0")
    again = succeed(run("train", "toy", "-n", "3", "--commit-every", "0"))
    assert "3 steps" in again


def test_tokens_and_back(run: Call) -> None:
    succeed(run("tokenizer", "chars", "toy", "-q", TEXT))
    ids = json.loads(succeed(run("tokenizer", "encode", "toy", "the cat")))
    assert succeed(run("tokenizer", "decode", "toy", *map(str, ids))) == "the cat\n"


def test_usage_errors_end_with_2(run: Call) -> None:
    refuse(run("no-such-command"), 2, "no-such-command")
    refuse(run("train", "toy", "-n", "0"), 2, "--steps")
    refuse(run("create", "toy", "--width", "30", "--heads", "4"), 2, "--heads 4 does not divide --width 30")
    refuse(run("create", "toy"), 2, "has no tokenizer", "hint:")
    refuse(run("up"), 2, "DATABASE_URL")
    refuse(run("generate", "a", "--url", "mysql://x/y"), 2, "PostgreSQL")


def test_an_unreachable_database_ends_with_3() -> None:
    refuse(as_new_process("generate", "a", url="postgresql://127.0.0.1:1/none"), 3, "refused", "hint:")


def test_a_database_that_does_not_exist_ends_with_3(call: Call, server: Any) -> None:
    refuse(call("evaluate", url=server.sqlalchemy_url("no_such_database")), 3, "no_such_database")


def test_an_unprovisioned_database_ends_with_4_and_provision_helps(call: Call, server: Any) -> None:
    name = server.create_database()
    url = server.sqlalchemy_url(name)
    try:
        refuse(call("evaluate", url=url), 4, "not provisioned", "llm-sql provision")
        checks = json.loads(call("doctor", "--json", url=url).stdout)
        assert not checks["ok"]
        succeed(call("provision", url=url))
        checks = json.loads(succeed(call("doctor", "--json", url=url)))
        assert checks["ok"]
        assert [check for check in checks["checks"] if check["status"] == "failed"] == []
    finally:
        server.drop_database(name)


def test_what_the_database_refuses_ends_with_5(run: Call) -> None:
    refuse(run("train", "nobody"), 5, 'model "nobody" does not exist', "42704", "hint:")
    succeed(run("tokenizer", "chars", "toy", "-q", TEXT))
    refuse(run("tokenizer", "encode", "toy", "Q"), 5, "Q")
    refuse(run("dataset", "fill", "toy", "-q", "SELECT"), 5)


def test_provision_sql_is_a_script(run: Call) -> None:
    script = succeed(run("provision", "--sql"))
    assert "CREATE EXTENSION" in script
    assert script.rstrip().endswith("COMMIT;")


def test_psql_passes_arguments_and_exit_code(db_url: str) -> None:
    query = "SELECT count(*) > 0 FROM llm_model_config"
    assert succeed(as_process("psql", "-Atc", query, url=db_url)) == "t\n"
    assert as_process("psql", "-c", "SELECT 1/0", url=db_url).returncode == 1


def test_url_prints_what_psql_and_psycopg_accept(call: Call, db_url: str) -> None:
    url = succeed(call("url", url=db_url)).strip()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_version_and_help(call: Call) -> None:
    assert succeed(as_new_process("--version", url=None)).startswith("llm-sql ")
    text = succeed(call("--help", url=None))
    for command in ("up", "down", "url", "psql", "demo", "doctor", "create", "train", "generate", "evaluate"):
        assert f" {command} " in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root has a home of its own below /var")
def test_the_home_follows_xdg(tmp_path: Path) -> None:
    code = "from llm_sql.server import default_home; print(default_home())"
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    environment.pop("LLM_SQL_HOME", None)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert found.stdout.strip().startswith(str(tmp_path)) or sys.platform == "darwin"


def test_psql_opens_a_database_without_our_schema(server: Any) -> None:
    name = server.create_database()
    try:
        done = as_process("psql", "-Atc", "SELECT 1", url=server.sqlalchemy_url(name))
        assert succeed(done) == "1\n"
        assert "not provisioned" in done.stderr
        assert "llm-sql provision" in done.stderr
    finally:
        server.drop_database(name)


def test_the_demos_corpus_is_the_catalog_without_us(server: Any, db_url: str) -> None:
    name = server.create_database()
    try:
        found = []
        for url in (db_url, server.sqlalchemy_url(name)):
            with psycopg.connect(libpq_url(url)) as connection:
                found.append(connection.execute(CORPUS).fetchall())
        assert found[0] == found[1]
        assert not [entry for (entry,) in found[0] if "llm" in entry]
    finally:
        server.drop_database(name)
