"""Database addresses: whatever PostgreSQL's or SQLAlchemy's users write, as a SQLAlchemy URL or for libpq."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVER = "postgresql+psycopg"
_LIBPQ_SCHEMES = ("postgres://", "postgresql://")


def normalize_url(address: str | URL) -> URL:
    """The SQLAlchemy URL, with driver psycopg, of any of

    - a libpq URI (`postgres://`, `postgresql://`, also with several hosts),
    - a libpq connection string (`host=... dbname=...`),
    - a SQLAlchemy URL for PostgreSQL, whichever driver it names.

    What it leaves out (host, user, password) stays left out: libpq takes it from PGHOST, PGUSER and
    ~/.pgpass. Raises ValueError, without the password, when the text is none of these.
    """
    if isinstance(address, URL):
        return _with_driver(address)
    text = address.strip()
    if not text:
        raise ValueError("the database address is empty")
    if text.startswith(_LIBPQ_SCHEMES) or "://" not in text:
        try:
            parameters = conninfo_to_dict(text)
        except psycopg.ProgrammingError:
            raise ValueError(
                "cannot read the database address: expected postgresql://user@host:port/dbname, "
                "a SQLAlchemy URL, or host=... dbname=..."
            ) from None
        return _from_parameters({name: str(value) for name, value in parameters.items()})
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("cannot read the database address as a SQLAlchemy URL") from None
    return _with_driver(url)


def libpq_url(address: str | URL) -> str:
    """The same address as a libpq connection string, for psycopg.connect and psql; the password is in it."""
    url = normalize_url(address)
    parameters: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }
    for name, value in url.query.items():
        parameters[name] = value if isinstance(value, str) else ",".join(value)
    return make_conninfo(**{name: value for name, value in parameters.items() if value is not None})


def _with_driver(url: URL) -> URL:
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(f"llm-sql lives in PostgreSQL, not in {url.get_backend_name()}")
    return url.set(drivername=DRIVER)


def _from_parameters(parameters: dict[str, str]) -> URL:
    query = dict(parameters)
    host, port = query.get("host", ""), query.get("port", "")
    if any(not part.isdigit() for part in filter(None, port.split(","))):
        raise ValueError("the port in the database address is not a number")
    # A socket directory and a list of hosts have no place in a URL's authority.
    simple = bool(host) and host[0] not in "/@" and "," not in host and "," not in port
    if simple:
        query.pop("host")
        query.pop("port", None)
    return URL.create(
        DRIVER,
        username=query.pop("user", None),
        password=query.pop("password", None),
        host=host if simple else None,
        port=int(port) if simple and port else None,
        database=query.pop("dbname", None),
        query=query,
    )
