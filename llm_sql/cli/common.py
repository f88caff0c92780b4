"""What the commands share: options, the connection, output for people and for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from alembic.util import CommandError
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError

from llm_sql import provision
from llm_sql.errors import LLMSQLError, LLMSQLWarning, NotProvisionedError, StatementRefusedError, UsageError
from llm_sql.migrations import build, state
from llm_sql.refusal import as_llm_sql_error
from llm_sql.server import ensure, waiting
from llm_sql.server.embedded import notify
from llm_sql.url import libpq_url, normalize_url, own_engine

# Duplicate table, function, object (type, role, trigger).
ALREADY_THERE = ("42P07", "42723", "42710")

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="DATABASE_URL", help="URL of the database; default: the embedded server's."),
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


def show_notices() -> None:
    """Show this package's warnings as sentences on stderr."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if issubclass(category, LLMSQLWarning):
            err.print(f"note: {message}", style="yellow", markup=False, soft_wrap=True)
        else:
            others(message, category, *where, **options)

    warnings.showwarning = show
    warnings.simplefilter("always", LLMSQLWarning)


def program() -> str:
    """How the user starts this program: by its name where the shell finds it, else by its path."""
    own = Path(sys.executable).with_name("llm-sql")
    found = shutil.which("llm-sql")
    if not own.exists() or (found is not None and Path(found).resolve() == own.resolve()):
        return "llm-sql"
    try:
        return str(own.relative_to(Path.cwd()))
    except ValueError:
        return str(own)


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
                "--url is empty", hint="Omit it to use the embedded server. Is a shell variable unset?"
            )
        try:
            return Target(normalize_url(url), embedded=False)
        except ValueError as error:
            raise UsageError(str(error)) from error
    return Target(normalize_url(ensure()), embedded=True)


def wait_for(url: URL) -> None:
    """Until a server that is there takes connections: it may be recovering from a crash."""
    waiting.until_accepting(libpq_url(url), notify)


def open_engine(url: str | None) -> Engine:
    """An engine for a provisioned database; the embedded server's is provisioned on the way."""
    place = target(url)
    wait_for(place.url)
    engine = own_engine(place.url)
    event.listen(engine, "connect", _show_warnings)
    try:
        with engine.connect() as connection:
            revision = installed_revision(connection)
            same_build = state.build_of(connection) == build.of_revision(provision.head())
    except OperationalError as error:
        raise as_llm_sql_error(error) from error
    if revision == provision.head():
        if not same_build:
            notify(f"another build of llm-sql provisioned {place.url.database}: run `{program()} provision`")
        return engine
    if not place.embedded:
        found = (
            "is not provisioned" if revision is None else f"is at revision {revision}, not {provision.head()}"
        )
        raise NotProvisionedError(
            f"the database {place.url.database} {found}", hint="llm-sql provision (or alembic upgrade head)"
        )
    err.print("provisioning the embedded database ...", style="dim")
    engine.dispose()
    show_left(run_upgrade(place.url))
    return engine


def _show_warnings(connection: Any, _: object) -> None:
    """What the server warns of goes to stderr."""

    def show(diagnostic: Any) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            err.print(f"warning: {diagnostic.message_primary}", style="yellow", markup=False)

    connection.add_notice_handler(show)


def show_left(report: provision.Report) -> None:
    """What provisioning could not put right, on stderr."""
    for what, hint in report.left:
        err.print(f"left: {what}", style="red", markup=False, soft_wrap=True)
        if hint:
            err.print(f"hint: {hint}", markup=False, soft_wrap=True)


def run_upgrade(url: URL, revision: str = "head") -> provision.Report:
    try:
        return provision.provision(url.render_as_string(hide_password=False), revision)
    except CommandError as error:
        message, _, hint = str(error).partition("\nHint: ")
        raise NotProvisionedError(message, hint=hint or None) from error
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in ALREADY_THERE:
            raise
        shown = as_llm_sql_error(error)
        raise NotProvisionedError(
            f"the schema cannot be created: {shown.message}",
            hint="an object of that name already exists: rename or drop it, or use a separate database for "
            "llm-sql",
        ) from error


def installed_revision(connection: Connection) -> str | None:
    """The revision the database is at; None when it was never provisioned."""
    # Whoever locks the table does not keep us waiting for ever.
    connection.execute(text("SET LOCAL lock_timeout = '60s'"))
    return state.revision(connection)
