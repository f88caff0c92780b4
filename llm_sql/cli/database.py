"""The database that a command works on: found, waited for, provisioned when it is the embedded server's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from llm_sql.cli.common import program, remark
from llm_sql.errors import NotProvisionedError, UsageError
from llm_sql.migrations import build, noted
from llm_sql.refusal import as_llm_sql_error
from llm_sql.url import libpq_url, normalize_url, own_engine

if TYPE_CHECKING:
    from llm_sql.provision import Report

# Duplicate table, function, object (type, role, trigger).
ALREADY_THERE = ("42P07", "42723", "42710")
# Of the server's notices those that are for people.
_SHOWN = re.compile(r"step |\d+ of \d+ texts are longer|\d+ rows of the query|\d+ pairs for ")


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
    from llm_sql.server import ensure

    return Target(normalize_url(ensure()), embedded=True)


def wait_for(url: URL) -> None:
    """Until a server that is there takes connections: it may be recovering from a crash."""
    from llm_sql.server import waiting
    from llm_sql.server.embedded import notify

    waiting.until_accepting(libpq_url(url), notify)


def open_engine(url: str | None, *, provisioned: bool = True) -> Engine:
    """An engine for a provisioned database; the embedded server's is provisioned on the way.

    Without `provisioned` one that is not, or at another revision, is opened with a note.
    """
    place = target(url)
    wait_for(place.url)
    engine = own_engine(place.url)
    event.listen(engine, "connect", _show_notices)
    try:
        with engine.connect() as connection:
            # Whoever locks the table does not keep us waiting for ever.
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            behind = noted.behind(noted.revision(connection))
            same_build = noted.build_of(connection) == build.of_revision(build.head())
    except OperationalError as error:
        raise as_llm_sql_error(error) from error
    if behind is None:
        if not same_build:
            remark(
                f"note: another build of llm-sql provisioned {place.url.database}:"
                f" run `{program()} provision`",
                "yellow",
            )
        return engine
    found = f"the database {place.url.database} {behind}"
    if not place.embedded and provisioned:
        raise NotProvisionedError(found, hint="llm-sql provision (or alembic upgrade head)")
    if not place.embedded:
        remark(f"note: {found}: llm-sql provision installs the schema", "yellow")
        return engine
    remark("provisioning the embedded database ...")
    engine.dispose()
    show_left(run_upgrade(place.url))
    return engine


@contextlib.contextmanager
def open_session(url: str | None) -> Iterator[Session]:
    """A session of a provisioned database, whose work is committed unless an error ends it."""
    with Session(open_engine(url)) as session, session.begin():
        try:
            yield session
        except KeyboardInterrupt:
            # It may have come while a statement was being sent: nothing more can be said on the connection.
            session.invalidate()
            raise


def _show_notices(connection: Any, _: object) -> None:
    """To stderr: warnings, the steps that --log-every asks for, and what was cut or left out."""

    def show(diagnostic: Any) -> None:
        message = diagnostic.message_primary or ""
        if diagnostic.severity_nonlocalized == "WARNING":
            remark(f"warning: {message}", "yellow")
        elif diagnostic.severity_nonlocalized == "NOTICE" and _SHOWN.match(message):
            remark(message)

    connection.add_notice_handler(show)


def show_left(report: Report) -> None:
    """What provisioning could not put right, on stderr."""
    for what, hint in report.left:
        remark(f"left: {what}", "red")
        if hint:
            remark(f"hint: {hint}")


def run_upgrade(url: URL, revision: str = "head") -> Report:
    from alembic.util import CommandError

    from llm_sql import provision

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
