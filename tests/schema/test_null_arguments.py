"""NULL for an argument gives NULL or an error that names it, whatever the function and the argument."""

from __future__ import annotations

from random import Random

import psycopg
import pytest

from ..support.hostile import Function, functions
from ..support.hostile_values import MODEL
from ..support.small_models import Connection, make_names, train

# What PL/pgSQL and the executor say of a NULL that nobody looked at.
RAW = (
    "FOR loop cannot be null",
    "FOREACH expression must not be null",
    "query string argument of EXECUTE is null",
    "null value cannot be assigned",
    "violates not-null constraint",
    "null array element not allowed",
    "dimension array or low bound array cannot be null",
    "dimension values cannot be null",
    "null values cannot be formatted",
    "RAISE statement option cannot be null",
    "null value not allowed",
    "must not be null",
)
# 22 data, 42 names and rights, 55 state, P0002 no data, 54 limits, 58 files, 0A not supported, 2D a procedure's commit.  # noqa: E501
CLASSES = ("22", "42", "55", "P0002", "54", "58", "0A", "2D")

# Where defaults stand for NULL, and are large; and a name that a message can repeat.
SMALL = {
    "llm_create_model": ["'another'", "'gpt2'", "1", "2", "8", "8", "20", "1", "'{}'"],
    "llm_require_argument": ["'wte.weight'", "true"],
}


def with_null(function: Function, arguments: list[str], place: int) -> str:
    values = [a if i != place else "NULL" for i, a in enumerate(arguments)]
    typed = ", ".join(
        f"({a})::{'int[]' if t == 'anyarray' else t}" for a, t in zip(values, function.types, strict=True)
    )
    if function.kind == "p":
        return f"CALL {function.name}({typed})"
    if function.kind == "a":
        return f"SELECT {function.name}({typed}) FROM generate_series(1, 2)"
    return f"SELECT count(q) FROM {function.name}({typed}) q"


def problem_of(conn: Connection, function: Function, statement: str) -> str | None:
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL statement_timeout = '20s'")
            conn.execute(statement)
    except psycopg.Error as error:
        message = str(error.diag.message_primary)
        if not (error.sqlstate or "").startswith(CLASSES) or any(raw in message for raw in RAW):
            return f"{function.signature}: {error.sqlstate} {message}\n    {statement[:300]}"
        named = any(name and name in message for name in [*function.names, "wte.weight"])
        if error.sqlstate == "22004" and not named:
            return f"{function.signature}: {message} names no argument\n    {statement[:300]}"
    return None


def test_every_argument_of_every_function(fresh_conn: Connection) -> None:
    conn = fresh_conn
    make_names(conn, MODEL, n_positions=8, d_model=8)
    train(conn, MODEL, 2)
    conn.execute("SELECT set_config('hostile.handle', '1', false)")
    known = functions(conn)
    assert len(known) > 300
    problems = []
    for function in known:
        for place in range(len(function.types)):
            sensible = function.sensible(Random(f"{function.signature}/{place}"))
            arguments = list(SMALL.get(function.name, sensible))
            problem = problem_of(conn, function, with_null(function, arguments, place))
            if problem is not None:
                problems.append(problem)
    if problems:
        pytest.fail("\n".join(problems))
