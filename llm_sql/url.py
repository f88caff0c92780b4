"""Database addresses: whatever PostgreSQL's or SQLAlchemy's users write, as a SQLAlchemy URL or for libpq."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVER = "postgresql+psycopg"
_LIBPQ_SCHEMES = ("postgres://", "postgresql://")


def _sslmode(value: str) -> dict[str, str]:
    modes = {"true": "require", "1": "require", "on": "require", "no-verify": "require",
             "false": "disable", "0": "disable", "off": "disable"}  # fmt: skip
    return {"sslmode": modes.get(value.lower(), value)}


def _schema(value: str) -> dict[str, str]:
    # Ours are in public and found there; a query of the user's is his schema's.
    return {} if value == "public" else {"options": "-csearch_path=" + value.replace(" ", "\\ ")}


def _nothing(_: str) -> dict[str, str]:
    return {}


# What other drivers and tools write, and what libpq calls it. Nothing is prepared here: those that ask for
# this, for a pooler, say nothing new.
FOREIGN_OPTIONS: dict[str, Callable[[str], dict[str, str]]] = {
    "ssl": _sslmode,
    "sslmode": _sslmode,
    "schema": _schema,
    "currentSchema": _schema,
    "search_path": _schema,
    "pgbouncer": _nothing,
    "statement_cache_size": _nothing,
    "prepared_statement_cache_size": _nothing,
    "prepareThreshold": _nothing,
    "prepare_threshold": _nothing,
    "connection_limit": _nothing,
    "pool_timeout": _nothing,
    "pool_size": _nothing,
    "database": lambda value: {"dbname": value},
    "username": lambda value: {"user": value},
    "timeout": lambda value: {"connect_timeout": value},
    "loginTimeout": lambda value: {"connect_timeout": value},
    "charset": lambda value: {"client_encoding": value},
    "encoding": lambda value: {"client_encoding": value},
    "ApplicationName": lambda value: {"application_name": value},
}
ADVICE = {
    "sslverify": "sslmode=verify-full",
    "sslaccept": "sslmode=require or sslmode=verify-full",
    "server_settings": "options=-cNAME=VALUE",
    "command_timeout": "options=-cstatement_timeout=MILLISECONDS",
    "socket_timeout": "options=-cstatement_timeout=MILLISECONDS",
    "statement_timeout": "options=-cstatement_timeout=MILLISECONDS",
}


def _libpq_names() -> set[str]:
    return {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}


def _known(options: Mapping[str, str]) -> dict[str, str]:
    """The options under libpq's names. ValueError, which says what to write, for one that it has not."""
    known: dict[str, str] = {}
    names = _libpq_names()
    for name, value in options.items():
        meant = FOREIGN_OPTIONS[name](value) if name in FOREIGN_OPTIONS else {name: value}
        for libpq, translated in meant.items():
            if libpq not in names:
                advice = ADVICE.get(name, "an option of libpq, as sslmode, connect_timeout or options")
                raise ValueError(f"the database address has an unknown option, {name}: write {advice}")
            before = known.get(libpq) if libpq == "options" else None
            known[libpq] = f"{before} {translated}" if before else translated
    return known


def connect_arguments(url: URL) -> dict[str, Any]:
    """What the package's own connections are opened with, beside their address.

    Nothing is prepared: behind a pooler in transaction mode (PgBouncer) the next statement may meet another
    server. Text is UTF-8 here whatever the database's encoding is.
    """
    encoding = {} if "client_encoding" in url.query else {"client_encoding": "UTF8"}
    return {"prepare_threshold": None, **encoding}


def own_engine(address: str | URL, **options: Any) -> Engine:
    """An engine for the package's own use; `options` are create_engine's."""
    url = normalize_url(address)
    engine = create_engine(url, connect_args=connect_arguments(url), **options)
    event.listen(engine, "connect", _dates_as_drivers_read_them)
    return engine


def _dates_as_drivers_read_them(connection: Any, _: object) -> None:
    """psycopg reads times with their zone in ISO's style only."""
    if (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
        return
    with connection.cursor() as cursor:
        cursor.execute("SET datestyle = 'ISO'")
    connection.commit()


def normalize_url(address: str | URL) -> URL:
    """The SQLAlchemy URL, with driver psycopg, of any of

    - a libpq URI (`postgres://`, `postgresql://`, also with several hosts),
    - a libpq connection string (`host=... dbname=...`),
    - a SQLAlchemy URL for PostgreSQL, whichever driver it names.

    What it leaves out (host, user, password) stays left out: libpq takes it from PGHOST, PGUSER and
    ~/.pgpass. Options of other drivers (`ssl=true`, `pgbouncer=true`, `schema=app`, ...) become what libpq
    calls them. Raises ValueError, without the password, when the text is none of these or has an option that
    nobody knows.
    """
    if isinstance(address, URL):
        return _with_driver(address)
    text = address.strip().removeprefix("jdbc:")
    if not text:
        raise ValueError("the database address is empty")
    if text.startswith(_LIBPQ_SCHEMES) or "://" not in text:
        if "://" in text and "?" in text:
            start, _, query = text.partition("?")
            options = _known(dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)))
            text = (
                start + "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
            )
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
    hosts = url.query.get("host", ())
    if not isinstance(hosts, str) and any(":" in host for host in hosts):  # SQLAlchemy's host=a:1&host=b:2
        parts = [host.rpartition(":") if ":" in host else (host, "", "5432") for host in hosts]
        parameters["host"] = ",".join(host for host, _, _ in parts)
        parameters["port"] = ",".join(port for _, _, port in parts)
    return make_conninfo(**{name: value for name, value in parameters.items() if value is not None})


def _with_driver(url: URL) -> URL:
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(f"llm-sql needs PostgreSQL, not {url.get_backend_name()}")
    one = {name: value for name, value in url.query.items() if isinstance(value, str)}
    several = {name: value for name, value in url.query.items() if not isinstance(value, str)}
    return url.set(drivername=DRIVER, query={**_known(one), **several})


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
