"""Functions, procedures, views and triggers: declared as SQL text in functions/*.sql and views/*.sql.

A file holds CREATE statements, each followed by its COMMENT ON. The text itself is the declaration; this
module only cuts it into statements and reads their heads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from . import functions, views

TOKEN = re.compile(
    r"""--[^\n]*
    | /\*.*?\*/
    | \$(?P<tag>[A-Za-z_]\w*)?\$ .*? \$(?(tag)(?P=tag))\$
    | [eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \w+                 # so that the e of an identifier never begins a string
    | .""",
    re.VERBOSE | re.DOTALL,
)
_HEAD = re.compile(
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?P<kind>FUNCTION|PROCEDURE|VIEW|TRIGGER)\s+(?:public\.)?(?P<name>\w+)",
    re.IGNORECASE,
)
_TRIGGER_ON = re.compile(r"\sON\s+(?:public\.)?(\w+)", re.IGNORECASE)
_COMMENT = re.compile(
    r"COMMENT\s+ON\s+(?P<kind>FUNCTION|PROCEDURE|VIEW|TRIGGER)\s+(?:public\.)?(?P<name>\w+)", re.IGNORECASE
)


ROUTINE_KINDS = ("FUNCTION", "PROCEDURE")


@dataclass(frozen=True)
class SqlObject:
    """A function, procedure, view or trigger of schema public.

    `create` is the statement as written; `identity` names the object in a DROP; `comments` are the COMMENT ON
    statements for this name (all overloads').
    """

    kind: str
    name: str
    identity: str
    create: str
    comments: tuple[str, ...] = ()
    on: str = ""

    @property
    def drop(self) -> str:
        return f"DROP {self.kind} {self.identity}"

    @property
    def is_routine(self) -> bool:
        return self.kind in ROUTINE_KINDS


def split_statements(script: str) -> list[str]:
    """The statements of an SQL script, without their semicolons; comments before a statement are dropped."""
    statements = []
    current: list[str] = []
    # Inside of BEGIN ATOMIC ... END, where semicolons end parts of one statement: how many ENDs are to come.
    open_blocks = 0
    last_word = ""
    for match in TOKEN.finditer(script):
        token = match.group()
        if token.isidentifier():
            word = token.upper()
            if (word == "ATOMIC" and last_word == "BEGIN") or (word == "CASE" and open_blocks):
                open_blocks += 1
            elif word == "END" and open_blocks:
                open_blocks -= 1
            last_word = word
        if token == ";" and not open_blocks:
            statements.append("".join(current).strip())
            current = []
        elif current or not (token.isspace() or token.startswith(("--", "/*"))):
            current.append(token)
    if current:
        statements.append("".join(current).strip())
    return [statement for statement in statements if statement]


def _without_defaults(statement: str, start: int) -> str:
    """The parenthesised parameter list that begins at `start`, each parameter cut before its default."""
    depth = 0
    keep = True
    out: list[str] = []
    for match in TOKEN.finditer(statement, start):
        token = match.group()
        if token in "([":
            depth += 1
        elif token in ")]":
            depth -= 1
        if depth == 0:
            return re.sub(r"\s+", " ", "".join(out)).replace(" ,", ",").replace("( ", "(").strip() + ")"
        if depth == 1 and token == ",":
            keep = True
        elif depth == 1 and (token == "=" or token.upper() == "DEFAULT"):
            keep = False
        if keep and not token.startswith(("--", "/*")):
            out.append(token)
    raise ValueError(f"no end of the parameter list in {statement[:80]!r}")


def _parse(statement: str, source: str) -> SqlObject:
    head = _HEAD.match(statement)
    if head is None:
        raise ValueError(
            f"{source}: neither CREATE FUNCTION, PROCEDURE, VIEW, TRIGGER nor COMMENT: {statement[:80]!r}"
        )
    kind, name = head["kind"].upper(), head["name"]
    if kind == "VIEW":
        return SqlObject(kind, name, f"public.{name}", statement)
    if kind == "TRIGGER":
        on = _TRIGGER_ON.search(statement, head.end())
        if on is None:
            raise ValueError(f"{source}: trigger {name} is on nothing")
        return SqlObject(kind, name, f"{name} ON public.{on[1]}", statement, on=on[1])
    return SqlObject(
        kind,
        name,
        f"public.{name}{_without_defaults(statement, statement.index('(', head.end()))}",
        statement,
    )


def parse_script(script: str, source: str = "script") -> list[SqlObject]:
    """The objects an SQL script creates, in its order. Raises ValueError for anything else it does."""
    found: list[SqlObject] = []
    comments: dict[tuple[str, str], list[str]] = {}
    for statement in split_statements(script):
        comment = _COMMENT.match(statement)
        if comment:
            comments.setdefault((comment["kind"].upper(), comment["name"]), []).append(statement)
        else:
            found.append(_parse(statement, source))
    stray = comments.keys() - {(item.kind, item.name) for item in found}
    if stray:
        raise ValueError(f"{source}: comments on what it does not create: {sorted(stray)}")
    return [
        SqlObject(o.kind, o.name, o.identity, o.create, tuple(comments.get((o.kind, o.name), ())), o.on)
        for o in found
    ]


@cache
def declared_objects() -> tuple[SqlObject, ...]:
    """Everything declared as SQL text, in an order in which it can be created: routines, views, triggers."""
    found = [o for name, text in (*functions.sources(), *views.sources()) for o in parse_script(text, name)]
    twice = {o.identity for o in found if sum(p.identity == o.identity for p in found) > 1}
    if twice:
        raise ValueError(f"declared twice: {sorted(twice)}")
    order = {"FUNCTION": 0, "PROCEDURE": 0, "VIEW": 1, "TRIGGER": 2}
    return tuple(sorted(found, key=lambda o: order[o.kind]))
