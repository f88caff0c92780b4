"""SQLAlchemy engines whose connections give and take tensors as NumPy arrays."""

from __future__ import annotations

from typing import Any

from psycopg.types import TypeInfo
from sqlalchemy import Engine, event
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_sql.models.types import ADAPTED

from .psycopg import TYPE_NAME, adapt


def adapt_engine(engine: Engine | AsyncEngine) -> None:
    """Register tensors on every connection `engine` opens from now on; call it right after create_engine().

    Columns of type Tensor work without it too, as text. A database that has no tensors yet is no error: its
    connections keep working through an `alembic upgrade head`. Drivers other than psycopg: ArgumentError.
    """
    sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if sync_engine.dialect.driver not in ("psycopg", "psycopg_async"):
        raise ArgumentError(f"tensors are adapted for psycopg, not for {sync_engine.dialect.driver}")

    @event.listens_for(sync_engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        if sync_engine.dialect.is_async:
            connection.run_async(_adapt_async)
        else:
            adapt(connection, TypeInfo.fetch(connection, TYPE_NAME))

    setattr(sync_engine.dialect, ADAPTED, True)


async def _adapt_async(connection: Any) -> None:
    adapt(connection, await TypeInfo.fetch(connection, TYPE_NAME))
