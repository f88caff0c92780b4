"""Every way people write a database's address."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from llm_sql.url import libpq_url, normalize_url

ADDRESSES = {
    "postgres://u:p%40w@h:5433/db?sslmode=require": {
        "user": "u",
        "password": "p@w",
        "host": "h",
        "port": "5433",
        "dbname": "db",
        "sslmode": "require",
    },
    "postgresql://h/db": {"host": "h", "dbname": "db"},
    "postgresql+psycopg2://u@h/db": {"user": "u", "host": "h", "dbname": "db"},
    "postgresql+asyncpg://u@h/db": {"user": "u", "host": "h", "dbname": "db"},
    "postgresql+psycopg://u@/db?host=/run/pg&port=5999": {
        "user": "u",
        "dbname": "db",
        "host": "/run/pg",
        "port": "5999",
    },
    "postgresql:///db?host=/run/pg": {"dbname": "db", "host": "/run/pg"},
    "host=/run/pg port=5999 dbname='a b' user=u": {
        "host": "/run/pg",
        "port": "5999",
        "dbname": "a b",
        "user": "u",
    },
    "dbname=db": {"dbname": "db"},
    "postgresql://a:1,b:2/db?target_session_attrs=primary": {
        "host": "a,b",
        "port": "1,2",
        "dbname": "db",
        "target_session_attrs": "primary",
    },
    "postgresql://[::1]:5432/db": {"host": "::1", "port": "5432", "dbname": "db"},
    "postgresql+psycopg://": {},
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_address_keeps_its_meaning(address):
    url = normalize_url(address)
    assert url.drivername == "postgresql+psycopg"
    assert conninfo_to_dict(libpq_url(address)) == ADDRESSES[address]
    assert libpq_url(url) == libpq_url(address)
    assert normalize_url(url.render_as_string(hide_password=False)) == url


@pytest.mark.parametrize(
    "address", ["", "  ", "mysql://u:secret@h/db", "what is this", "postgresql://h:x/db=secret"]
)
def test_what_is_no_address_is_refused_without_the_password(address):
    with pytest.raises(ValueError, match=r"address|PostgreSQL") as caught:
        normalize_url(address)
    assert "secret" not in str(caught.value)
