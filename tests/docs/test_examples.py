"""The examples of README and docs, run from top to bottom in one database."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from sqlalchemy import create_engine

import llm_sql.server
from llm_sql.cli import app
from llm_sql.cli.demo import run_demo

from ..support.pages import PAGES, name_of

# A block that needs the reader's own files is fenced as `sql file`.
BLOCK = re.compile(r"^```(sql|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A line of a block, or a mention: `llm-sql bench generate`.
COMMAND = re.compile(r"^(?:\$ )?(?:\S*/)?llm-sql (.+)$|`llm-sql ([^`]+)`", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_the_command_lines(page: Path) -> None:
    """Every `llm-sql ...` that a page shows is understood, options and number of arguments too."""
    for found in COMMAND.findall(page.read_text()):
        words = shlex.split("".join(found), comments=True)
        command: Any = typer.main.get_command(app)
        with command.make_context("llm-sql", words) as context:
            while hasattr(command, "resolve_command"):
                name, command, words = command.resolve_command(
                    context, [*context._protected_args, *context.args]
                )
                context = command.make_context(name, words, parent=context)


@pytest.mark.parametrize(
    "page",
    # The playbook's are for GPT-2 small: test_playbook.py runs them reduced.
    [page for page in PAGES if page.name != "playbook.md" and BLOCK.search(page.read_text())],
    ids=name_of,
)
def test_examples_run(
    page: Path,
    server: Any,
    fresh_database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = server.sqlalchemy_url(fresh_database)
    monkeypatch.setattr(llm_sql.server, "ensure", lambda: url.replace("postgresql+psycopg:", "postgresql:"))
    engine = create_engine(url)
    run_demo(engine, "catalog-gpt", seconds=1, steps=20, seed=0, quiet=True)
    engine.dispose()
    for language, code in BLOCK.findall(page.read_text()):
        if language == "python":
            exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
        else:
            run_script(server.url(fresh_database), code)
    assert "Traceback" not in capsys.readouterr().err


def run_script(conninfo: str, script: str) -> None:
    """Each statement on its own, as psql sends them; every query must give rows."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in re.split(r";\n", script.strip() + "\n"):
            if statement.strip():
                cursor = connection.execute(statement.encode())
                assert cursor.description is None or cursor.fetchall(), f"no rows: {statement}"
