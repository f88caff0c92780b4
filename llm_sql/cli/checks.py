"""Checks of everything llm-sql needs, each with what was found and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

import llm_sql
from llm_sql import provision
from llm_sql.errors import LLMSQLError
from llm_sql.migrations import build, kernels, mend, noted, state
from llm_sql.refusal import SEE_DOCTOR, as_llm_sql_error
from llm_sql.server import EmbeddedServer, Installation, default_home, ensure, waiting
from llm_sql.server.embedded import notify
from llm_sql.server.layout import packaged_extension
from llm_sql.url import libpq_url, normalize_url, own_engine

Status = Literal["ok", "warning", "failed"]
GIB = 1 << 30
# A model of 124M parameters with its optimizer state, twice (a write-back before vacuum), and its WAL.
WANTED_DISK_BYTES = 5 * GIB
SUPPORTED_MAJORS = range(15, 19)
SHOWN = 6
SETTINGS = ("pg_llm.threads", "pg_llm.isa", "pg_llm.record", "pg_llm.tape_keep", "pg_llm.default_model")


@dataclass(frozen=True)
class Check:
    """One thing looked at: a warning limits something, a failure prevents work."""

    name: str
    status: Status
    found: str
    hint: str | None = None


def examine(url: str | None) -> Iterator[Check]:
    """Every check, in the order in which one thing needs the other. None: the embedded server."""
    yield _python()
    yield _compiler()
    yield _disk()
    if url is None:
        check, address = _embedded()
        yield check
    else:
        check, address = _address(url)
        yield check
    if address is None:
        return
    yield from _connected(address)


def _connected(address: URL) -> Iterator[Check]:
    engine = own_engine(address)
    try:
        waiting.until_accepting(libpq_url(address), notify)
        with engine.connect() as connection:
            yield Check("database", "ok", f"{address.database} is reachable")
            yield from _database(connection)
    except LLMSQLError as error:
        yield Check("database", "failed", error.message, error.hint)
    except SQLAlchemyError as error:
        shown = as_llm_sql_error(error)
        generic = shown.hint is None or shown.hint == SEE_DOCTOR
        hint = "is the server running, and is the URL right?" if generic else shown.hint
        yield Check("database", "failed", shown.message, hint)
    finally:
        engine.dispose()


def _database(connection: Connection) -> Iterator[Check]:
    # Whoever holds a lock on our tables does not keep this waiting.
    connection.execute(text("SET lock_timeout = '30s'"))
    connection.commit()
    checks: tuple[Callable[[Connection], Check | list[Check]], ...] = (
        _server_version,
        _extension,
        _kernels,
        _settings,
        _revision,
        _objects,
        _build,
        _orphans,
    )
    for check in checks:
        try:
            found = check(connection)
        except SQLAlchemyError as error:
            shown = as_llm_sql_error(error)
            found = Check(check.__name__.strip("_").replace("_", " "), "failed", shown.message, shown.hint)
        connection.rollback()
        yield from [found] if isinstance(found, Check) else found


def _python() -> Check:
    found = f"Python {platform.python_version()}, llm-sql {llm_sql.__version__}"
    return Check("python", "ok", found)


def _compiler() -> Check:
    command = os.environ.get("CC", "cc").split()[0]
    path = shutil.which(command)
    if path is None:
        hint = "only needed to build: apt-get install build-essential, or xcode-select --install"
        return Check("compiler", "warning", f"no C compiler ({command})", hint)
    return Check("compiler", "ok", path)


def _disk() -> Check:
    home = default_home()
    place = next(parent for parent in (home, *home.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free for {home}"
    if free < WANTED_DISK_BYTES:
        hint = f"GPT-2 small wants {WANTED_DISK_BYTES // GIB} GiB; LLM_SQL_HOME moves the data elsewhere"
        return Check("disk", "warning", found, hint)
    return Check("disk", "ok", found)


def _embedded() -> tuple[Check, URL | None]:
    try:
        server = EmbeddedServer()
        before = "running" if server.running else "started for this check"
        url = ensure()
        bundled = server.installation.bindir == Installation.bundled().bindir
        stays = "kept until `llm-sql down`" if server.kept else "stops with its last user"
        found = f"PostgreSQL {server.installation.major} in {server.home}, {before}, {stays}"
        if bundled and packaged_extension(server.installation.major) is None:
            hint = "pip install --force-reinstall --no-deps llm-sql (in a checkout: make env)"
            return Check(
                "embedded server", "failed", f"{found}; the extension was not built", hint
            ), normalize_url(url)
        return Check("embedded server", "ok", found), normalize_url(url)
    except LLMSQLError as error:
        return Check("embedded server", "failed", error.message, error.hint), None
    except psycopg.Error as error:
        shown = as_llm_sql_error(error)
        return Check("embedded server", "failed", shown.message, shown.hint), None


def _address(url: str) -> tuple[Check, URL | None]:
    try:
        address = normalize_url(url)
    except ValueError as error:
        return Check("address", "failed", str(error), "postgresql://user:password@host:5432/database"), None
    return Check("address", "ok", address.render_as_string(hide_password=True)), address


def _server_version(connection: Connection) -> Check:
    version = str(connection.scalar(text("SHOW server_version")))
    major = int(connection.scalar(text("SHOW server_version_num")) or 0) // 10000
    if major not in SUPPORTED_MAJORS:
        return Check("server version", "failed", f"PostgreSQL {version}", "llm-sql supports 15 to 18")
    return Check("server version", "ok", f"PostgreSQL {version}")


def _extension(connection: Connection) -> Check:
    row = connection.execute(
        text(
            "SELECT a.default_version, e.extversion FROM pg_available_extensions a"
            " LEFT JOIN pg_extension e ON e.extname = a.name WHERE a.name = 'pg_llm'"
        )
    ).one_or_none()
    if row is None:
        hint = "in a checkout of llm-sql: make install PG_CONFIG=/path/to/the/server's/pg_config"
        return Check("extension", "failed", "the server does not have pg_llm", hint)
    available, installed = row
    if installed is None:
        return Check(
            "extension", "failed", f"pg_llm {available} is available, not installed", "llm-sql provision"
        )
    if installed != available:
        hint = "llm-sql provision updates it"
        return Check("extension", "warning", f"pg_llm {installed} installed, {available} available", hint)
    return Check("extension", "ok", f"pg_llm {installed}")


def _kernels(connection: Connection) -> Check | list[Check]:
    if state.extension_version(connection) is None:
        return []  # said already
    version = connection.scalar(text("SELECT public.pg_llm_numerics_version()"))
    isa = connection.scalar(text("SHOW pg_llm.isa"))
    return Check("kernels", "ok", f"numerics version {version}, instruction set {isa}")


def _settings(connection: Connection) -> Check:
    values = (
        (name, connection.scalar(text("SELECT current_setting(:name, true)"), {"name": name}))
        for name in SETTINGS
    )
    return Check("settings", "ok", ", ".join(f"{name} = {value or 'not set'}" for name, value in values))


def _revision(connection: Connection) -> Check:
    head = provision.head()
    found = noted.revision(connection)
    if found is None and state.tables_present(connection):
        return Check(
            "schema", "failed", f"{provision.VERSION_TABLE} is missing or empty, tables of llm-sql are there",
            "llm-sql provision",
        )  # fmt: skip
    if found is None:
        return Check("schema", "failed", "not provisioned", "llm-sql provision (or alembic upgrade head)")
    if found != head:
        return Check("schema", "failed", f"revision {found}, this llm-sql needs {head}", "llm-sql provision")
    if not connection.scalar(text("SELECT to_regclass('public.llm_param') IS NOT NULL")):
        return Check("schema", "failed", f"revision {found}, but llm_param is gone", "llm-sql provision")
    if not connection.scalar(text("SELECT has_table_privilege('public.llm_param', 'SELECT')")):
        role = connection.scalar(text("SELECT current_user"))
        hint = f"GRANT llm_reader TO {role} lets it generate and evaluate, llm_trainer also train"
        return Check("schema", "warning", f"revision {found}; {role} may not read models", hint)
    models = connection.scalar(text("SELECT count(DISTINCT model) FROM public.llm_param"))
    return Check("schema", "ok", f"revision {found}, {models} model(s) with weights")


def _objects(connection: Connection) -> list[Check]:
    """Everything that is declared, beside what is there."""
    if noted.revision(connection) != provision.head():
        return []
    if state.extension_version(connection) is None:
        tables = len(state.tables_present(connection))
        found = f"without the extension's types nothing can be compared ({tables} tables are there)"
        return [Check("objects", "failed", found, "llm-sql provision")]
    findings = state.examine(connection)
    preload = [finding for finding in findings if finding.what == state.NOT_PRELOADED]
    findings = [finding for finding in findings if finding not in preload]
    ours = [finding.what for finding in findings if not finding.foreign]
    others = [finding for finding in findings if finding.foreign]
    lost = mend.lost(connection)
    if ours:
        checks = [Check("objects", "failed", _some(ours), "llm-sql provision mends what it can")]
    else:
        checks = [Check("objects", "ok", "tables, functions, views, roles and grants are as declared")]
    checks += [
        Check("preload", "warning", finding.what, f"llm-sql provision; {finding.hint}") for finding in preload
    ]
    checks += [Check("weights", "failed", finding.what, finding.hint) for finding in lost]
    if others:
        hint = "; ".join(dict.fromkeys(f.hint for f in others[:SHOWN] if f.hint)) or None
        checks.append(Check("others' objects", "warning", _some([f.what for f in others]), hint))
    return checks


def _some(lines: list[str]) -> str:
    """The first ones, and how many more."""
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more


def _build(connection: Connection) -> list[Check]:
    """Whether this build made the database: the revision alone does not say so before 0.1.0."""
    if noted.revision(connection) != provision.head():
        return []
    ours, theirs = build.of_revision(provision.head()), noted.build_of(connection)
    if theirs == ours:
        return [Check("build", "ok", f"provisioned by this build ({ours.schema})")]
    found = f"provisioned by another build: {_unlike(theirs, ours)}"
    other = kernels.differences(connection) if state.extension_version(connection) else []
    if other:
        found = f"{found}; extension pg_llm is another build's: {_some(other)}"
        return [Check("build", "failed", found, provision.OTHER_BUILD_HINT)]
    hint = "llm-sql provision puts functions, views and grants right and notes the build"
    return [Check("build", "warning", found, hint)]


def _unlike(theirs: build.Build | None, ours: build.Build) -> str:
    """In what the two builds differ: revisions, the extension's scripts, or both."""
    if theirs is None:
        return f"an earlier one, which left no note, this is {ours.schema}"
    if theirs.schema == ours.schema:
        return (
            f"revisions are the same ({ours.schema}), the extension's scripts are not:"
            f" {theirs.kernels}, here {ours.kernels}"
        )
    return f"{theirs.schema}, this is {ours.schema}"


def _orphans(connection: Connection) -> list[Check]:
    """Checkpoint folders of databases that are gone, where the schema can tell."""
    if connection.scalar(text("SELECT to_regprocedure('public.llm_checkpoint_orphans()')")) is None:
        return []
    allowed = "SELECT has_function_privilege('public.llm_checkpoint_orphans()', 'EXECUTE')"
    if not connection.scalar(text(allowed)):
        return []
    try:
        rows = connection.scalars(text("SELECT to_jsonb(o) FROM public.llm_checkpoint_orphans() AS o")).all()
    except SQLAlchemyError:
        return []  # only some roles may look into the server's directories
    if not rows:
        return [Check("checkpoints", "ok", "no folder of a dropped database is left")]
    sizes = [row["bytes"] for row in rows if isinstance(row, dict) and "bytes" in row]
    size = f", {sum(map(int, sizes)) / GIB:.1f} GiB" if sizes else ""
    folders = _some([str(next(iter(row.values()))) if isinstance(row, dict) else str(row) for row in rows])
    return [
        Check(
            "checkpoints", "warning", f"{len(rows)} folder(s) of dropped databases{size}: {folders}",
            "see \\df+ llm_checkpoint_orphans",
        )
    ]  # fmt: skip
