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
    # What other drivers and tools write.
    "postgresql://h/db?ssl=true": {"host": "h", "dbname": "db", "sslmode": "require"},
    "postgresql+asyncpg://h/db?ssl=verify-full": {"host": "h", "dbname": "db", "sslmode": "verify-full"},
    "postgres://h/db?sslmode=no-verify&channel_binding=require": {
        "host": "h",
        "dbname": "db",
        "sslmode": "require",
        "channel_binding": "require",
    },
    "postgresql://h/db?schema=public&pgbouncer=true&connection_limit=1": {"host": "h", "dbname": "db"},
    "postgresql://h/db?schema=app": {"host": "h", "dbname": "db", "options": "-csearch_path=app"},
    "postgresql://h/db?options=-cjit%3Doff&search_path=a,b": {
        "host": "h",
        "dbname": "db",
        "options": "-cjit=off -csearch_path=a,b",
    },
    "jdbc:postgresql://h:5433/db?user=u&password=p%26q": {
        "host": "h",
        "port": "5433",
        "dbname": "db",
        "user": "u",
        "password": "p&q",
    },
    "postgresql+psycopg2://u@/db?host=a:1&host=b:2": {
        "user": "u",
        "dbname": "db",
        "host": "a,b",
        "port": "1,2",
    },
}

UNKNOWN = {
    "postgresql://u:secret@h/db?sslaccept=strict": "sslmode=require",
    "postgresql+asyncpg://u:secret@h/db?server_settings=x": "options=-cNAME=VALUE",
    "postgresql://u:secret@h/db?colour=red": "libpq",
}


@pytest.mark.parametrize("address", UNKNOWN)
def test_an_unknown_option_is_named_with_what_to_write(address):
    with pytest.raises(ValueError, match=address.partition("?")[2].partition("=")[0]) as caught:
        normalize_url(address)
    assert UNKNOWN[address] in str(caught.value)
    assert "secret" not in str(caught.value)


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
