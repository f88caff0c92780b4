"""What bytea has beside the overloads of ops, and all that both refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from ..reference import ops

Connection = psycopg.Connection[Any]
Array = NDArray[np.float32]

RNG_SEED = 20240229


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(RNG_SEED)


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def call(conn: Connection, expression: str, *arguments: Any) -> Any:
    """The value of an SQL expression; arrays go as bytea, bytea comes back as a flat array."""
    sent = [a.astype("<f4").tobytes() if isinstance(a, np.ndarray) else a for a in arguments]
    row = conn.execute(f"SELECT {expression}", sent, binary=True).fetchone()
    assert row is not None
    got = [np.frombuffer(v, "<f4") if isinstance(v, bytes) else v for v in row]
    return got[0] if len(got) == 1 else tuple(got)


def close(got: Any, expected: Any, tolerance: float = 2e-6) -> None:
    expected = np.asarray(expected, np.float64)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(
        np.asarray(got, np.float64).reshape(expected.shape), expected, 0, tolerance * scale
    )


def test_zeros_and_ones(conn: Connection, rng: np.random.Generator) -> None:
    x = normal(rng, 1001)
    np.testing.assert_array_equal(call(conn, "pg_llm_zeros_like(%b::bytea)", x), np.zeros_like(x))
    np.testing.assert_array_equal(call(conn, "pg_llm_ones_like(%b::bytea)", x), np.ones_like(x))


def test_one_row_needs_no_sizes(conn: Connection, rng: np.random.Generator) -> None:
    x = normal(rng, 15)
    wide = x.astype(np.float64)
    close(call(conn, "pg_llm_softmax(%b::bytea)", x), ops.softmax(wide))
    close(call(conn, "pg_llm_rmsnorm(%b::bytea)", x), ops.rmsnorm(wide))
    close(call(conn, "pg_llm_cross_entropy(%b::bytea, 7)", x), ops.mean_cross_entropy(wide, 7))


def adamw(w: Any, g: Any, m: Any, v: Any, step: int) -> tuple[Any, Any, Any]:
    w, g, m, v = (np.asarray(x, np.float64) for x in (w, g, m, v))
    return ops.adamw(w, m, v, g, lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1, step=step)


ADAMW = (
    "weight, m, v FROM pg_llm_adamw_step(%b::bytea, %b::bytea, %b::bytea, %b::bytea,"
    " 0.01, 0.9, 0.999, 1e-8, 0.1, %s)"
)


def test_adamw(conn: Connection, rng: np.random.Generator) -> None:
    w, g = normal(rng, 300), normal(rng, 300)
    first = call(conn, ADAMW, w, g, None, None, 1)
    expected = adamw(w, g, 0.0, 0.0, 1)
    for got, want in zip(first, expected, strict=True):
        close(got, want)
    second = call(conn, ADAMW, first[0], w, first[1], first[2], 2)
    for got, want in zip(second, adamw(first[0], w, first[1], first[2], 2), strict=True):
        close(got, want)


def test_adamw_and_null(conn: Connection, rng: np.random.Generator) -> None:
    """A missing gradient changes nothing, and never wipes a weight."""
    w, m = normal(rng, 5), normal(rng, 5)
    weight, moment, none = call(conn, ADAMW, w, None, m, None, 1)
    np.testing.assert_array_equal(weight, w)
    np.testing.assert_array_equal(moment, m)
    assert none is None
    assert call(conn, ADAMW, None, w, m, m, 1) == (None, None, None)


def test_grad_clip(conn: Connection) -> None:
    g = np.array([3, 4], np.float32)
    close(call(conn, "pg_llm_grad_clip(%b::bytea, 1)", g), [0.6, 0.8])
    np.testing.assert_array_equal(call(conn, "pg_llm_grad_clip(%b::bytea, 10)", g), g)


FOUR = "'\\x00000000'::bytea"
EMPTY = "'\\x'::bytea"


@pytest.mark.parametrize(
    ("query", "state"),
    [
        (f"pg_llm_matmul({FOUR}, {FOUR}, 1, 2, 1)", "22023"),
        (f"pg_llm_matmul({FOUR}, {FOUR}, 0, 1, 1)", "22023"),
        (f"pg_llm_matmul({FOUR}, {FOUR}, -1, -1, -1)", "22023"),
        (f"pg_llm_matmul({FOUR}, {FOUR}, 2147483647, 2147483647, 2147483647)", "22023"),
        (f"pg_llm_matmul({EMPTY}, {EMPTY}, 1, 1, 1)", "22023"),
        (f"pg_llm_linear({FOUR}, {FOUR}, {FOUR}, 1, 1, 2)", "22023"),
        (f"pg_llm_transpose({FOUR}, 2147483647, 2147483647)", "22023"),
        (f"pg_llm_add({FOUR}, {EMPTY})", "22023"),
        ("pg_llm_gelu('\\x0000'::bytea)", "22023"),
        (f"pg_llm_softmax({FOUR}, 2, 1)", "22023"),
        (f"pg_llm_layernorm({FOUR}, {EMPTY}, {EMPTY}, 1e-5)", "22023"),
        (f"pg_llm_layernorm({FOUR}, {FOUR}, {EMPTY}, 1e-5)", "22023"),
        (f"pg_llm_embedding({FOUR}, '{{1}}', 1, 1)", "22003"),
        (f"pg_llm_embedding({FOUR}, '{{-1}}', 1, 1)", "22003"),
        (f"pg_llm_embedding({FOUR}, '{{NULL}}', 1, 1)", "22004"),
        (f"pg_llm_cross_entropy({FOUR}, 1)", "22003"),
        (f"pg_llm_cross_entropy({EMPTY}, 0)", "22023"),
        (f"pg_llm_cross_entropy({FOUR}, '{{0,0}}', 1, 1)", "22023"),
        (f"pg_llm_attention({FOUR}, {FOUR}, {FOUR}, {FOUR}, {FOUR}, 1, 1, 1)", "22023"),
        (
            f"pg_llm_attention({FOUR}, {FOUR}, {FOUR}, {FOUR}, {FOUR}, 2147483647, 2147483647, 2147483647)",
            "22023",
        ),
        (f"pg_llm_grad_clip({FOUR}, 0)", "22023"),
        (f"pg_llm_grad_clip({FOUR}, 'NaN')", "22023"),
        ("pg_llm_grad_clip('\\x0000c07f'::bytea, 1)", "22003"),
        (f"pg_llm_adamw_step({FOUR}, {EMPTY}, NULL, NULL, 1, 1, 1, 1, 1, 1)", "22023"),
        (f"pg_llm_adamw_step({FOUR}, {FOUR}, NULL, NULL, 1, 1, 1, 1, 1, 0)", "22023"),
        (f"pg_llm_adamw_step({FOUR}, {FOUR}, NULL, NULL, NULL, 1, 1, 1, 1, 1)", "22004"),
    ],
)
def test_errors(conn: Connection, query: str, state: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(f"SELECT {query}")
    assert caught.value.sqlstate == state


def test_empty_and_null(conn: Connection) -> None:
    for function in ("gelu", "relu", "softmax", "rmsnorm", "zeros_like", "ones_like"):
        assert call(conn, f"pg_llm_{function}({EMPTY})").size == 0
        assert call(conn, f"pg_llm_{function}(NULL::bytea)") is None
    assert call(conn, "pg_llm_matmul(NULL::bytea, NULL::bytea, 1, 1, 1)") is None


def test_bytes_of_a_tensor_are_what_the_ops_take(conn: Connection) -> None:
    assert call(
        conn,
        "tensor(pg_llm_matmul('[[1,2],[3,4]]'::tensor::bytea, '[[1,0],[0,2]]'::tensor::bytea, 2, 2, 2),"
        " '{2,2}')"
        " = '[[1,4],[3,8]]'",
    )
