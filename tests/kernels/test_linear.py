"""Matrix products, linear layers, transposes and embeddings against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import Engine

from ..reference import ops as reference
from .large import IDS, WTE, Cases, W, X
from .tolerance import assert_close, normal, odd_shapes, relative_error, seeds, sizes, wide

DEEP_A, DEEP_B, DEEP_C = normal(11, 40, 2000), normal(12, 2000, 50), normal(13, 40, 50)
DLINEAR = normal(14, 700, 211)

SAME_BITS: Cases = {
    "gemm": lambda e: (
        e.gemm(X, W),
        e.gemm(X, X, ta=True),
        e.gemm(X, WTE, tb=True),
        e.gemm(W, X, ta=True, tb=True),
        e.gemm(X[:1], W),
        e.gemm(DEEP_A, DEEP_B, c=DEEP_C),
    ),
    "linear_forward": lambda e: e.linear_forward(X, W, W[0]),
    "linear_backward": lambda e: e.linear_backward(DLINEAR, X, W, dw=W),
    "transpose": lambda e: e.transpose(X),
    "embedding_forward": lambda e: e.embedding_forward(WTE, IDS),
    "embedding_backward": lambda e: e.embedding_backward(X, IDS, 211),
}


# Products are summed in blocks of 128, whose sums are added in order: at most so many roundings of |a| |b|.
MOST_BLOCK_ROUNDINGS = 128


def roundings(K: int) -> float:
    return min(K, MOST_BLOCK_ROUNDINGS) + K / 128 + 2


@odd_shapes
@given(sizes, sizes, st.integers(1, 300), st.booleans(), st.booleans(), st.booleans(), seeds)
def test_gemm(engine: Engine, M: int, N: int, K: int, ta: bool, tb: bool, acc: bool, seed: int) -> None:
    a = normal(seed, *((K, M) if ta else (M, K)))
    b = normal(seed + 1, *((N, K) if tb else (K, N)))
    c = normal(seed + 2, M, N) if acc else None
    A, B = wide(a.T if ta else a), wide(b.T if tb else b)
    start = wide(c) if acc else 0
    assert_close(
        engine.gemm(a, b, ta=ta, tb=tb, c=c),
        start + A @ B,
        np.abs(start) + np.abs(A) @ np.abs(B),
        roundings(K),
    )


def test_gemm_large_enough_for_every_cache_block(engine: Engine) -> None:
    a, b = normal(1, 261, 1601), normal(2, 1601, 523)
    got = engine.gemm(a, b)
    assert_close(got, wide(a) @ wide(b), np.abs(wide(a)) @ np.abs(wide(b)), roundings(1601))
    assert relative_error(got, wide(a) @ wide(b)) < 5e-7


def test_gemm_error_at_768_is_that_of_short_blocks(engine: Engine) -> None:
    a, b = normal(3, 256, 768), normal(4, 768, 256)
    mean_error = np.abs(engine.gemm(a, b) - wide(a) @ wide(b)).mean() / np.sqrt(768)
    assert mean_error < 1.8e-7  # 1.9e-7 and 2.7e-7 with blocks of 256 and 384


def test_gemm_reads_column_slices_in_place(engine: Engine) -> None:
    whole = normal(5, 33, 90)
    a, b = whole[:, 7:40], normal(6, 64, 50)[3:36, 11:30]
    np.testing.assert_array_equal(engine.gemm(a, b), engine.gemm(a.copy(), b.copy()))
    np.testing.assert_array_equal(engine.gemm(a, a, tb=True), engine.gemm(a.copy(), a.copy().T.copy()))


def test_gemm_into_an_array(engine: Engine) -> None:
    a, b = normal(1, 37, 60), normal(2, 60, 29)
    out = np.full((37, 29), np.nan, np.float32)
    assert engine.gemm(a, b, out=out) is out
    np.testing.assert_array_equal(out, engine.gemm(a, b))
    for refused in (out[:, :28], out.astype(np.float64), np.empty((29, 37), np.float32).T, a[:, :29]):
        with pytest.raises(ValueError, match="out"):
            engine.gemm(a, b, out=refused)
    square = normal(3, 8, 8)
    with pytest.raises(ValueError, match="overlaps"):
        engine.gemm(square, square, out=square)
    with pytest.raises(ValueError, match="exclude"):
        engine.gemm(a, b, c=out, out=out)


def test_gemm_without_products_is_zero(engine: Engine) -> None:
    np.testing.assert_array_equal(engine.gemm(np.ones((3, 0), "f4"), np.ones((0, 5), "f4")), np.zeros((3, 5)))
    assert engine.gemm(np.ones((0, 4), "f4"), np.ones((4, 5), "f4")).shape == (0, 5)
    assert engine.gemm(np.ones((2, 4), "f4"), np.ones((4, 0), "f4")).shape == (2, 0)


@odd_shapes
@given(sizes, sizes, sizes, st.booleans(), seeds)
def test_linear_forward(engine: Engine, n: int, i: int, o: int, bias: bool, seed: int) -> None:
    x, w, b = normal(seed, n, i), normal(seed + 1, i, o), normal(seed + 2, o)
    B = wide(b) if bias else np.zeros(o)
    want = reference.linear(wide(x), wide(w), B)
    scale = np.abs(wide(x)) @ np.abs(wide(w)) + np.abs(B)
    assert_close(engine.linear_forward(x, w, b if bias else None), want, scale, roundings(i) + 1)


@odd_shapes
@given(st.integers(1, 300), sizes, sizes, seeds)
def test_linear_backward(engine: Engine, n: int, i: int, o: int, seed: int) -> None:
    x, w, dout = normal(seed, n, i), normal(seed + 1, i, o), normal(seed + 2, n, o)
    dx, dw, db = engine.linear_backward(dout, x, w)
    want = reference.linear_backward(wide(dout), wide(x), wide(w), np.zeros(o))
    magnitude = reference.linear_backward(np.abs(wide(dout)), np.abs(wide(x)), np.abs(wide(w)), np.zeros(o))
    assert_close(dx, want[0], magnitude[0], roundings(o))
    assert_close(dw, want[1], magnitude[1], roundings(n))
    assert_close(db, want[2], magnitude[2], roundings(n))


def test_linear_backward_adds_and_leaves_out(engine: Engine) -> None:
    x, w, dout = normal(1, 2, 9, 30), normal(2, 30, 17), normal(3, 2, 9, 17)
    fresh = engine.linear_backward(dout, x, w)
    before = [normal(4 + i, *g.shape) for i, g in enumerate(fresh)]
    added = engine.linear_backward(dout, x, w, dx=before[0], dw=before[1], db=before[2])
    for got, start, gradient in zip(added, before, fresh, strict=True):
        assert_close(got, wide(start) + wide(gradient), 100.0, 1)
    dx, dw, db = engine.linear_backward(dout, x, w, dx=False, db=False)
    assert dx is None
    assert db is None
    np.testing.assert_array_equal(dw, fresh[1])


@odd_shapes
@given(st.integers(1, 130), st.integers(1, 130), seeds)
def test_transpose(engine: Engine, rows: int, cols: int, seed: int) -> None:
    x = normal(seed, rows, cols)
    np.testing.assert_array_equal(engine.transpose(x), x.T)


@odd_shapes
@given(sizes, sizes, st.integers(1, 400), seeds)
def test_embedding(engine: Engine, rows: int, d: int, n: int, seed: int) -> None:
    w, dout = normal(seed, rows, d), normal(seed + 1, n, d)
    ids = np.random.default_rng(seed).integers(0, rows, n)
    np.testing.assert_array_equal(engine.embedding_forward(w, ids), w[ids])
    want = reference.embedding_backward(wide(dout), ids, rows)
    magnitude = reference.embedding_backward(np.abs(wide(dout)), ids, rows)
    assert_close(engine.embedding_backward(dout, ids, rows), want, magnitude, n)
    before = normal(seed + 2, rows, d)
    added = engine.embedding_backward(dout, ids, rows, dw=before)
    assert_close(added, wide(before) + want, np.abs(before) + magnitude, n + 1)


def test_embedding_backward_adds_in_index_order(engine: Engine) -> None:
    """1 + 2^-24 rounds to 1, so adding small values after or before a large one shows the order."""
    dout = np.array([[1.0], [2.0**-24], [2.0**-24], [-1.0]], np.float32)
    assert engine.embedding_backward(dout, [0, 0, 0, 0], 1)[0, 0] == 0.0
    assert engine.embedding_backward(dout[[1, 2, 0, 3]], [0, 0, 0, 0], 1)[0, 0] == pytest.approx(2.0**-23)
