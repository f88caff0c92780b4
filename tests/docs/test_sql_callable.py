"""Above every C function that SQL can call stands a line that says what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "kernels" / "postgres"
MARK = "PG_FUNCTION_INFO_V1("


def described(lines: list[str], at: int) -> bool:
    """Whether a comment ends right above; the rule of a section describes none of its functions."""
    return lines[at - 1].endswith("*/") and not lines[at - 1].startswith("/* ----")


def macro(lines: list[str], at: int) -> int:
    """Where the macro begins whose body this line belongs to."""
    while lines[at - 1].endswith("\\"):
        at -= 1
    return at


def silent(lines: list[str]) -> Iterator[str]:
    """Functions, and macros that make some, of which neither their head nor their first use is described."""
    for at, line in enumerate(lines):
        if line.startswith(MARK):
            if not described(lines, at):
                yield line
        elif line.lstrip().startswith(MARK):
            head = macro(lines, at)
            name = re.match(r"#define (\w+)\(", lines[head])
            assert name is not None, lines[head]
            first = next((i for i, use in enumerate(lines) if use.startswith(f"{name[1]}(")), head)
            if not (described(lines, head) or described(lines, first)):
                yield lines[head].rstrip("\\ ")


def test_a_line_stands_above_every_function_that_sql_can_call() -> None:
    files = [path for path in SOURCES.rglob("*.[ch]") if MARK in path.read_text(encoding="utf-8")]
    assert len(files) > 20
    found = {
        path.relative_to(SOURCES).as_posix(): list(silent(path.read_text(encoding="utf-8").splitlines()))
        for path in files
    }
    assert {name: marks for name, marks in found.items() if marks} == {}
