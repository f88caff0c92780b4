"""Work on connections that belong to somebody else: all or nothing, and beside them rather than on them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine

from llm_sql.errors import UsageError

_numbers = itertools.count(1)


def _execute(dbapi_connection: Any, statement: str) -> None:
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()


@contextlib.contextmanager
def atomic(connection: Connection, mode: str = "") -> Iterator[None]:
    """All that is done within is done, or nothing, whatever the connection's isolation level.

    In autocommit this is a transaction of its own (`mode`: REPEATABLE READ, READ ONLY, ...); else a savepoint
    in the caller's, whose other work it neither commits nor undoes. Statements go to the driver: what
    SQLAlchemy believes of the transaction stays true.
    """
    raw = connection.connection.dbapi_connection
    status = getattr(getattr(connection.connection.driver_connection, "info", None), "transaction_status", 0)
    if getattr(raw, "autocommit", False) and status == 0:
        begin, end, undo = f"BEGIN {mode}", "COMMIT", "ROLLBACK"
    else:
        name = f"llm_sql_{next(_numbers)}"
        begin, end = f"SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}"
        undo = f"ROLLBACK TO SAVEPOINT {name}"
    _execute(raw, begin)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # a lost connection has undone it already
            _execute(raw, undo)
        raise
    _execute(raw, end)


@contextlib.contextmanager
def unprepared(connection: Connection) -> Iterator[None]:
    """Within, psycopg prepares no statements: behind a pooler in transaction mode their names collide."""
    driver: Any = connection.connection.driver_connection
    if not hasattr(driver, "prepare_threshold"):
        yield
        return
    before, driver.prepare_threshold = driver.prepare_threshold, None
    try:
        yield
    finally:
        driver.prepare_threshold = before


def opens_connections(engine: Engine) -> bool:
    """Whether the engine opens its connections itself: a creator of the user's may give one and the same."""
    creator = getattr(engine.pool, "_creator", None)
    return str(getattr(creator, "__module__", "")).startswith("sqlalchemy.")


def separate_engine(engine: Engine) -> Engine:
    """An engine for the same database whose connections are not the engine's; dispose of it after use.

    A pool may have one connection only (StaticPool, SingletonThreadPool, a QueuePool of size 1), or none to
    spare: taking it would wait for, or end, the transaction of who holds it. UsageError when the engine's
    connections come from the user (create_engine's `creator`).
    """
    if not opens_connections(engine):
        raise UsageError(
            "a second connection is needed, and this engine makes its connections with a `creator`",
            hint="Use an engine made from a URL: create_engine(url).",
        )
    return Engine(engine.pool.recreate(), engine.dialect, engine.url)
