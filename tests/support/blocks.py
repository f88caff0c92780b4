"""The code blocks of a page: which there are, and running them in order (docs/develop/testing.md).

```sql, ```python and ```sh are run. `<!-- not run: REASON -->` on the line above a fence excepts it. Other
languages are shown only; a fence without a language, or with one that is not in SHOWN, is a mistake.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from typer.testing import CliRunner

from llm_sql.cli import app
from llm_sql.models.objects import split_statements
from llm_sql.server import Installation

RUN = ("sql", "python", "sh")
SHOWN = (
    *("text", "console", "mermaid", "ini", "yaml", "toml", "json", "csv", "c", "diff", "dockerfile", "make"),
    "markdown",
)
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
_NOT_RUN = re.compile(r"^ *<!-- not run: (.+) -->$")
_META = re.compile(r"^\\\w", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: `line` is its fence's; `excepted` why it is not run."""

    language: str
    code: str
    line: int
    excepted: str | None

    @property
    def is_run(self) -> bool:
        return self.language in RUN and self.excepted is None


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, directives ({toctree}) included."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        indent, marks, language = fence[1], fence[2], fence[3].strip()
        end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == marks), len(lines))
        code = "\n".join(line.removeprefix(indent) for line in lines[at + 1 : end])
        excepted = _NOT_RUN.match(lines[at - 1]) if at else None
        yield Block(language, code + "\n", at + 1, excepted[1] if excepted else None)
        at = end + 1


def mistakes(text: str) -> list[str]:
    """What is wrong with a page's fences, each with its line."""
    found = []
    fences = {block.line for block in blocks(text)}
    for block in blocks(text):
        if not block.language:
            found.append(f"line {block.line}: a fence without a language (output is ```text)")
        elif block.language not in (*RUN, *SHOWN) and not re.fullmatch(r"\{[\w:-]+\}.*", block.language):
            found.append(f"line {block.line}: unknown language {block.language!r}")
        elif block.excepted is not None and block.language not in RUN:
            found.append(f"line {block.line}: {block.language} is never run, so nothing is excepted")
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("<!-- not run") and (
            not _NOT_RUN.match(line) or number + 1 not in fences
        ):
            found.append(f"line {number}: `<!-- not run: REASON -->` stands alone, directly above a fence")
    return found


def run_page(
    text: str, conninfo: str, url: str, folder: Path, replaced: Mapping[str, str] | None = None
) -> list[str]:
    """Run a page's blocks in order, SQL in one session, Python in one namespace, commands in `folder`.

    `replaced` says what of the page's text the test runs in a smaller size. Returns the languages run.
    """
    done = []
    names: dict[str, Any] = {"__name__": "__main__"}
    with psycopg.connect(conninfo, autocommit=True) as session:
        for block in blocks(text):
            if not block.is_run:
                continue
            code = block.code
            for said, run in (replaced or {}).items():
                code = code.replace(said, run)
            try:
                if block.language == "python":
                    exec(compile(code, f"line {block.line}", "exec"), names)
                elif block.language == "sh":
                    run_commands(code, url)
                elif _META.search(code):
                    run_psql(code, conninfo, folder)
                else:
                    run_sql(session, code)
            except Exception as error:
                raise AssertionError(f"the {block.language} block at line {block.line}: {error}") from error
            done.append(block.language)
    return done


def run_sql(session: psycopg.Connection[Any], script: str) -> None:
    """Each statement on its own, as psql sends them; every query must give rows."""
    for statement in split_statements(script):
        cursor = session.execute(statement.encode())
        assert cursor.description is None or cursor.fetchall(), f"no rows: {statement}"


def run_psql(script: str, conninfo: str, folder: Path) -> None:
    """A block with psql's own commands (backslash): psql runs it, and stops at the first error."""
    program = Installation.bundled().program("psql")
    done = subprocess.run(
        [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", conninfo, "-f", "-"],
        input=script, capture_output=True, text=True, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def run_commands(script: str, url: str) -> None:
    """Lines of `llm-sql ...`, each of which must succeed."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        assert words[0].rpartition("/")[2] == "llm-sql", f"only llm-sql can be run here: {line}"
        done = CliRunner().invoke(app, words[1:], env={"DATABASE_URL": url})
        assert done.exit_code == 0, (line, done.output, done.exception)
