"""llm_embed: of texts and arrays, of encoders and decoders, once for a statement, beside writers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from psycopg import errors

from ..support.small_models import Connection, make_encoder, make_names
from ..support.tensors import value

TEXTS = [
    "emma",
    "olivia and ava",
    "",
    "  ",
    "?",
    "漢字",
    "e" * 40,
    "[SEP] mia [CLS]",
    "emma",
    "Émma",
    "a b c d e",
]


def by_hand(conn: Connection, text: str, prefix: str = "", max_tokens: int = 16) -> Any:
    query = "SELECT llm_embed_bert('enc', i, ARRAY[cardinality(i)]) FROM llm_encode_sequence(%s, 'enc', %s) i"
    return value(conn, query, (prefix + text, max_tokens))[0]


def notices(conn: Connection, query: str, parameters: Any = None) -> tuple[Any, list[str]]:
    said: list[str] = []
    handler = lambda diagnostic: said.append(diagnostic.message_primary)  # noqa: E731
    conn.add_notice_handler(handler)
    try:
        return value(conn, query, parameters), said
    finally:
        conn.remove_notice_handler(handler)


def test_one_by_one_and_together_are_the_same_bits(conn: Connection) -> None:
    make_encoder(conn)
    together, said = notices(conn, "SELECT llm_embed(%s::text[], 'enc')", (TEXTS,))
    assert said == ['1 of 11 texts are longer than the 16 tokens that model "enc" reads, and were cut']
    for embedding, text in zip(together, TEXTS, strict=True):
        np.testing.assert_array_equal(embedding, value(conn, "SELECT llm_embed(%s, 'enc')", (text,)))
        np.testing.assert_array_equal(embedding, by_hand(conn, text))
        assert embedding.shape == (16,)
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)
    rows = conn.execute("SELECT llm_embed(t, 'enc') FROM unnest(%s::text[]) t", (TEXTS,)).fetchall()
    np.testing.assert_array_equal(np.stack([row[0] for row in rows]), np.stack(together))
    # An empty text is what stands around every text.
    cls_sep = value(conn, "SELECT llm_embed_bert('enc', '{2,3}', '{2}')")[0]
    np.testing.assert_array_equal(together[2], cls_sep)
    np.testing.assert_array_equal(together[3], cls_sep)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_nulls_and_nothing(conn: Connection, kind: str) -> None:
    model = make_encoder(conn) if kind == "encoder" else make_names(conn)
    assert value(conn, "SELECT llm_embed(NULL::text, %s)", (model,)) is None
    assert value(conn, "SELECT llm_embed(NULL::text[], %s)", (model,)) is None
    assert value(conn, "SELECT llm_embed('{}'::text[], %s)", (model,)) == []
    assert value(conn, "SELECT llm_embed(ARRAY[NULL]::text[], %s)", (model,)) == [None]
    found = value(conn, "SELECT llm_embed('[7:9]={ava,NULL,mia}'::text[], %s)", (model,))
    assert found[1] is None
    for embedding, name in ((found[0], "ava"), (found[2], "mia")):
        np.testing.assert_array_equal(embedding, value(conn, "SELECT llm_embed(%s, %s)", (name, model)))
    shaped = value(conn, "SELECT llm_embed(ARRAY[['ava', 'mia'], ['mia', NULL]], %s)", (model,))
    assert len(shaped) == 4
    np.testing.assert_array_equal(shaped[1], shaped[2])


def test_many_passes(conn: Connection) -> None:
    """As many texts as do not fit in a pass of 40 MB, each as it is alone."""
    make_encoder(conn, d_model=512, n_layer=1, n_head=1)
    texts = [x * (1 + i % 13) for i in range(64) for x in "abcdefgh"]
    found = value(conn, "SELECT llm_embed(%s::text[], 'enc')", (texts,))
    n_tokens = sum(len(text) + 2 for text in texts)
    assert n_tokens > 3 * 41943040 // (4 * 16 * 512)
    for place in (0, 17, 101, 240, len(texts) - 1):
        np.testing.assert_array_equal(
            found[place], value(conn, "SELECT llm_embed(%s, 'enc')", (texts[place],))
        )


@pytest.mark.parametrize(
    "settings", ['{"max_tokens": 4}', '{"max_tokens": 4, "pooling": "cls", "normalize": false}']
)
def test_texts_are_cut_as_the_model_says(conn: Connection, settings: str) -> None:
    make_encoder(conn, settings=settings)
    found, said = notices(conn, "SELECT llm_embed(ARRAY['ab', 'abc', 'abcdefghijklmnopqrstuvwxyz'], 'enc')")
    assert said == ['2 of 3 texts are longer than the 4 tokens that model "enc" reads, and were cut']
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], by_hand(conn, "abcdef", max_tokens=4))
    _, said = notices(conn, "SELECT llm_embed('ab', 'enc')")
    assert said == []


def test_prompts(conn: Connection) -> None:
    prompts = '{"prompts": {"query": "ask ", "passage": "read "}, "default_prompt": "passage"}'
    make_encoder(conn, settings=prompts, n_positions=32)
    for arguments, prefix in (("", "read "), (", prompt => 'query'", "ask "), (", prompt => ''", "")):
        for call in (
            f"llm_embed('emma', 'enc'{arguments})",
            f"(llm_embed(ARRAY['emma'], 'enc'{arguments}))[1]",
        ):
            np.testing.assert_array_equal(value(conn, f"SELECT {call}"), by_hand(conn, "emma", prefix, 32))
    with pytest.raises(errors.InvalidParameterValue, match="answer") as refused:
        conn.execute("SELECT llm_embed('emma', 'enc', 'answer')")
    assert refused.value.diag.message_hint == "It has passage, query."
    make_names(conn)
    with pytest.raises(errors.InvalidParameterValue, match="query") as refused:
        conn.execute("SELECT llm_embed('emma', 'names', 'query')")
    assert refused.value.diag.message_hint == "It has no prompts: settings of llm_model_config hold them."


def test_of_a_decoder_it_is_the_mean_of_its_states(conn: Connection) -> None:
    make_names(conn)
    for text in ("emma", "", "emmaoliviaavaisabellasophia"):
        expected = value(conn, "SELECT llm_embed_text(%s, 'names')", (text,))
        np.testing.assert_array_equal(value(conn, "SELECT llm_embed(%s)", (text,)), expected)
        np.testing.assert_array_equal(value(conn, "SELECT llm_embed(ARRAY[%s])", (text,))[0], expected)


def test_what_is_refused(conn: Connection) -> None:
    make_encoder(conn)
    for call in (
        "llm_embed('a', 'nobody')",
        "llm_embed(ARRAY['a'], 'nobody')",
        "llm_embed('a', 'all-minilm-l6-v2')",
    ):
        with pytest.raises((errors.UndefinedObject, errors.NoDataFound)):
            conn.execute(f"SELECT {call}")
    conn.execute("UPDATE llm_model_config SET settings = '{\"pooling\": \"max\"}' WHERE model = 'enc'")
    with pytest.raises(errors.InvalidParameterValue, match="pooling"):
        conn.execute("SELECT llm_embed('a', 'enc')")


def test_nothing_is_recorded_or_written(conn: Connection) -> None:
    make_encoder(conn)
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute("SET LOCAL pg_llm.autograd = on")
        conn.execute("SET LOCAL ROLE llm_reader")
        assert value(conn, "SELECT ndims(llm_embed('emma', 'enc'))") == 1
        assert len(value(conn, "SELECT llm_embed(ARRAY['emma', 'mia'], 'enc')")) == 2
    assert value(conn, "SELECT count(*) FROM llm_tape") == 0


def test_a_statement_computes_a_text_once_and_with_one_version(conn: Connection) -> None:
    make_encoder(conn)
    conn.execute("SET track_functions = 'all'")
    with conn.transaction():
        rows = conn.execute(
            "SELECT llm_embed('emma', 'enc') FROM generate_series(1, 30) i WHERE i > 0"
        ).fetchall()
        calls = value(conn, "SELECT pg_stat_get_xact_function_calls('llm_embed_bert'::regproc)")
    assert len(rows) == 30
    assert calls == 1
    # What is remembered ends with the statement, with a write, and is of one model, text and prompt.
    before = value(conn, "SELECT llm_embed('emma', 'enc')::text")
    conn.execute(
        """DO $$ DECLARE first tensor := llm_embed('emma', 'enc'); BEGIN
            UPDATE llm_param SET data = data * 2.0::double precision
            WHERE model = 'enc' AND name = 'wte.weight';
            PERFORM llm_require(first <> llm_embed('emma', 'enc'), 'the change is not seen');
        END $$"""
    )
    assert value(conn, "SELECT llm_embed('emma', 'enc')::text") != before
    different = conn.execute(
        "SELECT DISTINCT llm_embed(t, 'enc')::text"
        " FROM unnest(ARRAY['a', 'b', 'a', 'c', 'd', 'e', 'f', 'a']) t"
    ).fetchall()
    assert len(different) == 6
    make_names(conn)
    assert value(conn, "SELECT llm_embed('emma', 'enc') <> llm_embed('emma', 'names')")


def test_it_can_be_cancelled(conn: Connection, connect: Callable[[], Connection]) -> None:
    make_encoder(conn, n_positions=256, d_model=64, n_layer=6)
    conn.execute("SET statement_timeout = '300ms'")
    with pytest.raises(errors.QueryCanceled):
        conn.execute("SELECT llm_embed(array_fill(repeat('emma ', 60), ARRAY[20000]), 'enc')")
    conn.execute("RESET statement_timeout")
    assert value(conn, "SELECT ndims(llm_embed('emma', 'enc'))") == 1


def test_beside_training_every_statement_has_one_version(
    conn: Connection, connect: Callable[[], Connection]
) -> None:
    make_encoder(conn)
    stop = threading.Event()

    def write() -> None:
        with connect() as other:
            while not stop.is_set():
                other.execute("UPDATE llm_param SET data = data * 1.01::double precision WHERE model = 'enc'")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            query = (
                "SELECT count(DISTINCT llm_embed(x.t, 'enc')::text) FROM (SELECT 'emma' || repeat('', i) AS t"
            )
            query += " FROM generate_series(1, 40) i) x"
            assert value(conn, query) == 1
    finally:
        stop.set()
        writer.join()
