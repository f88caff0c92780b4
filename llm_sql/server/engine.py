"""The engine that Alembic's command line migrates with: alembic.ini names it."""

from __future__ import annotations

from sqlalchemy import Engine, pool

from llm_sql.server.embedded import ensure
from llm_sql.url import own_engine


def engine_for(address: str | None) -> Engine:
    """An engine for the address, in any form; without one for the embedded server, which is started."""
    return own_engine(address or ensure(), poolclass=pool.NullPool)
