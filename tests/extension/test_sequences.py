"""Sequences laid end to end: each as if alone, what lengths may be, and what else an encoder's ops refuse.

Values and gradients of the ops stand in test_ops.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..support.tensors import Array, Connection, value
from ..support.waiting import work_of

LENGTHS = [3, 64, 1, 130, 17]
ROWS = sum(LENGTHS)
RNG = np.random.default_rng(8)
QKV = RNG.normal(size=(3, ROWS, 24)).astype(np.float32)
DOUT = RNG.normal(size=(ROWS, 24)).astype(np.float32)
PARTS = [slice(end - n, end) for n, end in zip(LENGTHS, np.cumsum(LENGTHS), strict=True)]


def attention(conn: Connection, qkv: Array, lengths: list[int] | None) -> Array:
    call = "SELECT pg_llm_bidirectional_attention(%s, %s, %s, 2, lengths => %s::int[])"
    return np.asarray(value(conn, call, [*qkv, lengths]))


def gradients(conn: Connection, dout: Array, qkv: Array, lengths: list[int] | None) -> list[Array]:
    call = "SELECT * FROM pg_llm_bidirectional_attention_backward(%s, %s, %s, %s, 2, lengths => %s::int[])"
    row = conn.execute(call, [dout, *qkv, lengths]).fetchone()
    assert row is not None
    return [np.asarray(gradient) for gradient in row]


def test_a_sequence_alone_and_among_others_has_the_same_bits(conn: Connection) -> None:
    together, back = attention(conn, QKV, LENGTHS), gradients(conn, DOUT, QKV, LENGTHS)
    for part in PARTS:
        for lengths in (None, [part.stop - part.start]):
            alone = attention(conn, QKV[:, part], lengths)
            np.testing.assert_array_equal(alone, together[part])
            for one, all_ in zip(gradients(conn, DOUT[part], QKV[:, part], lengths), back, strict=True):
                np.testing.assert_array_equal(one, all_[part])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(conn: Connection, threads: int) -> None:
    conn.execute(f"SET pg_llm.threads = {threads}")
    got = [attention(conn, QKV, LENGTHS), *gradients(conn, DOUT, QKV, LENGTHS)]
    conn.execute("SET pg_llm.threads = 1")
    want = [attention(conn, QKV, LENGTHS), *gradients(conn, DOUT, QKV, LENGTHS)]
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_of_sequences(conn: Connection, pooling: str) -> None:
    x = QKV[0]
    together = np.asarray(value(conn, f"SELECT pg_llm_{pooling}_pool(%s, %s::int[])", [x, LENGTHS]))
    assert together.shape == (len(LENGTHS), 24)
    for part, row in zip(PARTS, together, strict=True):
        alone = np.asarray(value(conn, f"SELECT pg_llm_{pooling}_pool(%s)", [x[part]]))
        np.testing.assert_array_equal(alone, row)
    named = value(conn, "SELECT pg_llm_pool(%s, %s::int[], %s)", [x, LENGTHS, pooling])
    np.testing.assert_array_equal(named, together)


def test_positions_of_sequences(conn: Connection) -> None:
    assert value(conn, "SELECT pg_llm_positions('{7,7,7,7,7,7}', '{3,1,2}')") == [0, 1, 2, 0, 0, 1]
    assert value(conn, "SELECT pg_llm_positions('{7,7}', NULL)") == [0, 1]
    assert value(conn, "SELECT pg_llm_positions('{}', '{}')") == []
    assert value(conn, "SELECT pg_llm_positions(NULL, '{1}')") is None


def test_no_sequences(conn: Connection) -> None:
    empty = "pg_llm_full('{0,4}', 0)"
    attended = f"pg_llm_bidirectional_attention({empty}, {empty}, {empty}, 2, lengths => '{{}}')"
    assert value(conn, f"SELECT shape({attended})") == [0, 4]
    assert value(conn, f"SELECT shape(pg_llm_mean_pool({empty}, '{{}}'))") == [0, 4]
    assert value(conn, "SELECT shape(pg_llm_cls_pool(pg_llm_full('{0,3,4}', 0)))") == [0, 4]


X = "pg_llm_full('{6,4}', 1)"
FLAT = f"{X}::bytea"


@pytest.mark.parametrize(
    ("lengths", "message", "hint"),
    [
        ("{3,2}", "lengths add up to 5 tokens, not to 6", "end to end"),
        ("{6,1}", "lengths add up to 7 tokens, not to 6", "end to end"),
        ("{}", "lengths add up to 0 tokens, not to 6", "end to end"),
        ("{3,0,3}", "sequence 2 of lengths has 0 tokens", "at least one"),
        ("{7,-1}", "sequence 2 of lengths has -1 tokens", "at least one"),
        ("{2147483647,2147483647,2147483647}", "lengths add up to 6442450941 tokens", "end to end"),
        ("{{3,3}}", "lengths has 2 dimensions", "list of the number of tokens"),
        ("{3,NULL}", "lengths must not contain NULL", None),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        f"pg_llm_bidirectional_attention({X}, {X}, {X}, 2, lengths => %s::int[])",
        f"pg_llm_bidirectional_attention({FLAT}, {FLAT}, {FLAT}, 2, 0, false, '', %s::int[], 6, 4)",
        f"pg_llm_bidirectional_attention_backward({X}, {X}, {X}, {X}, 2, lengths => %s::int[])",
        f"pg_llm_mean_pool({X}, %s::int[])",
        f"pg_llm_cls_pool({FLAT}, %s::int[], 6, 4)",
        f"pg_llm_pool({X}, %s::int[], 'cls')",
        "pg_llm_positions('{1,2,3,4,5,6}', %s::int[])",
    ],
)
def test_lengths_that_do_not_fit(
    conn: Connection, call: str, lengths: str, message: str, hint: str | None
) -> None:
    with pytest.raises(psycopg.Error, match=message) as refused:
        conn.execute(f"SELECT {call}", [lengths])
    assert refused.value.sqlstate == ("22004" if "NULL" in lengths else "22023")
    if hint is not None:
        assert hint in str(refused.value.diag.message_hint)


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        (f"pg_llm_pool({X}, NULL, 'max')", 'pooling "max" is not known', "mean and cls"),
        (f"pg_llm_pool({X}, NULL, '')", 'pooling "" is not known', "mean and cls"),
        (f"pg_llm_pool({FLAT}, NULL, 'Mean', 6, 4)", 'pooling "Mean" is not known', "mean and cls"),
        ("pg_llm_mean_pool('[1,2]', '{2}')", "x has shape .2.", "at least 2 dimensions"),
        ("pg_llm_mean_pool('[[[1],[2]]]', '{2}')", "cannot take the shapes", "with lengths"),
        ("pg_llm_cls_pool(pg_llm_full('{2,0,3}', 0))", "cannot take the shapes", "at least one token"),
        ("pg_llm_l2_normalize('3')", "x has shape", "at least 1 dimension"),
        (
            "pg_llm_bidirectional_attention('[[[1]]]', '[[[1]]]', '[[[1]]]', 1, lengths => '{1}')",
            "cannot take the shapes",
            "with lengths",
        ),
        (
            "pg_llm_bidirectional_attention('[[1]]', '[[1],[2]]', '[[1]]', 1)",
            "cannot take the shapes",
            "one shape",
        ),
        (f"pg_llm_bidirectional_attention({X}, {X}, {X}, 3)", "4 is not divisible by 3 heads", None),
        (f"pg_llm_bidirectional_attention({X}, {X}, {X}, 0)", "not divisible by 0 heads", None),
        (f"pg_llm_bidirectional_attention({X}, {X}, {X}, 2, 1.0)", "dropout probability", None),
        ("pg_llm_positions('{{1,2}}', '{2}')", "ids has 2 dimensions", "end to end"),
    ],
)
def test_other_arguments_that_do_not_fit(conn: Connection, call: str, message: str, hint: str | None) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=message) as refused:
        conn.execute(f"SELECT {call}")
    if hint is not None:
        assert hint in str(refused.value.diag.message_hint)


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_attention_refuses_what_is_not_finite(conn: Connection, wrong: float, part: int) -> None:
    damaged = QKV.copy()
    damaged[part, 40, 3] = wrong
    with pytest.raises(errors.NumericValueOutOfRange, match="bidirectional_attention") as refused:
        attention(conn, damaged, LENGTHS)
    assert "all tokens of their sequence" in str(refused.value.diag.message_hint)


def test_null_gives_null_but_for_lengths(conn: Connection) -> None:
    for call in (
        f"pg_llm_bidirectional_attention({X}, NULL, {X}, 2)",
        f"pg_llm_bidirectional_attention({X}, {X}, {X}, NULL, lengths => NULL)",
        f"pg_llm_mean_pool({FLAT}, NULL, NULL, 4)",
        f"pg_llm_pool({X}, NULL, NULL)",
        f"pg_llm_pool_backward({X}, NULL, NULL, 'mean')",
        f"pg_llm_pool({FLAT}, NULL, 'mean', 6, NULL)",
        f"pg_llm_l2_normalize({X}, NULL)",
    ):
        assert value(conn, f"SELECT {call} IS NULL"), call
    for call in (
        f"pg_llm_mean_pool_backward(pg_llm_full('{{4}}', 1), {X}, NULL)",
        f"pg_llm_pool({FLAT}, NULL, 'mean', 6, 4)",
        f"pg_llm_pool_backward(pg_llm_full('{{4}}', 1), {X}, NULL, 'cls')",
    ):
        assert value(conn, f"SELECT {call} IS NOT NULL"), call


def test_gradients_with_dropout_are_those_of_the_mask(conn: Connection) -> None:
    """Linear in v: the gradient at v, times v, is what the output holds; under the same key, both times."""
    call = "pg_llm_bidirectional_attention{}(%s, %s, %s, 2, 0.3, true, 'h.0', %s::int[])"
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT pg_llm_pass_begin(1, 2, 0)")
        out = np.asarray(value(conn, "SELECT " + call.format(""), [*QKV, LENGTHS]))
        back = call.format("_backward").replace("(", "(%s, ", 1)
        row = conn.execute(f"SELECT * FROM {back}", [DOUT, *QKV, LENGTHS]).fetchone()
    assert row is not None
    dv = np.asarray(row[2])
    for part in PARTS:
        np.testing.assert_allclose((dv[part] * QKV[2, part]).sum(), (out[part] * DOUT[part]).sum(), rtol=1e-4)
    plain = attention(conn, QKV, LENGTHS)
    assert not np.allclose(out, plain)


@pytest.mark.parametrize("lengths", [[20000], [200] * 100], ids=["one", "many"])
def test_attention_can_be_cancelled(conn: Connection, lengths: list[int]) -> None:
    """In its midst, however the tokens are cut."""
    conn.execute("CREATE TEMP TABLE made AS SELECT pg_llm_normal('{20000,64}', 0, 1, 1, 1) AS x")
    repeat = 1 if len(lengths) == 1 else 40
    call = f"""SELECT count(norm(pg_llm_bidirectional_attention(x, x, x, 2, lengths => %s::int[])))
        FROM made, generate_series(1, {repeat})"""

    def run(parameters: Any) -> None:
        conn.execute(call, parameters)

    def cancelled() -> None:
        with pytest.raises(errors.QueryCanceled):
            run([lengths])

    whole = work_of(conn, lambda: run([lengths]))
    conn.execute("SET statement_timeout = '50ms'")
    assert work_of(conn, cancelled) < whole / 2
