"""Runs the migrations: where the database is, which version table is ours, what counts as drift.

The address is the first of: `-x url=...`, sqlalchemy.url of the configuration, DATABASE_URL, the embedded
server's.
"""

from __future__ import annotations

import logging
import os
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, pool, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError

from llm_sql.migrations import VERSION_TABLE, compare
from llm_sql.migrations.operations import require_kernels
from llm_sql.models.base import table_names, unqualified
from llm_sql.url import normalize_url, own_engine

# Two upgrades of one database at a time: the second waits, then finds nothing to do.
UPGRADE_LOCK = int.from_bytes(b"llmsql_v", "big")

config = context.config
log = logging.getLogger("alembic.llm_sql")
if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)


def database_url() -> URL:
    address = (
        context.get_x_argument(as_dictionary=True).get("url")
        or config.get_main_option("sqlalchemy.url")
        or os.environ.get("DATABASE_URL")
    )
    if not address:
        from llm_sql.server import ensure

        address = ensure()
    try:
        return normalize_url(address)
    except ValueError as error:
        raise CommandError(str(error)) from None


def include_name(name: str | None, kind: str, _: Any) -> bool:
    """Only relations of ours are compared: an application's tables may stand beside them."""
    return kind != "table" or name in TABLES


TABLES = set(table_names())

SETTINGS: dict[str, Any] = {
    "target_metadata": unqualified(),
    "version_table": VERSION_TABLE,
    "include_name": include_name,
    "compare_type": True,
    "compare_server_default": True,
    "autogenerate_plugins": [
        "alembic.autogenerate.*",
        "alembic.ext.checkconstraint_byname",
        compare.__name__,
    ],
}


def run_offline() -> None:
    context.configure(
        dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"}, **SETTINGS
    )
    with context.begin_transaction():
        context.execute("SET LOCAL search_path = public")
        context.run_migrations()
        if context.get_revision_argument() is None:
            context.execute(f"DROP TABLE IF EXISTS {VERSION_TABLE}")


def notice(diagnostic: Any) -> None:
    log.log(
        logging.WARNING if diagnostic.severity_nonlocalized == "WARNING" else logging.INFO,
        "%s",
        diagnostic.message_primary,
    )


def check_kernels(connection: Connection) -> None:
    """Before the first DDL: can this server have the extension at all?"""
    try:
        connection.exec_driver_sql(require_kernels(), execution_options={"no_parameters": True})
    except DBAPIError as error:
        diagnostic: Any = getattr(error.orig, "diag", None)
        hint = getattr(diagnostic, "message_hint", None)
        if hint is None:
            raise
        raise CommandError(f"{diagnostic.message_primary}\nHint: {hint}") from error


def connect(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except OperationalError as error:
        # At the command line one sentence instead of a traceback; programs get the exception itself.
        if config.cmd_opts is None:
            raise
        raise CommandError(f"cannot reach the database: {error.orig}") from error


def run_online() -> None:
    engine = own_engine(database_url(), poolclass=pool.NullPool)
    with connect(engine) as connection:
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(notice)
        # Everything of ours is in public, whatever the user's search_path says.
        connection.execute(text("SET search_path = public"))
        connection.dialect.default_schema_name = "public"
        connection.commit()
        context.configure(connection=connection, **SETTINGS)
        changes = not context.get_context().opts.get("dont_mutate", False)
        with context.begin_transaction():
            if changes:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
                if not context.get_context().get_current_heads():
                    check_kernels(connection)
            context.run_migrations()
            if changes and not context.get_context().get_current_heads():
                connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
    engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
