"""What the commands share: options, the connection, output for people and for programs."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer
from alembic.util import CommandError
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from llm_sql import provision
from llm_sql.errors import LLMSQLError, NotProvisionedError, StatementRefusedError, UsageError
from llm_sql.refusal import as_llm_sql_error
from llm_sql.server import ensure
from llm_sql.url import normalize_url, own_engine

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="DATABASE_URL", help="Database to use instead of the embedded server's."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Name of the model; default: the database's default model."),
]
ModelArgument = Annotated[str, typer.Argument(help="Name of the model.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)


def fail(error: LLMSQLError) -> NoReturn:
    """Print the error and its hint to stderr and end with its exit code."""
    if os.environ.get("LLM_SQL_DEBUG"):
        traceback.print_exception(error)
    sqlstate = f" [{error.sqlstate}]" if isinstance(error, StatementRefusedError) and error.sqlstate else ""
    err.print(f"error: {error.message}{sqlstate}", style="red", markup=False, soft_wrap=True)
    if error.hint:
        err.print(f"hint: {error.hint}", markup=False, soft_wrap=True)
    sys.exit(error.exit_code)


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def print_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """Rows of the same keys as a table; numbers to the right."""
    if not rows:
        out.print("nothing")
        return
    table = Table(title=title, header_style="bold")
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, (int, float)) else "left")
    for row in rows:
        table.add_row(*("" if value is None else format_value(value) for value in row.values()))
    out.print(table)


def format_value(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Target:
    """The database a command works on."""

    url: URL
    embedded: bool


def target(url: str | None) -> Target:
    """The given address, else DATABASE_URL (read by Typer), else the embedded server, which is started.

    DATABASE_URL without a value counts as not set; an empty --url is somebody's mistake.
    """
    if url is not None:
        if not url.strip():
            raise UsageError(
                "--url is empty", hint="Leave it out for the embedded server; is a shell variable unset?"
            )
        try:
            return Target(normalize_url(url), embedded=False)
        except ValueError as error:
            raise UsageError(str(error)) from error
    return Target(normalize_url(ensure()), embedded=True)


def open_engine(url: str | None) -> Engine:
    """An engine for a provisioned database; the embedded server's is provisioned on the way."""
    place = target(url)
    engine = own_engine(place.url)
    event.listen(engine, "connect", _show_warnings)
    try:
        with engine.connect() as connection:
            revision = installed_revision(connection)
    except OperationalError as error:
        raise as_llm_sql_error(error) from error
    if revision == provision.head():
        return engine
    if not place.embedded:
        state = (
            "is not provisioned" if revision is None else f"is at revision {revision}, not {provision.head()}"
        )
        raise NotProvisionedError(
            f"the database {place.url.database} {state}", hint="llm-sql provision (or alembic upgrade head)"
        )
    err.print("provisioning the embedded database ...", style="dim")
    engine.dispose()
    run_upgrade(place.url)
    return engine


def _show_warnings(connection: Any, _: object) -> None:
    """What the server warns of goes to stderr."""

    def show(diagnostic: Any) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            err.print(f"warning: {diagnostic.message_primary}", style="yellow", markup=False)

    connection.add_notice_handler(show)


def run_upgrade(url: URL, revision: str = "head") -> None:
    try:
        provision.upgrade(url.render_as_string(hide_password=False), revision)
    except CommandError as error:
        message, _, hint = str(error).partition("\nHint: ")
        raise NotProvisionedError(message, hint=hint or None) from error


def installed_revision(connection: Connection) -> str | None:
    """The revision the database is at; None when it was never provisioned."""
    if connection.scalar(text(f"SELECT pg_catalog.to_regclass('public.{provision.VERSION_TABLE}')")) is None:
        return None
    revision = connection.scalar(text(f"SELECT version_num FROM public.{provision.VERSION_TABLE}"))
    return None if revision is None else str(revision)
