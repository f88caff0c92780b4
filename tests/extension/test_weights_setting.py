"""pg_llm.weights: what bf16, int8 and int4 cost in perplexity, when they act, and what they leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

from ..support.small_models import make_names, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]
PRECISIONS = ("bf16", "int8", "int4")


def use(conn: Connection, precision: str) -> None:
    conn.execute("SELECT set_config('pg_llm.weights', %s, false)", (precision,))


def logits(conn: Connection) -> np.ndarray[Any, Any]:
    return np.array(value(conn, "SELECT llm_logits(llm_encode('eleanor', 'names'), 'names')"))


def round_bf16(conn: Connection) -> None:
    """The matrices of the linear layers in llm_param become their nearest bf16."""
    rows = conn.execute(
        "SELECT name, data FROM llm_param"
        " WHERE model = 'names' AND name LIKE 'h.%.weight' AND ndims(data) = 2"
    ).fetchall()
    assert rows
    for name, data in rows:
        bits = np.array(data, dtype=np.float32).view(np.uint32)
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
        conn.execute("UPDATE llm_param SET data = %s WHERE model = 'names' AND name = %s", (rounded, name))


@pytest.fixture
def names(conn: Connection) -> Connection:
    make_names(conn, n_positions=16, d_model=64, n_head=4)
    train(conn, "names", 150, lr_max=0.01, batch_size=8, dropout_p=0.0)
    return conn


def perplexity(conn: Connection) -> float:
    result = value(conn, "SELECT perplexity FROM llm_evaluate('names', 'train')")
    assert isinstance(result, float)
    return result


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.001), ("int8", 0.01), ("int4", 0.05)])
def test_perplexity_hardly_changes(names: Connection, precision: str, bound: float) -> None:
    exact = perplexity(names)
    assert exact < 4, "the model has learned nothing that rounding could spoil"
    use(names, precision)
    rounded = perplexity(names)
    assert rounded != exact, "the setting did nothing"
    assert abs(rounded / exact - 1) <= bound


def test_switches_act_at_once_and_float32_keeps_its_bits(names: Connection) -> None:
    exact = logits(names)
    seen = {"float32": exact.tobytes()}
    for precision in (*PRECISIONS, "float32", *reversed(PRECISIONS), "float32"):
        use(names, precision)
        got = logits(names)
        np.testing.assert_allclose(
            got, exact, atol=(0.3 if precision == "int4" else 0.05) * np.abs(exact).max()
        )
        assert seen.setdefault(precision, got.tobytes()) == got.tobytes(), precision
    assert len(set(seen.values())) == 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_cache_and_full_forward_agree_to_the_bit(names: Connection, precision: str) -> None:
    use(names, precision)
    ids = value(names, "SELECT llm_encode('evelynemma', 'names')")
    with names.transaction():
        names.execute("SELECT llm_pin('names')")
        handle = value(names, "SELECT pg_llm_gen_open('names', %s::int[], 16)", (ids,))
        rows = []
        for first, last in ((0, 6), (6, 7), (7, 10)):
            names.execute("SELECT pg_llm_gen_use(ARRAY[%s]::int[])", (handle,))
            rows.extend(value(names, "SELECT llm_forward('names', %s::int[])", (ids[first:last],)))
            names.execute("SELECT pg_llm_gen_done()")
        whole = value(names, "SELECT llm_forward('names', %s::int[])", (ids,))
        names.execute("SELECT pg_llm_arena_close('names')")
    np.testing.assert_array_equal(np.array(rows), np.array(whole))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_generation_reads_the_rounded_weights(names: Connection, precision: str) -> None:
    """Its tokens are those of the rounded logits, and it writes nothing."""
    before = weights(names, "names")
    use(names, precision)
    ids = list(value(names, "SELECT llm_encode('ab', 'names')"))
    rows = names.execute("SELECT token_id FROM llm_generate_stream('ab', 8, 0, model => 'names')").fetchall()
    for (token,) in rows:
        full = value(names, "SELECT llm_logits(%s::int[], 'names')", (ids,))
        assert int(np.argmax(full[-1])) == token
        ids.append(token)
    assert weights(names, "names") == before


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_is_float32(names: Connection, precision: str) -> None:
    """Between passes that read rounded weights too: every bit is that of a training under float32."""

    def trained() -> dict[tuple[str, int], Any]:
        with names.transaction(force_rollback=True):
            logits(names)
            names.execute("SELECT llm_train('names', 3, batch_size => 4, seed => 5, log_every => 0)")
            logits(names)
            names.execute("SELECT llm_train('names', 2, batch_size => 4, seed => 5, log_every => 0)")
            return weights(names, "names")

    want = trained()
    use(names, precision)
    assert trained() == want


@pytest.mark.parametrize("precision", PRECISIONS)
def test_copies_follow_the_weights(names: Connection, precision: str) -> None:
    """After a training step the copies are of the new weights: a fresh session computes the same."""
    use(names, precision)
    before = logits(names)
    train(names, "names", 2, lr_max=0.01, batch_size=8)
    after = logits(names)
    assert after.tobytes() != before.tobytes()
    names.execute("SELECT llm_release()")
    assert logits(names).tobytes() == after.tobytes()


def test_bf16_is_float32_on_rounded_weights(names: Connection) -> None:
    """Head apart: its matrix is the embedding too, which is read as float32."""
    use(names, "bf16")
    hidden = "SELECT llm_embed_text('eleanor', 'names')"
    want = np.array(value(names, hidden))
    use(names, "float32")
    assert np.array(value(names, hidden)).tobytes() != want.tobytes()
    round_bf16(names)
    np.testing.assert_array_equal(np.array(value(names, hidden)), want)


def test_weights_of_four_bits_lose_nothing(names: Connection) -> None:
    """Matrices that lie on 16 steps of float16 numbers: int4 is float32, but for the head, which is int8."""
    rows = names.execute(
        "SELECT name, data FROM llm_param"
        " WHERE model = 'names' AND name LIKE 'h.%.weight' AND ndims(data) = 2"
    ).fetchall()
    for name, data in rows:
        w = np.array(data, dtype=np.float32)
        for at in range(0, w.shape[0], 32):
            block = w[at : at + 32]
            low = block.min(0).astype(np.float16).astype(np.float32)
            step = ((block.max(0) - low) / 15).astype(np.float16).astype(np.float32)
            w[at : at + 32] = np.clip(np.round((block - low) / step), 0, 15) * step + low
        names.execute("UPDATE llm_param SET data = %s WHERE model = 'names' AND name = %s", (w, name))
    hidden = "SELECT llm_embed_text('eleanor', 'names')"
    want = np.array(value(names, hidden))
    use(names, "int8")
    assert np.array(value(names, hidden)).tobytes() != want.tobytes()
    use(names, "int4")
    np.testing.assert_array_equal(np.array(value(names, hidden)), want)


def test_copies_count_as_the_sessions_memory(names: Connection) -> None:
    """llm_release() gives back half more under bf16: matrices and the head, unless they are shared."""

    def released() -> int:
        names.execute("SELECT llm_release()")
        logits(names)
        return int(value(names, "SELECT llm_release()"))

    shared = released()
    use(names, "bf16")
    released()  # writes their file
    assert released() == shared
    names.execute("SET pg_llm.shared_dir = ''")
    use(names, "float32")
    plain = released()
    use(names, "bf16")
    matrices = value(
        names,
        "SELECT sum((shape(data))[1] * ceil((shape(data))[2] / 64.0) * 64 * 2) FROM llm_param"
        " WHERE model = 'names' AND name LIKE 'h.%.weight' AND ndims(data) = 2",
    )
    assert released() - plain >= int(matrices)
    names.execute("RESET pg_llm.shared_dir")


def test_unknown_values_are_refused(conn: Connection) -> None:
    conn.execute("SELECT pg_llm_numerics_version()")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute("SET pg_llm.weights = 'int5'")
    row = conn.execute("SELECT enumvals FROM pg_settings WHERE name = 'pg_llm.weights'").fetchone()
    assert row == (["float32", "bf16", "int8", "int4"],)
