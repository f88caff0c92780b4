"""Runs the migrations: where the database is, which version table is ours, what counts as drift.

The address is the first of: `-x url=...`, sqlalchemy.url of the configuration, DATABASE_URL. What makes an
engine of it, or finds a server when there is none, is a function that the configuration names (`engine` in
alembic.ini) or brings (`engine` in its attributes).
"""

from __future__ import annotations

import logging
import os
import pkgutil
from collections.abc import Callable
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from llm_sql.migrations import VERSION_TABLE, build, compare, noted, revision, state
from llm_sql.migrations.operations import require_kernels

config = context.config
log = logging.getLogger("alembic.llm_sql")
if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)


def find_engine() -> Engine:
    address = (
        context.get_x_argument(as_dictionary=True).get("url")
        or config.get_main_option("sqlalchemy.url")
        or os.environ.get("DATABASE_URL")
    )
    make: Callable[[str | None], Engine] = config.attributes.get("engine") or pkgutil.resolve_name(
        config.get_main_option("engine", "sqlalchemy:create_engine")
    )
    try:
        return make(address or None)
    except ValueError as error:
        raise CommandError(str(error)) from None


SETTINGS = {
    **state.SETTINGS,
    "autogenerate_plugins": [*state.TABLE_PLUGINS, compare.__name__],
    "process_revision_directives": revision.into_files,
    "render_item": revision.render_item,
}


def run_offline() -> None:
    context.configure(
        dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"}, **SETTINGS
    )
    with context.begin_transaction():
        context.execute("SET LOCAL search_path = public")
        context.run_migrations()
        target = context.get_revision_argument()
        if target is None:
            context.execute(f"DROP TABLE IF EXISTS {VERSION_TABLE}")
        else:
            for statement in build.mark(build.of_revision(str(target))):
                context.execute(statement)


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


def lock_upgrades(connection: Connection) -> None:
    """Two upgrades of one database at a time: the second waits, then finds nothing to do."""
    holder = state.lock_upgrades(connection)
    if holder is not None:
        raise CommandError(
            f"another upgrade of this database is running: {holder}\nHint: look at it in pg_stat_activity"
        )


def connect(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except OperationalError as error:
        # At the command line one sentence instead of a traceback; programs get the exception itself.
        if config.cmd_opts is None:
            raise
        raise CommandError(f"cannot reach the database: {error.orig}") from error


def run_online() -> None:
    engine = find_engine()
    with connect(engine) as connection:
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(notice)
        # Everything of ours is in public, whatever the user's search_path says.
        connection.execute(text("SET search_path = public"))
        connection.dialect.default_schema_name = "public"
        connection.commit()
        steps: list[Any] = []
        context.configure(
            connection=connection, on_version_apply=lambda *, step, **_: steps.append(step), **SETTINGS
        )
        changes = not context.get_context().opts.get("dont_mutate", False)
        with context.begin_transaction():
            before = None
            if changes:
                lock_upgrades(connection)
                before = context.get_context().get_current_revision()
                if before is None:
                    check_kernels(connection)
            earlier = noted.build_of(connection)
            context.run_migrations()
            after = context.get_context().get_current_revision()
            if changes and after is None:
                connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
            elif steps and not any(step.is_stamp for step in steps):
                note_build(connection, before, str(after), earlier)
    engine.dispose()


def note_build(connection: Connection, before: str | None, after: str, earlier: build.Build | None) -> None:
    """What an earlier build made stays noted as such, until provision has looked at it."""
    ours = build.of_revision(after)
    if before is not None and (earlier is None or earlier != build.of_revision(earlier.revision)):
        ours = ours._replace(schema=earlier.schema if earlier else "unknown")
        ours = ours._replace(kernels=earlier.kernels if earlier else "unknown")
    for statement in build.mark(ours):
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def run_online_or_explain() -> None:
    try:
        run_online()
    except DBAPIError as error:
        # At the command line a sentence instead of a traceback; programs get the exception itself.
        if config.cmd_opts is None:
            raise
        diagnostic: Any = getattr(error.orig, "diag", None)
        hint = getattr(diagnostic, "message_hint", None) or "llm-sql doctor tells what is there"
        raise CommandError(f"{str(error.orig).strip()}\nHint: {hint}") from error


if context.is_offline_mode():
    run_offline()
else:
    run_online_or_explain()
