"""Brings a database to what this package declares, where that loses nothing.

It creates what is missing, puts functions, views, triggers, grants, comments, defaults and constraints back
as declared, and leaves alone what somebody added. It never drops a table or a column, nor changes its type.
A column that comes back is empty: what it held is gone, and `mend` says so.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from alembic.operations import MigrateOperation, Operations, ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from llm_sql.models.objects import split_statements

from . import compare, state
from .operations import SQL_DIRECTORY

# Functions and views may need each other: what fails once is tried again after the others.
PASSES = 5
_SCRIPTS = {"preload": "0004/preload.sql", "seeds": "0004/seeds.sql"}


@dataclass
class Outcome:
    """What was mended, what is left with the reason, and what is somebody else's."""

    mended: list[str] = field(default_factory=list)
    left: list[state.Finding] = field(default_factory=list)
    foreign: list[state.Finding] = field(default_factory=list)


def mend(connection: Connection) -> Outcome:
    """In the caller's transaction."""
    state.prepare(connection)
    outcome = Outcome()
    operations = Operations(MigrationContext.configure(connection, opts=dict(state.SETTINGS)))
    before: list[str] = []
    for _ in range(PASSES):
        findings = state.examine(connection)
        outcome.foreign = [finding for finding in findings if finding.foreign]
        open_ = [finding for finding in findings if not finding.foreign]
        outcome.left = []
        connection.execute(text("SET LOCAL check_function_bodies = off"))
        for finding in open_:
            reason = _apply(connection, operations, finding)
            if reason is None:
                outcome.mended.append(finding.what)
            else:
                outcome.left.append(state.Finding(reason, hint=finding.hint))
        connection.execute(text("SET LOCAL check_function_bodies = on"))
        now = [finding.what for finding in open_]
        if not open_:
            break
        if now == before:
            again = [finding for finding in open_ if finding.what not in _whats(outcome.left)]
            outcome.left += [
                state.Finding(f"{f.what}: mending it changes nothing", hint=f.hint) for f in again
            ]
            break
        before = now
    outcome.mended = list(dict.fromkeys(what for what in outcome.mended if what not in _whats(outcome.left)))
    outcome.left += lost(connection)
    return outcome


def _whats(findings: list[state.Finding]) -> set[str]:
    return {finding.what.split(":")[0] for finding in findings}


def _apply(connection: Connection, operations: Operations, finding: state.Finding) -> str | None:
    """Do it, alone in a savepoint; what to say when that is not possible."""
    if finding.operation is None:
        return finding.what
    try:
        with connection.begin_nested():
            _invoke(connection, operations, finding.operation)
    except DBAPIError as error:
        return f"{finding.what}: {str(error.orig).splitlines()[0]}"
    return None


def _invoke(connection: Connection, operations: Operations, operation: MigrateOperation) -> None:
    if isinstance(operation, compare.CatalogChange):
        _run(connection, operation.upgrade)
    elif isinstance(operation, ops.ExecuteSQLOp):
        script = (SQL_DIRECTORY / _SCRIPTS[str(operation.sqltext)]).read_text(encoding="utf-8")
        _run(connection, split_statements(script))
    elif isinstance(operation, ops.AddColumnOp):
        operations.invoke(_addable(connection, operation))
    else:
        operations.invoke(operation)


def _run(connection: Connection, statements: list[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _addable(connection: Connection, operation: ops.AddColumnOp) -> ops.AddColumnOp:
    """Where there are rows a column without a default can only come back as NULL."""
    column: Any = operation.column
    rows = connection.scalar(text(f"SELECT EXISTS (SELECT FROM public.{operation.table_name})"))
    if column.nullable or column.server_default is not None or column.computed is not None or not rows:
        return operation
    column = copy.copy(column)
    column.nullable = True
    return ops.AddColumnOp(operation.table_name, column, schema=operation.schema)


def lost(connection: Connection) -> list[state.Finding]:
    """Weights that went with their column: rows of llm_param without data."""
    nullable = connection.scalar(
        text(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute"
            " WHERE attrelid = to_regclass('public.llm_param') AND attname = 'data'"
            " AND NOT attnotnull AND NOT attisdropped)"
        )
    )
    if not nullable:
        return []
    query = "SELECT model, count(*) FROM public.llm_param WHERE data IS NULL GROUP BY model ORDER BY model"
    return [
        state.Finding(
            f"the weights of model {model} are lost: {n} rows of llm_param have no data",
            hint=f"load a checkpoint (SELECT id, note FROM llm_checkpoint WHERE model = '{model}'), import "
            f"them again, restore a backup, or SELECT llm_drop_model('{model}'); then llm-sql provision",
        )
        for model, n in connection.execute(text(query))
    ]
