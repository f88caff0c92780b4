"""A schema of look-alikes: for whatever our functions name, something of that name that fails or misleads."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

# Where PostgreSQL's own operator or function takes any type, an exact match elsewhere wins.
_CONCRETE = ("integer", "bigint", "double precision", "text", "bytea", "boolean")
_POLYMORPHIC = re.compile(r"\b(any\w*)\b")

_BODIES = """
SELECT string_agg(coalesce(p.prosrc, ''), ' ') FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'public'::regnamespace AND l.lanname IN ('plpgsql', 'sql')
"""
_OPERATORS = """
SELECT DISTINCT o.oprname, nullif(o.oprleft, 0)::regtype::text, o.oprright::regtype::text,
    o.oprresult::regtype::text
FROM pg_operator o
WHERE o.oprnamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace) AND o.oprresult <> 0
"""
_FUNCTIONS = """
SELECT DISTINCT p.proname, p.proargtypes::regtype[]::text[], p.prorettype::regtype::text
FROM pg_proc p
WHERE p.pronamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace) AND p.prokind IN ('f', 'a', 'w')
    AND p.proname = ANY (%s)
"""


def _concrete(types: list[str | None]) -> list[list[str | None]]:
    """The types themselves, or, where some are polymorphic, those with each concrete type in their place."""
    types = [t and t.replace('"any"', "any") for t in types]
    if not any(t and _POLYMORPHIC.search(t) for t in types):
        return [types]
    found = []
    for concrete in _CONCRETE:
        array = f"{concrete}[]"
        found.append([t and _POLYMORPHIC.sub(array if "array" in t else concrete, t) for t in types])
    return found


def _make(conn: Connection, statement: str) -> None:
    """Some cannot be made (pseudo-types, one signature twice): those are no danger either."""
    try:
        with conn.transaction():
            conn.execute(statement)
    except psycopg.Error:
        pass


def plant(conn: Connection, schema: str = "evil") -> dict[str, int]:
    """Make the schema; how many operators, functions, types and relations it has."""
    conn.execute("SET search_path = pg_catalog, public")
    conn.execute(f"CREATE SCHEMA {schema}")
    [[bodies]] = conn.execute(_BODIES).fetchall()
    words = sorted(set(re.findall(r"\b[a-z_][a-z0-9_]*\b", bodies)))
    for name, left, right, result in conn.execute(_OPERATORS).fetchall():
        for left_type, right_type, result_type in _concrete([left, right, result]):
            arguments = ", ".join(t for t in (left_type, right_type) if t)
            function = f"{schema}.operator_{abs(hash((name, left_type, right_type)))}"
            _make(
                conn,
                f"CREATE FUNCTION {function}({arguments}) RETURNS {result_type} LANGUAGE plpgsql AS "
                f"$evil$ BEGIN RAISE 'operator {name.replace('%', '%%')} of a stranger ran'; END $evil$; "
                f"CREATE OPERATOR {schema}.{name} ("
                + (f"LEFTARG = {left_type}, " if left_type else "")
                + f"RIGHTARG = {right_type}, FUNCTION = {function})",
            )
    for name, types, result in conn.execute(_FUNCTIONS, (words,)).fetchall():
        for *argument_types, result_type in _concrete([*types, result]):
            arguments = ", ".join(t for t in argument_types if t)
            _make(
                conn,
                f'CREATE FUNCTION {schema}."{name}"({arguments}) RETURNS {result_type} LANGUAGE plpgsql AS '
                f"$evil$ BEGIN RAISE EXCEPTION 'function {name} of a stranger ran'; END $evil$",
            )
    for [name] in conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    ).fetchall():
        _make(conn, f"CREATE TABLE {schema}.{name} (LIKE public.{name})")
    for name in (
        "tensor",
        "text",
        "bytea",
        "regclass",
        "regproc",
        "jsonb",
        "oid",
        "xid8",
        "record",
        "regprocedure",
    ):
        _make(conn, f"CREATE TYPE {schema}.{name} AS ENUM ('stranger')")
    _make(conn, f"""CREATE COLLATION {schema}."C" FROM pg_catalog."POSIX" """)
    conn.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(sql.Identifier(schema)))
    conn.execute("RESET search_path")
    counts = f"""
        SELECT (SELECT count(*) FROM pg_operator WHERE oprnamespace = n.oid),
            (SELECT count(*) FROM pg_proc WHERE pronamespace = n.oid AND proname NOT LIKE 'operator\\_%'),
            (SELECT count(*) FROM pg_type WHERE typnamespace = n.oid AND typtype = 'e'),
            (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relkind = 'r')
        FROM pg_namespace n WHERE nspname = '{schema}'"""
    [row] = conn.execute(counts).fetchall()
    return dict(zip(("operators", "functions", "types", "relations"), row, strict=True))
