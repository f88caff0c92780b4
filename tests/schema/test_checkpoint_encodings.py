"""Checkpoints in databases that are not UTF-8: names, notes and tokenizers come back byte for byte."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from ..support.checkpoints import file_of, load, save
from ..support.small_models import make_model
from ..support.tensors import value

MODEL = "mod\u00e8le"
BYTES = (
    "SELECT (SELECT array_agg(convert_to(token, getdatabaseencoding()) || bytes ORDER BY token_id)"
    " FROM llm_bpe_vocab),"
    " (SELECT array_agg(convert_to(left_token || right_token || pair, getdatabaseencoding()) ORDER BY rank)"
    " FROM llm_bpe_merges),"
    " (SELECT array_agg(convert_to(model, getdatabaseencoding())) FROM llm_param)"
)


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded(request: pytest.FixtureRequest, server: Any) -> Iterator[psycopg.Connection[Any]]:
    """A session of a new database in this encoding, which sends UTF-8."""
    from llm_sql.provision import upgrade

    name = f"encoded_{secrets.token_hex(6)}"
    server.execute(
        sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'").format(
            sql.Identifier(name), request.param
        )
    )
    try:
        upgrade(server.sqlalchemy_url(name) + "&client_encoding=utf8")
        with psycopg.connect(server.url(name), autocommit=True, client_encoding="utf8") as conn:
            yield conn
    finally:
        server.drop_database(name)


def test_text_comes_back(encoded: psycopg.Connection[Any]) -> None:
    conn = encoded
    make_model(conn, MODEL)
    ascii_ = value(conn, "SELECT getdatabaseencoding()") == "SQL_ASCII"
    # in SQL_ASCII a token may be bytes that are no UTF-8
    token = r"E'\xe9t\xe9'" if ascii_ else "'\u00e9t\u00e9'"
    conn.execute(
        f"INSERT INTO llm_bpe_vocab (model, token_id, token, bytes, score) VALUES (%s, 0, {token},"
        f" '\\xe9', 1.5)",
        (MODEL,),
    )
    conn.execute(
        f"INSERT INTO llm_bpe_merges (model, rank, left_token, right_token, pair) VALUES (%s, 0,"
        f" {token}, '\"', '\\ \u00fc')",
        (MODEL,),
    )
    before = conn.execute(BYTES).fetchone()
    id_ = save(conn, MODEL, "caf\u00e9")
    conn.execute("DELETE FROM llm_bpe_vocab")
    conn.execute("DELETE FROM llm_bpe_merges")
    conn.execute("SELECT llm_init_model(%s, 9)", (MODEL,))
    assert load(conn, id_, MODEL) == 0
    assert conn.execute(BYTES).fetchone() == before
    assert value(conn, "SELECT note FROM llm_checkpoint WHERE id = %s", (id_,)) == "caf\u00e9"
    assert file_of(conn, id_).name.isascii()
