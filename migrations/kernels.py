"""The extension's objects beside what its script in this package makes: is it the same build?"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, text

from llm_sql.models.objects import parse_script, split_statements

from . import EXTENSION, catalog
from .scripts import SCRIPTS as SCRIPTS
from .scripts import parts as parts
from .scripts import version as version


class Traits(NamedTuple):
    """What of a C function can change while its name stays."""

    symbol: str
    volatility: str
    strict: bool
    parallel: str


@cache
def _statements() -> tuple[str, ...]:
    return tuple(s for part in parts() for s in split_statements(part.read_text(encoding="utf-8")))


def _declared_functions() -> dict[str, Traits | None]:
    """Identity, as a DROP takes it, to traits; None for what is not in C."""
    found: dict[str, Traits | None] = {}
    for statement in _statements():
        if not re.match(r"CREATE\s+(OR\s+REPLACE\s+)?FUNCTION", statement, re.I):
            continue
        (item,) = parse_script(statement + ";", EXTENSION)
        found[item.identity] = _traits(statement)
    return found


def _traits(statement: str) -> Traits | None:
    symbol = re.search(r"AS\s+'MODULE_PATHNAME'(?:\s*,\s*'(\w+)')?", statement, re.I)
    if symbol is None:
        return None
    words = statement.upper()
    volatility = next((w for w in ("IMMUTABLE", "STABLE") if re.search(rf"\b{w}\b", words)), "VOLATILE")
    parallel = re.search(r"PARALLEL\s+(\w+)", words)
    name = re.match(r"CREATE\s+(?:OR\s+REPLACE\s+)?FUNCTION\s+(?:public\.)?(\w+)", statement, re.I)
    assert name is not None
    return Traits(
        symbol[1] or name[1],
        volatility[0].lower(),
        re.search(r"\bSTRICT\b|RETURNS\s+NULL\s+ON\s+NULL\s+INPUT", words) is not None,
        (parallel[1] if parallel else "UNSAFE")[0].lower(),
    )


_MEMBERS = """
SELECT p.oid::regprocedure::text, p.prosrc, p.provolatile::text, p.proisstrict, p.proparallel::text,
    p.prokind::text
FROM pg_catalog.pg_depend AS d
INNER JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = :name
INNER JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid
WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = 'pg_catalog.pg_extension'::regclass
    AND d.deptype = 'e'
"""
_COUNTS = """
SELECT d.classid::regclass::text, count(*)
FROM pg_catalog.pg_depend AS d
INNER JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = :name
WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
GROUP BY 1
"""


def differences(connection: Connection) -> list[str]:
    """What the installed extension lacks, has differently, or has beyond this package's script."""
    installed = {row[0]: row[1:] for row in connection.execute(text(_MEMBERS), {"name": EXTENSION})}
    declared = _declared_functions()
    spelling = catalog.routine_names(connection, [("FUNCTION", identity) for identity in declared])
    found, known = [], set()
    for identity, traits in declared.items():
        name = spelling.get(identity)
        row = installed.get(name or "")
        if name is None or row is None:
            found.append(f"function {identity} is missing")
            continue
        known.add(name)
        if traits is not None and Traits(row[0], row[1], row[2], row[3]) != traits:
            found.append(f"function {identity} differs")
    spare = [name for name, row in installed.items() if name not in known and row[4] != "a"]
    found += [f"function {name} is not in this build's script" for name in sorted(spare)]
    return found + _counts(connection, sum(row[4] == "a" for row in installed.values()))


def _counts(connection: Connection, aggregates: int) -> list[str]:
    counts = {row[0]: row[1] for row in connection.execute(text(_COUNTS), {"name": EXTENSION})}
    installed = {
        "AGGREGATE": aggregates,
        "OPERATOR": counts.get("pg_operator", 0),
        "CAST": counts.get("pg_cast", 0),
        "OPERATOR CLASS": counts.get("pg_opclass", 0),
    }
    found = []
    for kind, n in installed.items():
        wanted = sum(bool(re.match(rf"CREATE\s+{kind}\s+(?!CLASS|FAMILY)", s, re.I)) for s in _statements())
        if n != wanted:
            found.append(f"it has {n} of kind {kind.lower()}, this build's script makes {wanted}")
    return found
