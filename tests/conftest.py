"""A server, a provisioned template database, and cheap copies of it for every test that asks.

The server is DATABASE_URL's when that is set, else an embedded one in a temporary home that lives as long
as the test session. The template is provisioned once by `alembic upgrade head`; every other database is a
clone of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
import typer.main
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql.janitor import DatabaseJanitor
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

# The commands' tables as a terminal of this width shows them, wherever the tests run; read at import.
os.environ["COLUMNS"] = "120"

from llm_sql.server import EmbeddedServer
from llm_sql.url import libpq_url, normalize_url

from .amount import FIRST_CASES, first_cases, share
from .order import longest_first
from .support.places import new_place
from .support.stock import DATABASE, stocked

# A crash of the operating system is no test's subject; a crash of the server (kill -9) needs no fsync.
# Old WAL is kept to be written over, but less than the embedded server keeps: a test machine has little disk.
TEST_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "log_statement": "none",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    # Weights are shared as soon as they are committed, not when they have stood for a while.
    "pg_llm.shared_age": "0",
}


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # of pytest-xdist, which else undoes our order
    # typer makes its tree of commands for every call; typer.testing will keep the function, too.
    typer.main.get_command = functools.cache(typer.main.get_command)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    longest_first(items)
    kept = first_cases(items) if FIRST_CASES else share(items)
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=list(set(items) - set(kept)))
        items[:] = kept


class Connect(Protocol):
    """Opens a further connection to the test's database; closed after the test."""

    def __call__(self, *, user: str | None = None, autocommit: bool = True) -> psycopg.Connection[Any]: ...


class Kept:
    """A connection kept from one use to the next, and made anew when a test has ended it or its server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None

    def execute(self, statement: sql.Composable) -> None:
        try:
            self._open().execute(statement)
        except psycopg.OperationalError:
            if not self._open().closed:
                raise
            self.close()
            self._open().execute(statement)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(self._url, autocommit=True)
        return self._connection


class Server:
    """The server under test and the databases made on it."""

    def __init__(self, embedded: EmbeddedServer | None, base: str) -> None:
        self.embedded = embedded
        self.seeded_models: list[str] = []
        self._base = base
        self._administration = Kept(self.url())

    def url(self, dbname: str = "postgres", *, user: str | None = None) -> str:
        """A libpq connection string."""
        parameters: dict[str, Any] = {"dbname": dbname} | ({"user": user} if user else {})
        return make_conninfo(self._base, **parameters)

    def sqlalchemy_url(self, dbname: str, *, user: str | None = None) -> str:
        return normalize_url(self.url(dbname, user=user)).render_as_string(hide_password=False)

    def execute(self, statement: sql.Composable) -> None:
        self._administration.execute(statement)

    def create_database(self, template: str | None = None, *, prefix: str = "t") -> str:
        """An empty database, or a clone of `template`; returns its name."""
        name = f"{prefix}_{secrets.token_hex(6)}"
        create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            # Nobody may be connected to it meanwhile.
            end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {}"
            self.execute(sql.SQL(end).format(template))
            create += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template))
        self.execute(create)
        return name

    def drop_database(self, name: str) -> None:
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def kill9(self) -> None:
        """Kill all of the server's processes as a crash would."""
        self._embedded().kill()

    def restart(self) -> None:
        """Start the server again after kill9 (or stop and start a running one)."""
        if self._embedded().running:
            self._embedded().stop()
        self._embedded().start()

    def _embedded(self) -> EmbeddedServer:
        if self.embedded is None:
            pytest.skip("DATABASE_URL's server cannot be killed by a test")
        return self.embedded


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    given = os.environ.get("DATABASE_URL")
    if given:
        yield Server(None, libpq_url(given))
        return
    home = new_place("llm-sql-test-")
    embedded = EmbeddedServer(home / "home", settings=TEST_SETTINGS, installation=stocked(home / "home"))
    try:
        embedded.start()
        yield Server(embedded, embedded.url("postgres"))
    finally:
        with contextlib.suppress(Exception):
            embedded.stop()
        embedded.release()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """The provisioned database that the others are clones of."""
    if server.embedded is not None:
        server.seeded_models = seeded_models(server.url(DATABASE))
        yield DATABASE
        return
    from llm_sql.provision import upgrade

    parts = conninfo_to_dict(server.url())
    name = f"template_{secrets.token_hex(6)}"
    janitor = DatabaseJanitor(
        user=str(parts["user"]),
        host=str(parts.get("host", "localhost")),
        port=str(parts.get("port", 5432)),
        password=str(parts["password"]) if parts.get("password") else None,
        dbname=name,
    )
    with janitor:
        upgrade(server.sqlalchemy_url(name))
        server.seeded_models = seeded_models(server.url(name))
        yield name


