"""Character tokenizers, and that each model has its own."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from ..support.small_models import make_model, names_query
from ..support.tensors import RELAXED, value

Connection = psycopg.Connection[Any]


def build(conn: Connection, *documents: str, model: str = "names") -> int:
    literals = ", ".join("'" + document.replace("'", "''") + "'" for document in documents)
    vocab = value(
        conn, "SELECT llm_build_char_tokenizer(%s, %s)", (model, f"SELECT unnest(ARRAY[{literals}])")
    )
    assert isinstance(vocab, int)
    return vocab


def test_ids_in_the_order_of_code_points(conn: Connection) -> None:
    characters = sorted("banÄ🙂é\n'")
    assert build(conn, "ban", "Äb🙂", "é\n'") == len(characters) + 1
    rows = conn.execute("SELECT token_id, token, bytes FROM llm_bpe_vocab ORDER BY token_id").fetchall()
    bos = (len(characters), "<|bos|>", b"")
    assert rows == [*((i, c, c.encode()) for i, c in enumerate(characters)), bos]


def test_encoding_and_decoding(conn: Connection) -> None:
    bos = build(conn, "ab c<|os>") - 1
    assert value(conn, "SELECT llm_encode('cab', 'names')") == [
        value(conn, "SELECT token_id FROM llm_bpe_vocab WHERE token = %s", (c,)) for c in "cab"
    ]
    assert value(conn, "SELECT llm_encode('', 'names')") == []
    assert value(conn, "SELECT llm_decode('{}', 'names')") == ""
    assert value(conn, "SELECT llm_encode(NULL, 'names')") is None
    assert value(conn, "SELECT llm_decode(NULL, 'names')") is None
    assert bos not in value(conn, "SELECT llm_encode('<|bos|>', 'names')")
    assert value(conn, "SELECT llm_decode(%s::int[], 'names')", ([bos, 0, bos],)) == " "


def test_round_trip(conn: Connection) -> None:
    alphabet = "aé日🙂 \n\t'\\%\"x"
    build(conn, alphabet)

    @RELAXED
    @given(st.text(alphabet=alphabet, max_size=300))
    def check(text: str) -> None:
        assert value(conn, "SELECT llm_decode(llm_encode(%s, 'names'), 'names')", (text,)) == text

    check()


def test_unknown_characters_and_tokens(conn: Connection) -> None:
    build(conn, "abc")
    with pytest.raises(errors.CharacterNotInRepertoire, match="'ß'") as caught:
        conn.execute("SELECT llm_encode('abßc', 'names')")
    assert "position 3" in (caught.value.diag.message_detail or "")
    for ids in ("{0,4}", "{-1}", "{NULL}", "{2147483647}"):
        with pytest.raises(errors.NumericValueOutOfRange, match="is not in the tokenizer"):
            conn.execute("SELECT llm_decode(%s, 'names')", (ids,))


def test_no_tokenizer(conn: Connection) -> None:
    for call in ("SELECT llm_encode('a', 'nobody')", "SELECT llm_decode('{1}', 'nobody')"):
        with pytest.raises(errors.UndefinedObject, match='model "nobody" has no tokenizer'):
            conn.execute(call)


def test_building_replaces_that_models_tokens(conn: Connection) -> None:
    build(conn, "abc", model="other")
    conn.execute("INSERT INTO llm_bpe_merges VALUES ('names', 0, 'a', 'b', 'a b')")
    build(conn, "xyz")
    assert build(conn, "ab") == 3
    assert value(conn, "SELECT count(*) FROM llm_bpe_merges") == 0
    assert conn.execute("SELECT model, count(*) FROM llm_bpe_vocab GROUP BY 1 ORDER BY 1").fetchall() == [
        ("names", 3),
        ("other", 4),
    ]


def test_a_model_takes_its_vocabulary_from_its_tokenizer(conn: Connection) -> None:
    vocab = value(conn, "SELECT llm_build_char_tokenizer('names', %s)", (names_query(),))
    conn.execute(
        "SELECT llm_create_model('names', n_layer => 1, n_head => 1, d_model => 4, n_positions => 4)"
    )
    assert value(conn, "SELECT vocab FROM llm_model_config WHERE model = 'names'") == vocab


def test_a_tokenizer_that_does_not_fit(conn: Connection) -> None:
    make_model(conn)
    with pytest.raises(errors.InvalidParameterValue, match='3 characters and BOS, model "tiny" has vocab 13'):
        build(conn, "abc", model="tiny")
    assert build(conn, "abcdefghijkl", model="tiny") == 13


def test_no_text(conn: Connection) -> None:
    with pytest.raises(errors.NoDataFound, match="returned no text"):
        conn.execute("SELECT llm_build_char_tokenizer('names', 'SELECT ''''')")
    with pytest.raises(errors.InvalidParameterValue, match="query must not be NULL"):
        conn.execute("SELECT llm_build_char_tokenizer('names', NULL)")
    with pytest.raises(errors.InvalidParameterValue, match="needs a model's name"):
        conn.execute("SELECT llm_build_char_tokenizer(NULL, 'SELECT ''a''')")
