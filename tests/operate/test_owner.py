"""A database whose owner is no superuser: a superuser creates the extension, the owner does the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from llm_sql.cli.checks import examine
from llm_sql.provision import provision


@pytest.fixture
def owned(server: Any) -> Iterator[str]:
    """A database's name; its owner is llm_test_owner."""
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute("DROP ROLE IF EXISTS llm_test_owner")
        conn.execute("CREATE ROLE llm_test_owner LOGIN CREATEROLE")
        name = server.create_database()
        conn.execute(f"ALTER DATABASE {name} OWNER TO llm_test_owner")
        yield name
        server.drop_database(name)
        conn.execute("DROP OWNED BY llm_test_owner")
        conn.execute("DROP ROLE llm_test_owner")


def test_an_owner_provisions_and_trains(server: Any, owned: str) -> None:
    with psycopg.connect(server.url(owned), autocommit=True) as conn:
        conn.execute("CREATE EXTENSION pg_llm")
    url = server.sqlalchemy_url(owned, user="llm_test_owner")
    provision(url)
    failed = [check for check in examine(url) if check.status == "failed"]
    assert not failed
    preload = [check for check in examine(url) if "session_preload_libraries" in check.found]
    assert [check.status for check in preload] == ["warning"]
    with psycopg.connect(server.url(owned, user="llm_test_owner"), autocommit=True) as conn:
        conn.execute("SELECT llm_create_model('x', 'gpt2', 1, 1, 8, 8, 8, 1)")
        conn.execute("INSERT INTO llm_dataset (model, tokens, target) VALUES ('x', '{1,2}', '{2,3}')")
        conn.execute("SELECT llm_train('x', 2, log_every => 0)")
