"""What a command imports before it answers, and what all commands have in common."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from llm_sql.cli import app, completion
from llm_sql.cli.options import flags_of
from llm_sql.models.arguments import HYPERPARAMETERS, LISTS

from .test_cli import Call, as_process, call, run, succeed

__all__ = ["call", "run"]

# What takes long to import, and what only drawing, hubs or the embedded server need.
HEAVY = (
    "alembic",
    "huggingface_hub",
    "matplotlib",
    "numpy",
    "psutil",
    "psycopg",
    "rich",
    "sqlalchemy",
    "tiktoken",
)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its path."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        context = typer.Context(command, info_name="llm-sql")
        if not hasattr(command, "list_commands"):
            yield path, command
            return
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))

    yield from walk(typer.main.get_command(app), ())


def imported(*arguments: str, variables: str = "") -> set[str]:
    code = (
        f"import os, sys\nos.environ.update({variables or '{}'})\nfrom llm_sql.cli import main\n"
        f"sys.argv = ['llm-sql', *{arguments!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('imported', *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "arguments",
    [("--version",), ("--help",), ("train", "--help"), ("dataset", "fill", "--help"), ("completion", "bash")],
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported(*arguments) == set()


def test_completion_of_options_imports_nothing_heavy() -> None:
    variables = {"_LLM_SQL_COMPLETE": "complete_bash", "COMP_WORDS": "llm-sql train --lr", "COMP_CWORD": "2"}
    assert imported(variables=repr(variables)) == set()


def test_a_database_command_needs_no_alembic() -> None:
    code = (
        "import sys, llm_sql.cli.database, llm_sql.model, llm_sql.server\n"
        "print([name for name in ('alembic', 'matplotlib', 'tiktoken', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_command_that_prints_has_json() -> None:
    without = {path for path, command in commands() if "--json" not in flags(command)}
    # psql prints what it likes; a script for a shell is its own format.
    assert without == {("psql",), ("completion",)}


def flags(command: Any) -> set[str]:
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def test_first_lines_of_help_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns no sentence in a list of commands is cut off."""
    cut = [
        (path, first)
        for path, command in commands()
        if len(first := (command.help or "").partition("\n\n")[0].partition(". ")[0].strip()) > 66
    ]
    assert cut == []


@pytest.mark.parametrize(
    ("name", "arguments"), [("train", HYPERPARAMETERS), ("finetune", LISTS["finetuning"])]
)
def test_every_hyperparameter_is_an_option(name: str, arguments: Any) -> None:
    command = dict(commands())[(name,)]
    missing = {
        declared
        for declared in (f"--{argument.name.replace('_', '-')}" for argument in arguments)
        if declared not in flags(command)
    }
    assert missing == set()
    denied = {f"--no-{a.name.replace('_', '-')}" for a in arguments if a.type == "boolean"}
    assert denied <= flags(command)
    assert all(f"({argument.default})" not in (command.help or "") for argument in arguments)
    for argument in arguments:
        assert {flag for both in flags_of(argument) for flag in both.split("/")} <= flags(command)


def test_finetune_takes_what_train_takes() -> None:
    names = {argument.name for argument in HYPERPARAMETERS} - {"block_size"}
    assert names == {argument.name for argument in LISTS["finetuning"]}


def test_defaults_read_as_values(call: Call) -> None:
    text = " ".join(succeed(call("train", "--help", url=None)).split())
    assert "[default: 0.1]" in text
    assert "[default: no-keep-grad]" in text
    assert "[default: (" not in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script(call: Call, shell: str) -> None:
    script = succeed(call("completion", shell, url=None))
    assert "_LLM_SQL_COMPLETE" in script
    assert call("completion", "csh", url=None).returncode == 2


def completed(words: str, url: str | None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, value in {
        "_LLM_SQL_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }.items():
        monkeypatch.setenv(name, value)
    done = as_process(url=url)
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_knows_commands_options_and_models(db_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed("llm-sql fine", None, monkeypatch) == ["finetune"]
    assert "--lr-max" in completed("llm-sql train --lr", None, monkeypatch)
    assert completed("llm-sql visualize ta", None, monkeypatch) == ["tape"]
    # A busy machine may take longer than a person who has pressed Tab would wait.
    assert completed("llm-sql train gpt2-m", db_url, monkeypatch) in ([], ["gpt2-medium"])
    nowhere = "postgresql://127.0.0.1:1/none"
    assert completed("llm-sql train gpt2-m", nowhere, monkeypatch) == []
    assert completed("llm-sql train gpt2-m", "no address", monkeypatch) == []


def test_models_come_from_the_database(db_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "SECONDS", 60)
    context = typer.Context(typer.main.get_command(app))
    context.params["url"] = db_url
    assert completion.complete_models(context, "gpt2-m") == ["gpt2-medium"]


def test_errors_leave_stdout_empty(run: Call) -> None:
    for arguments in (("train", "nobody"), ("evaluate", "-m", "nobody"), ("dataset", "show", "nobody")):
        result = run(*arguments, "--json")
        assert result.returncode != 0
        assert result.stdout == ""
        assert "nobody" in result.stderr


def test_json_is_one_value(run: Call, call: Call, db_url: str) -> None:
    for arguments in (("url",), ("checkpoint", "list"), ("dataset", "show", "gpt2-small")):
        json.loads(succeed(run(*arguments, "--json")))
    assert json.loads(succeed(run("url", "--json")))["url"].startswith("postgresql://")
    assert "CREATE EXTENSION" in json.loads(succeed(run("provision", "--sql", "--json")))["sql"]
