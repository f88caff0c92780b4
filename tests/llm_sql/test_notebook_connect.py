"""llm_sql.notebook.connect: whose schema it installs, and whose it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from llm_sql import notebook, provision
from llm_sql.errors import DatabaseUnreachableError, NotProvisionedError, UsageError
from llm_sql.migrations import build

from ..conftest import Server


@pytest.fixture
def empty(server: Server) -> Iterator[str]:
    name = server.create_database()
    yield server.sqlalchemy_url(name)
    server.drop_database(name)


def relations(url: str) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.scalar(
            text("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        )
    engine.dispose()
    return int(found or 0)


def revision(engine: Engine) -> str:
    with engine.connect() as connection:
        found = str(connection.scalar(text("SELECT version_num FROM llm_sql_version")))
    engine.dispose()
    return found


@pytest.mark.parametrize("given", ["DATABASE_URL", "address"])
def test_somebodys_database_is_left_alone(empty: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if given == "DATABASE_URL":
        monkeypatch.setenv("DATABASE_URL", empty)
    with pytest.raises(NotProvisionedError, match="not provisioned") as caught:
        notebook.connect(empty if given == "address" else None)
    assert "provision=True" in str(caught.value.hint)
    assert relations(empty) == 0


def test_an_older_schema_is_left_alone(empty: str) -> None:
    provision.upgrade(empty, "0002")
    with pytest.raises(NotProvisionedError, match="0002"):
        notebook.connect(empty)
    engine = create_engine(empty)
    assert revision(engine) == "0002"


def test_provision_brings_it_to_the_newest_revision(empty: str) -> None:
    provision.upgrade(empty, "0002")
    assert revision(notebook.connect(empty, provision=True)) == build.head()
    assert revision(notebook.connect(empty)) == build.head()


def test_the_embedded_database_is_provisioned(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setattr(notebook, "ensure", lambda: empty)
    assert revision(notebook.connect()) == build.head()


def test_an_engine_is_not_provisioned(empty: str) -> None:
    engine = create_engine(empty)
    assert notebook.connect(engine) is engine
    with pytest.raises(UsageError):
        notebook.connect(engine, provision=True)
    assert relations(empty) == 0


@pytest.mark.parametrize("address", ["", "mysql://localhost/db", "postgresql://localhost:x/db"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError):
        notebook.connect(address)


def test_a_server_that_is_down() -> None:
    with pytest.raises(DatabaseUnreachableError):
        notebook.connect("postgresql://localhost:1/db")
