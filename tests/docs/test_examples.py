"""README and the pages of docs: fences, links, commands and sizes; their blocks run, page by page.

README's blocks run in `make test`, the playbook's in test_playbook.py, the others with LLM_SQL_EXTENDED=1.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import create_engine

import llm_sql.server
from llm_sql.cli import app
from llm_sql.cli.demo import run_demo

from ..amount import only_extended
from ..support.blocks import blocks, mistakes, run_page
from ..support.pages import DOCS, PAGES, ROOT, name_of

# A line of a block, or a mention: `llm-sql bench generate`.
COMMAND = re.compile(r"^(?:\$ )?(?:\S*/)?llm-sql (.+)$", re.MULTILINE)
MENTION = re.compile(r"`llm-sql ([^`]+)`")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)[^)]*\)")
CODE = re.compile(r"^(```+|~~~+).*?^\1\s*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
# The playbook's blocks are for GPT-2 small: test_playbook.py runs them reduced.
WITH_BLOCKS = [
    page
    for page in PAGES
    if page != DOCS / "playbook.md" and any(block.is_run for block in blocks(page.read_text()))
]


def links(page: Path) -> set[Path]:
    """Where the page's links to files lead; code shows links without being one."""
    return {
        Path(os.path.normpath(page.parent / link)) for link in LINK.findall(CODE.sub("", page.read_text()))
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert [str(path) for path in links(page) if not path.exists()] == []


def test_every_page_and_notebook_can_be_reached_from_the_readme() -> None:
    """By links, as on a web view of the repository."""
    reached: set[Path] = set()
    to_read = [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        reached.add(page)
        if page.suffix == ".md":
            found = links(page)
            found |= {path for folder in found if folder.is_dir() for path in folder.iterdir()}
            to_read += [path for path in found - reached if path.suffix in (".md", ".ipynb")]
    missed = {*PAGES, *(ROOT / "notebooks").glob("*.ipynb")} - reached
    assert sorted(name_of(page) for page in missed) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fences_say_what_they_hold(page: Path) -> None:
    assert mistakes(page.read_text()) == []


def understand(words: list[str], *, mention: bool) -> None:
    """Raises when the command line would not take the words; a mention may leave arguments out."""
    command: Any = typer.main.get_command(app)
    with command.make_context("llm-sql", words) as context:
        while hasattr(command, "resolve_command"):
            name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
            if mention and not words:
                return
            context = command.make_context(name, words, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_the_command_lines(page: Path) -> None:
    """Every `llm-sql ...` that a page shows is understood, options and number of arguments too."""
    text = page.read_text()
    for line in COMMAND.findall(text):
        understand(shlex.split(line, comments=True), mention=False)
    for words in MENTION.findall(text):
        if words != "...":
            understand(shlex.split(words), mention=True)


def test_pictures_and_notebooks_are_small() -> None:
    pictures = [path for path in (DOCS / "images").rglob("*") if path.is_file()]
    notebooks = list((ROOT / "notebooks").glob("*.ipynb"))
    large = [name_of(path) for path in pictures if path.stat().st_size > 200_000]
    large += [name_of(path) for path in notebooks if path.stat().st_size > 1_000_000]
    assert large == []
    for path in notebooks:
        json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "page",
    [
        page if page.name == "README.md" else only_extended(page, id=name_of(page))
        for page in WITH_BLOCKS
    ],
    ids=name_of,
)  # fmt: skip
def test_examples_run(
    page: Path,
    server: Any,
    fresh_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = server.sqlalchemy_url(fresh_database)
    monkeypatch.setattr(llm_sql.server, "ensure", lambda: url.replace("postgresql+psycopg:", "postgresql:"))
    monkeypatch.setenv("DATABASE_URL", url)
    # As in a clone, where what pages write is no harm.
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    engine = create_engine(url)
    run_demo(engine, "catalog-gpt", seconds=1, steps=20, seed=0, quiet=True)
    engine.dispose()
    assert run_page(page.read_text(), server.url(fresh_database), url, tmp_path)
    assert "Traceback" not in capsys.readouterr().err
