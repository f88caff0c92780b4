"""docs/reference/errors.md is written by hand: here it is held against what can be raised, and linked."""

from __future__ import annotations

import re

from psycopg import errors as conditions

from llm_sql import errors

from . import DOCS, ROOT, UndocumentedError
from .catalog import Catalog
from .sql_pages import Names

PAGE = DOCS / "reference" / "errors.md"
_IN_C = re.compile(r"\bERRCODE_([A-Z_0-9]+)\b")
_IN_SQL = re.compile(r"ERRCODE = '([a-z_]+)'")
_IN_COMMENTS = re.compile(r"\b([0-9][0-9A-Z]{4}|P0002)(?=: | when | while )")
_ENTRY = re.compile(r"^\*\*([0-9A-Z]{5})\*\*", re.MULTILINE)
_EXIT = re.compile(r"^\| (\d+) \|", re.MULTILINE)


def names(catalog: Catalog) -> Names:
    """Each SQLSTATE's place on the page. Raises for one that the page does not tell of, exit codes too."""
    text = PAGE.read_text(encoding="utf-8")
    told = set(_ENTRY.findall(text))
    silent = sorted(_raised(catalog) - told)
    if silent:
        raise UndocumentedError(f"docs/reference/errors.md says nothing of SQLSTATE {', '.join(silent)}")
    codes = {str(value) for name, value in vars(errors).items() if name.startswith("EXIT_")}
    if codes | {"0"} != set(_EXIT.findall(text)):
        raise UndocumentedError(
            f"docs/reference/errors.md must list the exit codes 0, {', '.join(sorted(codes))}"
        )
    return {state: ("reference/errors", f"sqlstate-{state.lower()}") for state in told}


def _raised(catalog: Catalog) -> set[str]:
    """The SQLSTATEs that our sources raise, and those that comments name."""
    in_c = {
        name.lower()
        for path in (ROOT / "kernels" / "postgres").rglob("*.c")
        if "fuzz" not in path.parts
        for name in _IN_C.findall(path.read_text(encoding="utf-8"))
    }
    in_sql = {
        name
        for path in (ROOT / "models").rglob("*.sql")
        for name in _IN_SQL.findall(path.read_text(encoding="utf-8"))
    }
    in_comments = {state for r in catalog.routines for state in _IN_COMMENTS.findall(r.comment or "")}
    return {_state(name) for name in in_c | in_sql} | in_comments


def _state(name: str) -> str:
    """The code of a condition by its name: psycopg has a class for each."""
    found = getattr(conditions, "".join(word.capitalize() for word in name.split("_")), None)
    state = getattr(found, "sqlstate", None) or _OTHERS.get(name)
    if state is None:
        raise UndocumentedError(f"docs/docsite/errors_page.py does not know the SQLSTATE of {name}")
    return str(state)


# The name of psycopg's base class, too.
_OTHERS = {"internal_error": "XX000"}