def seeded_models(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [model for (model,) in connection.execute("SELECT model FROM public.llm_model_config")]


@pytest.fixture(scope="module")
def module_database(server: Server, template: str) -> Iterator[str]:
    """One database per test module, cleaned of models and data after each test that uses `conn`."""
    name = server.create_database(template)
    yield name
    server.drop_database(name)


@pytest.fixture
def fresh_database(server: Server, template: str) -> Iterator[str]:
    """A database of the test's own."""
    name = server.create_database(template)
    yield name
    server.drop_database(name)


# DELETE costs less than TRUNCATE, which makes new files; a table that has grown is truncated all the same.
# Neither fires triggers here nor looks at references.
CLEAN = """
DO $$
DECLARE
    one text;
    rows_left boolean;
BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
    SET LOCAL session_replication_role = replica;
    FOR one IN
        SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relname LIKE 'llm\\_%'
            AND c.relname NOT IN ('llm_sql_version', 'llm_model_config', 'llm_arch')
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', one) INTO rows_left;
        IF pg_table_size(one::regclass) > 1000000 THEN
            EXECUTE format('TRUNCATE %s CASCADE', one);
        ELSIF rows_left THEN
            EXECUTE format('DELETE FROM %s', one);
        END IF;
    END LOOP;
    SET LOCAL session_replication_role = origin;
    DELETE FROM public.llm_model_config WHERE model NOT IN ({seeded});
END
$$
"""


@pytest.fixture(scope="module")
def clean(server: Server, module_database: str) -> Iterator[Callable[[], None]]:
    """Callable: brings the module's database back to the template's rows, so that no test sees another's
    models.
    """
    connection = Kept(server.url(module_database))
    statement = sql.SQL(CLEAN).format(seeded=sql.SQL(", ").join(map(sql.Literal, server.seeded_models)))
    yield lambda: connection.execute(statement)
    connection.close()


@pytest.fixture
def dbname(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test's database: its own when it also asks for `fresh_conn` or `fresh_database`, else the
    module's.
    """
    if {"fresh_conn", "fresh_database"} & set(request.fixturenames):
        yield request.getfixturevalue("fresh_database")
        return
    clean: Callable[[], None] = request.getfixturevalue("clean")
    yield request.getfixturevalue("module_database")
    clean()


@pytest.fixture
def connect(server: Server, dbname: str) -> Iterator[Connect]:
    """Callable: further connections to the test's database, `user=...` for another role."""
    from llm_sql.types import register_tensor

    with contextlib.ExitStack() as stack:

        def open_connection(*, user: str | None = None, autocommit: bool = True) -> psycopg.Connection[Any]:
            connection = psycopg.connect(server.url(dbname, user=user), autocommit=autocommit)
            stack.callback(connection.close)
            register_tensor(connection)
            return connection

        yield open_connection


@pytest.fixture
def conn(connect: Connect) -> psycopg.Connection[Any]:
    """An autocommit connection to the module's database, tensors as NumPy arrays."""
    return connect()


@pytest.fixture
def no_files_left(connect: Connect) -> Iterator[None]:
    """Shared files of the test's models go with it."""
    yield
    connect().execute("SELECT llm_release(shared => true)")


@pytest.fixture
def fresh_conn(connect: Connect) -> psycopg.Connection[Any]:
    """As `conn`, to a database of the test's own."""
    return connect()


@pytest.fixture
def db_url(server: Server, dbname: str) -> str:
    """SQLAlchemy's URL of the test's database."""
    return server.sqlalchemy_url(dbname)


@pytest.fixture
def engine(db_url: str) -> Iterator[Engine]:
    from llm_sql.types import adapt_engine

    engine = create_engine(db_url)
    adapt_engine(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """A file of the shared test data, which a fresh clone may not have: the test is skipped then."""

    def find(name: str) -> Path:
        for root in (os.environ.get("LLM_SQL_TEST_DATA"), Path(__file__).parents[2] / "shared" / "data"):
            if root and (Path(root) / name).exists():
                return Path(root) / name
        pytest.skip(f"test data {name} is not here")

    return find
