"""The ops on bytea against float64 NumPy, and their size checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

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


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layernorm(x: NDArray[np.float64], gamma: Any, beta: Any, eps: float) -> NDArray[np.float64]:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * gamma + beta


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (2, 3, 4), (7, 129, 33), (1, 300, 50), (65, 17, 1)])
def test_matmul(conn: Connection, rng: np.random.Generator, m: int, k: int, n: int) -> None:
    a, b, dout = normal(rng, m, k), normal(rng, k, n), normal(rng, m, n)
    wide = [x.astype(np.float64) for x in (a, b, dout)]
    close(
        call(conn, "pg_llm_matmul(%b::bytea, %b::bytea, %s, %s, %s)", a, b, m, k, n), wide[0] @ wide[1], 1e-5
    )
    da, db = call(conn, "da, db FROM pg_llm_matmul_backward(%b::bytea, %b::bytea, %b::bytea, %s, %s, %s)",
                  dout, a, b, m, k, n)  # fmt: skip
    close(da, wide[2] @ wide[1].T, 1e-5)
    close(db, wide[0].T @ wide[2], 1e-5)


def test_linear_transpose_embedding(conn: Connection, rng: np.random.Generator) -> None:
    x, w, b = normal(rng, 5, 19), normal(rng, 19, 23), normal(rng, 23)
    close(
        call(conn, "pg_llm_linear(%b::bytea, %b::bytea, %b::bytea, 5, 19, 23)", x, w, b),
        x.astype(np.float64) @ w + b,
        1e-5,
    )
    np.testing.assert_array_equal(call(conn, "pg_llm_transpose(%b::bytea, 19, 23)", w).reshape(23, 19), w.T)
    ids = [3, 0, 18, 3]
    np.testing.assert_array_equal(
        call(conn, "pg_llm_embedding(%b::bytea, %s::int[], 19, 23)", w, ids).reshape(4, 23), w[ids]
    )


def test_elementwise(conn: Connection, rng: np.random.Generator) -> None:
    x, y = 3 * normal(rng, 1001), normal(rng, 1001)
    np.testing.assert_array_equal(call(conn, "pg_llm_add(%b::bytea, %b::bytea)", x, y), x + y)
    np.testing.assert_array_equal(call(conn, "pg_llm_relu(%b::bytea)", x), np.maximum(x, 0))
    np.testing.assert_array_equal(call(conn, "pg_llm_relu_backward(%b::bytea, %b::bytea)", y, x), y * (x > 0))
    close(call(conn, "pg_llm_gelu(%b::bytea)", x), gelu(x.astype(np.float64)))
    h = 1e-5
    slope = (gelu(x.astype(np.float64) + h) - gelu(x.astype(np.float64) - h)) / (2 * h)
    close(call(conn, "pg_llm_gelu_backward(%b::bytea, %b::bytea)", y, x), y * slope)
    np.testing.assert_array_equal(call(conn, "pg_llm_zeros_like(%b::bytea)", x), np.zeros_like(x))
    np.testing.assert_array_equal(call(conn, "pg_llm_ones_like(%b::bytea)", x), np.ones_like(x))


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (3, 5), (4, 129)])
def test_rows(conn: Connection, rng: np.random.Generator, rows: int, cols: int) -> None:
    x, dout = normal(rng, rows, cols), normal(rng, rows, cols)
    wide = x.astype(np.float64)
    p = softmax(wide)
    close(call(conn, "pg_llm_softmax(%b::bytea, %s, %s)", x, rows, cols), p)
    close(call(conn, "pg_llm_softmax(%b::bytea)", x), softmax(wide.reshape(-1)))
    close(
        call(conn, "pg_llm_softmax_backward(%b::bytea, %b::bytea, %s, %s)", dout, x, rows, cols),
        p * (dout - (dout * p).sum(-1, keepdims=True)),
    )
    rms = np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5)
    close(call(conn, "pg_llm_rmsnorm(%b::bytea, 1e-5, %s, %s)", x, rows, cols), wide / rms)
    close(call(conn, "pg_llm_rmsnorm(%b::bytea)", x), wide / np.sqrt((wide**2).mean() + 1e-5))


def test_layernorm(conn: Connection, rng: np.random.Generator) -> None:
    x, dout, gamma, beta = normal(rng, 6, 37), normal(rng, 6, 37), normal(rng, 37), normal(rng, 37)
    wide = x.astype(np.float64)
    close(call(conn, "pg_llm_layernorm(%b::bytea, %b::bytea, %b::bytea, 1e-3)", x, gamma, beta),
          layernorm(wide, gamma, beta, 1e-3))  # fmt: skip
    close(call(conn, "pg_llm_layernorm(%b::bytea, %b::bytea, %b::bytea)", x, gamma, beta),
          layernorm(wide, gamma, beta, 1e-5))  # fmt: skip
    dx, dgamma, dbeta = call(
        conn,
        "dx, dgamma, dbeta FROM pg_llm_layernorm_backward(%b::bytea, %b::bytea, %b::bytea, %b::bytea, 1e-5)",
        dout, x, gamma, beta,
    )  # fmt: skip
    numeric = np.empty_like(wide)
    h = 1e-5
    for at in np.ndindex(*x.shape):
        step = np.zeros_like(wide)
        step[at] = h
        numeric[at] = (
            (layernorm(wide + step, gamma, beta, 1e-5) - layernorm(wide - step, gamma, beta, 1e-5)) * dout
        ).sum() / (2 * h)
    close(dx, numeric, 1e-5)
    close(dgamma, (dout * layernorm(wide, 1.0, 0.0, 1e-5)).sum(0), 1e-5)
    close(dbeta, dout.astype(np.float64).sum(0), 1e-5)


@pytest.mark.parametrize(("t", "d", "heads"), [(1, 4, 1), (9, 12, 3), (70, 32, 4)])
def test_attention(conn: Connection, rng: np.random.Generator, t: int, d: int, heads: int) -> None:
    x, w, b, wo, bo = (normal(rng, *s) * 0.3 for s in ((t, d), (d, 3 * d), (3 * d,), (d, d), (d,)))
    q, k, v = np.split(x.astype(np.float64) @ w + b, 3, axis=-1)
    mixed = np.empty((t, d))
    for head in range(heads):
        s = slice(head * d // heads, (head + 1) * d // heads)
        scores = q[:, s] @ k[:, s].T / np.sqrt(d / heads)
        scores[np.triu_indices(t, 1)] = -np.inf
        mixed[:, s] = softmax(scores) @ v[:, s]
    got = call(
        conn,
        "pg_llm_attention(%b::bytea, %b::bytea, %b::bytea, %b::bytea, %b::bytea, %s, %s, %s)",
        x, w, b, wo, bo, heads, t, d,
    )  # fmt: skip
    close(got, mixed @ wo + bo, 1e-5)


def test_cross_entropy(conn: Connection, rng: np.random.Generator) -> None:
    logits = 4 * normal(rng, 5, 31)
    losses = -np.log(softmax(logits.astype(np.float64)))
    close(call(conn, "pg_llm_cross_entropy(%b::bytea, 7)", logits[2]), losses[2, 7])
    targets = [0, -100, 30, 7, -1]
    expected = np.mean([losses[i, target] for i, target in enumerate(targets) if target >= 0])
    close(call(conn, "pg_llm_cross_entropy(%b::bytea, %s::int[], 5, 31)", logits, targets), expected)


def adamw(w: Any, g: Any, m: Any, v: Any, step: int) -> tuple[Any, Any, Any]:
    """Loshchilov & Hutter 2019, algorithm 2, in float64."""
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    rate = 0.01
    w = w - rate * 0.1 * w - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return w, m, v


ADAMW = (
    "weight, m, v FROM pg_llm_adamw_step(%b::bytea, %b::bytea, %b::bytea, %b::bytea,"
    " 0.01, 0.9, 0.999, 1e-8, 0.1, %s)"
)


def test_adamw(conn: Connection, rng: np.random.Generator) -> None:
    w, g = normal(rng, 300), normal(rng, 300)
    first = call(conn, ADAMW, w, g, None, None, 1)
    expected = adamw(w.astype(np.float64), g.astype(np.float64), 0.0, 0.0, 1)
    for got, want in zip(first, expected, strict=True):
        close(got, want)
    second = call(conn, ADAMW, first[0], w, first[1], first[2], 2)
    for got, want in zip(
        second, adamw(*(a.astype(np.float64) for a in (first[0], w, first[1], first[2])), 2), strict=True
    ):
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
