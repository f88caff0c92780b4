"""llm_hidden and llm_embed_text: against the logits, the pooled states, windows of long texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..support.small_models import make_model, make_names
from ..support.tensors import value

Connection = psycopg.Connection[Any]


@pytest.mark.parametrize(("arch", "head"), [("gpt2", "wte"), ("gpt3", "wte"), ("microgpt", "lm_head")])
def test_the_last_states_make_the_logits(conn: Connection, arch: str, head: str) -> None:
    make_model(conn, arch=arch)
    tokens = [1, 2, 3, 12, 0]
    for batch in (tokens, [tokens, tokens[::-1]]):
        states = value(conn, "SELECT llm_hidden('tiny', %s::int[])", (batch,))
        weight = value(conn, f"SELECT data FROM llm_param WHERE model = 'tiny' AND name = '{head}.weight'")
        logits = value(conn, "SELECT llm_logits(%s::int[], 'tiny')", (batch,))
        np.testing.assert_allclose(states @ weight.T, logits, atol=1e-6)


def test_layers(conn: Connection) -> None:
    make_model(conn, n_layer=3)
    states = [value(conn, "SELECT llm_hidden('tiny', '{1,2,3}', %s)", (k,)) for k in range(-4, 4)]
    for k in range(4):
        assert states[k].shape == (3, 16)
        assert (states[k] == states[k + 4]).all()
    weights = dict(conn.execute("SELECT name, data FROM llm_param WHERE model = 'tiny'").fetchall())
    embedded = weights["wte.weight"][[1, 2, 3]] + weights["wpe.weight"][:3]
    np.testing.assert_array_equal(states[0], embedded)
    assert (value(conn, "SELECT llm_hidden('tiny', '{1,2,3}')") == states[3]).all()
    for k in (4, -5):
        with pytest.raises(errors.InvalidParameterValue, match=str(k)):
            conn.execute("SELECT llm_hidden('tiny', '{1}', %s)", (k,))
    with pytest.raises(errors.NumericValueOutOfRange):
        conn.execute("SELECT llm_hidden('tiny', '{13}')")
    with pytest.raises(errors.InvalidParameterValue):
        conn.execute("SELECT llm_hidden('tiny', array_fill(1, ARRAY[9]))")


def test_pooling(conn: Connection) -> None:
    make_names(conn)
    for layer in (None, 0, 1):
        tokens = value(conn, "SELECT llm_encode('emma', 'names')")
        states = value(conn, "SELECT llm_hidden('names', %s::int[], %s)", (tokens, layer))
        query = "SELECT llm_embed_text('emma', 'names', %s::int, %s)"
        np.testing.assert_array_equal(value(conn, query, (layer, "none")), states)
        np.testing.assert_array_equal(value(conn, query, (layer, "last")), states[-1])
        np.testing.assert_allclose(value(conn, query, (layer, "mean")), states.mean(0), rtol=1e-5, atol=1e-7)
    assert value(conn, "SELECT shape(llm_embed_text('emma'))") == [16]
    assert value(conn, "SELECT llm_embed_text(NULL)") is None
    with pytest.raises(errors.InvalidParameterValue, match="max"):
        conn.execute("SELECT llm_embed_text('emma', pooling => 'max')")


def test_an_empty_text_is_the_end_token(conn: Connection) -> None:
    make_names(conn)
    end = value(conn, "SELECT llm_end_token('names')")
    states = value(conn, "SELECT llm_hidden('names', %s::int[])", ([end],))
    np.testing.assert_array_equal(value(conn, "SELECT llm_embed_text('')"), states[0])


def test_a_long_text_is_read_in_windows(conn: Connection) -> None:
    make_names(conn, n_positions=8)
    text = "emmaoliviaavaisabellasophia"
    tokens = value(conn, "SELECT llm_encode(%s, 'names')", (text,))
    expected: list[Any] = []
    for first in range(0, len(tokens), 4):
        window = value(conn, "SELECT llm_hidden('names', %s::int[])", (tokens[first : first + 8],))
        expected.extend(window[len(expected) - first :])
    assert len(expected) == len(tokens)
    found = value(conn, "SELECT llm_embed_text(%s, pooling => 'none')", (text,))
    np.testing.assert_array_equal(found, np.stack(expected))
    last = value(conn, "SELECT llm_embed_text(%s, pooling => 'last')", (text,))
    np.testing.assert_array_equal(last, expected[-1])
    mean = value(conn, "SELECT llm_embed_text(%s)", (text,))
    np.testing.assert_allclose(mean, np.mean(expected, axis=0), rtol=1e-5, atol=1e-7)


def test_nothing_is_recorded_or_written(conn: Connection) -> None:
    make_names(conn)
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute("SET LOCAL pg_llm.record = 'off'")
        assert value(conn, "SELECT ndims(llm_embed_text('emma'))") == 1
    assert value(conn, "SELECT count(*) FROM llm_tape") == 0


# Nothing of these is ever recorded, and they write nothing: the planner may call them once for a statement.
NEVER_RECORDED = {"llm_embed", "llm_embed_text", "llm_perplexity", "llm_encode", "llm_decode"}


def test_what_is_never_recorded_is_stable(conn: Connection) -> None:
    found = conn.execute(
        "SELECT DISTINCT proname, provolatile::text FROM pg_proc WHERE proname = ANY (%s)",
        (list(NEVER_RECORDED),),
    ).fetchall()
    assert sorted(found) == [(name, "s") for name in sorted(NEVER_RECORDED)]


def test_a_plan_made_with_one_version_of_the_weights_pins_nothing(conn: Connection) -> None:
    """The planner runs the model for its estimates, before the statement itself begins."""
    make_names(conn)
    conn.execute("CREATE TEMP TABLE seen AS SELECT llm_embed_text('emma', 'names') AS e")
    same = "SELECT count(*) FROM seen WHERE e = llm_embed_text('emma', 'names')"
    with conn.transaction():
        conn.execute(f"EXPLAIN {same}")
        assert value(conn, same) == 1
        conn.execute("UPDATE llm_param SET data = data * 2.0::double precision WHERE model = 'names'")
        assert value(conn, same) == 0
        other = value(conn, "SELECT llm_embed_text('emma', 'names')::text")
    conn.execute("SELECT llm_release()")
    assert value(conn, "SELECT llm_embed_text('emma', 'names')::text") == other


def test_all_rows_of_a_statement_in_one_snapshot(conn: Connection) -> None:
    """Within a function each statement sees what those before it did; within a statement nothing changes."""
    make_names(conn)
    conn.execute(
        """DO $$ DECLARE first tensor := llm_embed_text('emma', 'names'); BEGIN
            UPDATE llm_param SET data = data * 2.0::double precision WHERE model = 'names';
            PERFORM llm_require(first <> llm_embed_text('emma', 'names'), 'the change is not seen');
        END $$"""
    )
