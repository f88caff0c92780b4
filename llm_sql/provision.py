"""Alembic over the migrations this package carries: the same revisions with and without a checkout."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

import llm_sql.migrations
from llm_sql.migrations import VERSION_TABLE

__all__ = ["VERSION_TABLE", "downgrade", "head", "offline_script", "upgrade"]


def alembic_config(url: str | None = None) -> Config:
    """A configuration for Alembic's commands; without a URL env.py takes DATABASE_URL or the embedded
    server.
    """
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(Path(llm_sql.migrations.__file__).parent))
    if url is not None:
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to a revision."""
    command.upgrade(alembic_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    command.downgrade(alembic_config(url), revision)


def head() -> str:
    """The newest revision this package knows."""
    revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert revision is not None
    return revision


def offline_script() -> str:
    """The SQL of `alembic upgrade head --sql`."""
    output = io.StringIO()
    config = alembic_config("postgresql+psycopg://")
    config.output_buffer = output
    with contextlib.redirect_stdout(io.StringIO()):
        command.upgrade(config, "head", sql=True)
    return output.getvalue()


if __name__ == "__main__":
    print(offline_script(), end="")
