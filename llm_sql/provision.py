"""Bringing a database to what this package declares: Alembic's revisions, then what they cannot know.

The revisions are those this package carries, the same with and without a checkout. A database that is at
the newest one may still lack what somebody dropped, or be an earlier build's; `provision` looks, mends what
it can without losing anything, and says what it cannot.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import DBAPIError

import llm_sql.migrations
from llm_sql.errors import NotProvisionedError
from llm_sql.migrations import VERSION_TABLE, build, kernels, mend, noted, operations, state
from llm_sql.migrations.build import script_directory
from llm_sql.url import own_engine

__all__ = [
    "VERSION_TABLE",
    "Report",
    "downgrade",
    "head",
    "offline_script",
    "provision",
    "script_directory",
    "upgrade",
]

OTHER_BUILD_HINT = (
    "export the models (llm-sql export) or save checkpoints, then `alembic downgrade base` "
    "(it drops the tables), llm-sql provision, import"
)


@dataclass
class Report:
    """What `provision` did: the revision, what was mended, what is left (and what to do), what is others'."""

    revision: str
    mended: list[str] = field(default_factory=list)
    left: list[tuple[str, str | None]] = field(default_factory=list)
    foreign: list[tuple[str, str | None]] = field(default_factory=list)


def alembic_config(url: str) -> Config:
    """A configuration for Alembic's commands on that database."""
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(Path(llm_sql.migrations.__file__).parent))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    config.attributes["engine"] = partial(own_engine, poolclass=pool.NullPool)
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to a revision; what somebody dropped or changed there stays as it is."""
    command.upgrade(alembic_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    command.downgrade(alembic_config(url), revision)


def head() -> str:
    """The newest revision this package knows."""
    return build.head()


def provision(url: str, revision: str = "head") -> Report:
    """Bring the database to a revision and, at the newest, make it what is declared.

    Raises NotProvisionedError where tables of these names are somebody else's.
    """
    with _transaction(url) as connection:
        at, tables = noted.revision(connection), state.tables_present(connection)
        if at is None and tables:
            _require_ours(connection)
    if at is None and tables:
        # The version table is gone, the tables are there: what mending leaves is what would be declared.
        command.stamp(alembic_config(url), head())
        report = _mend(url)
        report.mended.insert(0, f"the revision was not noted in {VERSION_TABLE}")
        return report
    if at != head():
        upgrade(url, revision)
        if revision != "head" or at is None:
            return Report(revision if revision != "head" else head())
    return _mend(url)


def _require_ours(connection: Connection) -> None:
    strangers = state.strangers(connection)
    if strangers:
        raise NotProvisionedError(
            f"the database has tables with llm-sql's names that are not llm-sql's: {'; '.join(strangers)}",
            hint="rename them, or use a separate database for llm-sql",
        )


def _mend(url: str) -> Report:
    report = Report(head())
    with _transaction(url) as connection:
        holder = state.lock_upgrades(connection)
        if holder is not None:
            raise NotProvisionedError(f"another upgrade of this database is running: {holder}")
        problem = _mend_extension(connection, report)
        if problem is not None:
            report.left.append(problem)
            return report
        try:
            with connection.begin_nested():
                outcome = mend.mend(connection)
        except DBAPIError as error:
            reason = str(error.orig).splitlines()[0]
            report.left.append(
                (f"this role cannot look at the objects: {reason}", "provision as their owner")
            )
            return report
        report.mended += outcome.mended
        report.left += [(finding.what, finding.hint) for finding in outcome.left]
        report.foreign += [(finding.what, finding.hint) for finding in outcome.foreign]
        ours = build.of_revision(head())
        if noted.build_of(connection) != ours:
            other = kernels.differences(connection)
            report.left += [
                (f"extension pg_llm is another build's: {what}", OTHER_BUILD_HINT) for what in other
            ]
            if not report.left:
                _note(connection, report, build.mark(ours))
    return report


def _mend_extension(connection: Connection, report: Report) -> tuple[str, str | None] | None:
    installed, wanted = state.extension_version(connection), kernels.version()
    if installed == wanted:
        return None
    create = f"CREATE EXTENSION {operations.EXTENSION} SCHEMA public VERSION '{wanted}'"
    update = f"ALTER EXTENSION {operations.EXTENSION} UPDATE TO '{wanted}'"
    try:
        with connection.begin_nested():
            for statement in (operations.require_kernels(wanted), create if installed is None else update):
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    except DBAPIError as error:
        what = "is missing" if installed is None else f"is of version {installed}, not {wanted}"
        reason, *_ = str(error.orig).splitlines()
        hint = getattr(getattr(error.orig, "diag", None), "message_hint", None) or OTHER_BUILD_HINT
        return f"extension pg_llm {what}: {reason}", hint
    report.mended.append(f"extension pg_llm {'was missing' if installed is None else f'was {installed}'}")
    return None


def _note(connection: Connection, report: Report, statements: list[str]) -> None:
    try:
        with connection.begin_nested():
            for statement in statements:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        report.mended.append("the note of which build provisioned the database")
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        report.left.append((f"the build cannot be noted: {reason}", "provision as the tables' owner"))


@contextlib.contextmanager
def _transaction(url: str) -> Iterator[Connection]:
    engine = own_engine(url, poolclass=pool.NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL search_path = public"))
            connection.dialect.default_schema_name = "public"
            yield connection
    finally:
        engine.dispose()


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
