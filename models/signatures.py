"""What functions and procedures declared as SQL text take and return, and what their comments say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from .objects import TOKEN, SqlObject, declared_objects

_TYPES = {
    "int": "integer",
    "int[]": "integer[]",
    "bool": "boolean",
    "float8": "double precision",
    "timestamptz": "timestamp with time zone",
}
_MODES = ("IN", "OUT", "INOUT", "VARIADIC")
_RETURNS = re.compile(r"\s*RETURNS\s+(?P<type>(?!TABLE\b)[\w. ]+(?:\[\])?)\s+LANGUAGE", re.IGNORECASE)
_TABLE = re.compile(r"\s*RETURNS\s+TABLE\s*(?=\()", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """A parameter, or a column of the result: its type as PostgreSQL spells it, and its default, in SQL."""

    name: str
    type: str
    default: str | None = None


@dataclass(frozen=True)
class Routine:
    """A function or procedure: what it takes, and either the columns or the type that it returns."""

    kind: str
    name: str
    parameters: tuple[Column, ...]
    columns: tuple[Column, ...]
    returns: str
    comment: str


def _parts(text: str, start: int) -> tuple[list[list[str]], int]:
    """Tokens of each part of the parenthesised list that begins at `start`, and where the list ends."""
    parts: list[list[str]] = [[]]
    depth = 0
    for match in TOKEN.finditer(text, start):
        token = match.group()
        depth += (token in "([") - (token in ")]")
        if depth == 0:
            return [part for part in parts if part], match.end()
        if depth == 1 and token == ",":
            parts.append([])
        elif not (token.isspace() or token.startswith("--") or (depth == 1 and token == "(")):
            parts[-1].append(token)
    raise ValueError(f"no end of the list in {text[:80]!r}")


def _type(tokens: list[str]) -> str:
    joined = " ".join(tokens).replace(" [ ]", "[]").replace(" . ", ".")
    plain = joined.removeprefix("public.").removeprefix("pg_catalog.")
    return _TYPES.get(plain, plain)


def _column(tokens: list[str]) -> tuple[str, Column]:
    """The mode of a parameter, and the parameter."""
    mode = tokens.pop(0).upper() if tokens[0].upper() in _MODES else "IN"
    name, *rest = tokens
    at = next((i for i, token in enumerate(rest) if token == "=" or token.upper() == "DEFAULT"), len(rest))
    default = "".join(rest[at + 1 :]) if at < len(rest) else None
    return mode, Column(name, _type(rest[:at]), default)


def _comment(item: SqlObject) -> str:
    """The texts of all comments for the name, those of overloads in separate paragraphs."""
    return "\n\n".join("".join(_literals(statement)) for statement in item.comments)


def _literals(statement: str) -> Iterator[str]:
    for match in TOKEN.finditer(statement):
        token = match.group()
        if token[0] in "eE" and token[1:2] == "'":
            yield token[2:-1].replace("''", "'").replace("\\n", "\n")
        elif token[0] == "'":
            yield token[1:-1].replace("''", "'").replace("\\n", "\n")


def read(item: SqlObject) -> Routine:
    """The signature of a declared function or procedure."""
    parts, end = _parts(item.create, item.create.index("("))
    parameters = [_column(part) for part in parts]
    columns = tuple(column for mode, column in parameters if mode == "OUT")
    table = _TABLE.match(item.create, end)
    if table:
        columns = tuple(_column(part)[1] for part in _parts(item.create, table.end())[0])
    returns = _RETURNS.match(item.create, end)
    return Routine(
        item.kind,
        item.name,
        tuple(column for mode, column in parameters if mode != "OUT"),
        columns,
        _type(returns["type"].split()) if returns else "void",
        _comment(item),
    )


@cache
def routines() -> dict[str, tuple[Routine, ...]]:
    """Every declared function and procedure by name, each with its overloads."""
    found: dict[str, list[Routine]] = {}
    for item in declared_objects():
        if item.is_routine:
            found.setdefault(item.name, []).append(read(item))
    return {name: tuple(overloads) for name, overloads in found.items()}
