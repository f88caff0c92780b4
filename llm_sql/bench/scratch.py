"""A database of the bench's own: training leaves nothing in the user's, no dead rows either."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from llm_sql import provision


@contextlib.contextmanager
def scratch_database(engine: Engine) -> Iterator[Engine]:
    """A provisioned database on the same server, dropped at the end. Its connections are in autocommit and
    not pooled: each is a backend of its own, with memory of its own.
    """
    name = f"llm_sql_bench_{secrets.token_hex(4)}"
    server = engine.execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    scratch = create_engine(engine.url.set(database=name), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        provision.upgrade(scratch.url.render_as_string(hide_password=False))
        yield scratch
    finally:
        scratch.dispose()
        with server.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
