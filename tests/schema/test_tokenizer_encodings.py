"""Tokenizers in databases of other encodings: right ids for what these can hold, else a clear error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from llm_sql.provision import upgrade

from ..conftest import Server
from ..reference import bpe as reference
from ..support.small_models import make_model
from ..support.tensors import value

Connection = psycopg.Connection[Any]
VOCAB = (reference.GOLDEN / "bpe_vocab.json").read_bytes()
MERGES = (reference.GOLDEN / "bpe_merges.txt").read_bytes()


def database(server: Server, encoding: str) -> Iterator[Connection]:
    name = f"encoding_{encoding.lower()}"
    server.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE_PROVIDER libc LOCALE 'C'").format(
            sql.Identifier(name), sql.Literal(encoding)
        )
    )
    try:
        url = server.sqlalchemy_url(name)
        upgrade(url + ("&" if "?" in url else "?") + "client_encoding=utf8")
        with psycopg.connect(server.url(name), autocommit=True, client_encoding="utf8") as connection:
            yield connection
    finally:
        server.drop_database(name)


@pytest.fixture(scope="module")
def latin1(server: Server) -> Iterator[Connection]:
    yield from database(server, "LATIN1")


@pytest.fixture(scope="module")
def ascii_(server: Server) -> Iterator[Connection]:
    yield from database(server, "SQL_ASCII")


@pytest.mark.parametrize("encoding", ["latin1", "ascii_"])
def test_characters(request: pytest.FixtureRequest, encoding: str) -> None:
    """Ids by code point, one per character, whatever the encoding of the database."""
    conn: Connection = request.getfixturevalue(encoding)
    text = "Größe: naïve café, é"
    ids = {c: i for i, c in enumerate(sorted(set(text)))}
    assert value(conn, "SELECT llm_build_char_tokenizer('c', %s)", (f"SELECT '{text}'",)) == len(ids) + 1
    assert value(conn, "SELECT llm_encode(%s, 'c')", (text,)) == [ids[c] for c in text]
    assert value(conn, "SELECT llm_decode(%s, 'c')", ([ids[c] for c in text],)) == text
    with pytest.raises(errors.CharacterNotInRepertoire, match="does not know the character 'ü'"):
        conn.execute("SELECT llm_encode('Größe für', 'c')")
    make_model(conn, "c", vocab=len(ids) + 1, n_positions=16)
    # No character is cut where a single document is.
    for share in range(1, 10):
        conn.execute("SELECT llm_fill_dataset('c', %s, validation => %s)", (f"SELECT '{text}'", share / 10))
    assert isinstance(value(conn, "SELECT llm_generate('Gr', 5, model => 'c', seed => 1)"), str)


def test_what_the_database_cannot_hold(latin1: Connection, ascii_: Connection) -> None:
    latin1.execute("SELECT llm_build_char_tokenizer('d', $$SELECT 'abc'$$)")
    with pytest.raises(errors.UntranslatableCharacter):
        latin1.execute("SELECT llm_encode('日本', 'd')")
    ascii_.execute("SELECT llm_build_char_tokenizer('d', $$SELECT 'abc'$$)")
    make_model(ascii_, "d", vocab=4, n_positions=16)
    broken = r"SELECT convert_from('\xe9', 'SQL_ASCII')"
    for call in (
        f"SELECT llm_encode(({broken}), 'd')",
        f"SELECT llm_build_char_tokenizer('e', $q${broken}$q$)",
        f"SELECT llm_train_bpe('e', $q${broken}$q$, 300)",
        f"SELECT llm_fill_dataset('d', $q${broken}$q$)",
    ):
        with pytest.raises(errors.CharacterNotInRepertoire, match="0xe9"):
            ascii_.execute(call)


def test_byte_pair_encoding_needs_its_alphabet(latin1: Connection) -> None:
    for call, values in (
        ("SELECT llm_load_bpe('b', %s, %s)", (VOCAB, MERGES)),
        ("SELECT llm_train_bpe('b', $$SELECT 'abab'$$, 300)", ()),
    ):
        with pytest.raises(errors.FeatureNotSupported, match="encoding LATIN1 cannot hold") as raised:
            latin1.execute(call, values)
        assert "UTF8" in str(raised.value.diag.message_hint)
    assert value(latin1, "SELECT count(*) FROM llm_bpe_vocab WHERE model = 'b'") == 0


def test_byte_pair_encoding_where_the_encoding_is_unknown(ascii_: Connection, conn: Connection) -> None:
    """The same ids, and the same tokenizer learnt, as in a database of UTF8."""
    token = {"id": 512, "content": "<ü>", "flags": ["added", "single_word"]}
    added = json.dumps([token], ensure_ascii=False)
    for connection in (ascii_, conn):
        connection.execute("SELECT llm_load_bpe('b', %s, %s, %s)", (VOCAB, MERGES, added))
        connection.execute("SELECT llm_train_bpe('t', $$SELECT 'die Größe der größten naïven Größe'$$, 270)")
    for text in ("The cat's naïve 走了 42!", "<ü> x<ü>", "日本語 <|endoftext|>"):
        for model in ("b", "t"):
            ids = value(conn, "SELECT llm_encode(%s, %s)", (text, model))
            assert value(ascii_, "SELECT llm_encode(%s, %s)", (text, model)) == ids
            assert value(ascii_, "SELECT llm_decode(%s, %s)", (ids, model)) == text
