"""Norms, softmax and sums against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import Engine

from ..reference import ops as reference
from .large import BETA, DOUT, FLAT, GAMMA, LOGITS, Cases, X
from .tolerance import assert_close, normal, odd_shapes, relative_error, seeds, sizes, wide


def same_layernorm_backward(e: Engine) -> object:
    _, mean, rstd = e.layernorm_forward(X, GAMMA, BETA)
    return e.layernorm_backward(DOUT, X, GAMMA, mean, rstd, dx=DOUT, dgamma=GAMMA)


SAME_BITS: Cases = {
    "layernorm_forward": lambda e: (*e.layernorm_forward(X, GAMMA, BETA), *e.layernorm_forward(X)),
    "layernorm_backward": same_layernorm_backward,
    "rmsnorm_forward": lambda e: (*e.rmsnorm_forward(X), *e.rmsnorm_forward(X, GAMMA)),
    "rmsnorm_backward": lambda e: (
        e.rmsnorm_backward(DOUT, X, e.rmsnorm_forward(X)[1]),
        *e.rmsnorm_backward(DOUT, X, e.rmsnorm_forward(X)[1], GAMMA, dx=X, dgain=BETA),
    ),
    "l2_normalize_forward": lambda e: e.l2_normalize_forward(X),
    "l2_normalize_backward": lambda e: e.l2_normalize_backward(DOUT, *e.l2_normalize_forward(X), dx=X),
    "mean_pool_forward": lambda e: e.mean_pool_forward(X, LENGTHS),
    "mean_pool_backward": lambda e: e.mean_pool_backward(DOUT[: len(LENGTHS)], LENGTHS, dx=X),
    "cls_pool_forward": lambda e: e.cls_pool_forward(X, LENGTHS),
    "cls_pool_backward": lambda e: (
        e.cls_pool_backward(DOUT[: len(LENGTHS)], LENGTHS),
        e.cls_pool_backward(DOUT[: len(LENGTHS)], LENGTHS, dx=X),
    ),
    "softmax_forward": lambda e: e.softmax_forward(LOGITS),
    "softmax_backward": lambda e: e.softmax_backward(DOUT, e.softmax_forward(LOGITS), dx=X),
    "sum_rows": lambda e: (e.sum_rows(X), e.sum_rows(X, out=BETA)),
    "sum": lambda e: np.float64(e.sum(FLAT)),
    "sum_squares": lambda e: np.float64(e.sum_squares(FLAT)),
    "all_finite": lambda e: np.bool_(e.all_finite(FLAT)),
}


LENGTHS = [1, 300, 17, 2, 380]
EPS = float(np.float32(1e-5))
widths = st.integers(1, 300)


def rows_of(seed: int, n: int, d: int) -> np.ndarray:
    """Rows with a mean and a spread of their own, as a residual stream has."""
    return normal(seed, n, d) * np.exp(normal(seed + 1, n, 1)) + normal(seed + 2, n, 1)


def condition(x: np.ndarray, eps: float) -> np.ndarray:
    """How much a row's normalisation magnifies rounding of its elements: |x|max / standard deviation."""
    return np.abs(wide(x)).max(-1, keepdims=True) / np.sqrt(wide(x).var(-1, keepdims=True) + eps)


@odd_shapes
@given(sizes, widths, seeds)
def test_layernorm_forward(engine: Engine, n: int, d: int, seed: int) -> None:
    x, gamma, beta = rows_of(seed, n, d), normal(seed + 3, d), normal(seed + 4, d)
    out, mean, rstd = engine.layernorm_forward(x, gamma, beta)
    want_mean, want_rstd = reference.layernorm_parts(wide(x), EPS)
    top = np.abs(wide(x)).max(-1)
    assert_close(mean, want_mean, top, 12)
    assert_close(rstd, want_rstd, want_rstd * (1 + condition(x, EPS)[:, 0]), 12)
    scale = (1 + condition(x, EPS)) ** 2 * np.abs(gamma) + np.abs(beta)
    assert_close(out, reference.layernorm(wide(x), wide(gamma), wide(beta), EPS), scale, 16)
    plain, _, _ = engine.layernorm_forward(x)
    assert_close(
        plain, reference.layernorm(wide(x), np.ones(d), np.zeros(d), EPS), (1 + condition(x, EPS)) ** 2, 16
    )


@odd_shapes
@given(sizes, st.integers(2, 300), st.booleans(), seeds)
def test_layernorm_backward(engine: Engine, n: int, d: int, gain: bool, seed: int) -> None:
    x, dout = normal(seed, n, d) + normal(seed + 1, n, 1), normal(seed + 2, n, d)
    gamma = normal(seed + 3, d) if gain else None
    _, mean, rstd = engine.layernorm_forward(x, gamma)
    got = engine.layernorm_backward(dout, x, gamma, mean, rstd)
    G = wide(gamma) if gain else np.ones(d)
    want = reference.layernorm_backward(wide(dout), wide(x), G, EPS)
    hat = reference.layernorm(wide(x), np.ones(d), np.zeros(d), EPS)
    # Rounding of dout * gamma and of the row means, magnified by 1 / standard deviation.
    magnitude = (np.abs(wide(dout) * G).max(-1, keepdims=True) + 1) * (1 + hat**2) * wide(rstd)[:, None]
    assert_close(got[0], want[0], magnitude * (1 + condition(x, EPS)) ** 2, 16)
    assert_close(got[1], want[1], (np.abs(dout) * (1 + np.abs(hat)) * condition(x, EPS)).sum(0) + 1, n + 16)
    assert_close(got[2], want[2], np.abs(wide(dout)).sum(0), n)


def test_layernorm_gradients_are_as_good_as_float32_allows(engine: Engine) -> None:
    x, dout, gamma = normal(1, 400, 768), normal(2, 400, 768), normal(3, 768)
    _, mean, rstd = engine.layernorm_forward(x, gamma)
    got = engine.layernorm_backward(dout, x, gamma, mean, rstd)
    for mine, want in zip(
        got, reference.layernorm_backward(wide(dout), wide(x), wide(gamma), EPS), strict=True
    ):
        assert relative_error(mine, want) < 3e-7


def test_layernorm_backward_adds_and_leaves_out(engine: Engine) -> None:
    x, dout, gamma = normal(1, 150, 40), normal(2, 150, 40), normal(3, 40)
    _, mean, rstd = engine.layernorm_forward(x, gamma)
    fresh = engine.layernorm_backward(dout, x, gamma, mean, rstd)
    before = [normal(4 + i, *g.shape) for i, g in enumerate(fresh)]
    names = ("dx", "dgamma", "dbeta")
    added = engine.layernorm_backward(dout, x, gamma, mean, rstd, **dict(zip(names, before, strict=True)))
    for got, start, gradient in zip(added, before, fresh, strict=True):
        assert_close(got, wide(start) + wide(gradient), 100.0, 1)
    for i, name in enumerate(names):
        others = {other: False for other in names if other != name}
        alone = engine.layernorm_backward(dout, x, gamma, mean, rstd, **others)
        np.testing.assert_array_equal(alone[i], fresh[i])
        assert [g is None for g in alone].count(True) == 2


def test_layernorm_of_a_large_mean_keeps_its_variance(engine: Engine) -> None:
    """E[x^2] - E[x]^2 in float32 would lose all of it."""
    x = normal(1, 5, 768) + np.float32(1000)
    out, _, _ = engine.layernorm_forward(x)
    assert relative_error(out, reference.layernorm(wide(x), np.ones(768), np.zeros(768), EPS)) < 1e-4


@odd_shapes
@given(sizes, widths, seeds)
def test_rmsnorm(engine: Engine, n: int, d: int, seed: int) -> None:
    x, dout, before = rows_of(seed, n, d), normal(seed + 3, n, d), normal(seed + 4, n, d)
    out, rstd = engine.rmsnorm_forward(x)
    want = reference.rmsnorm(wide(x), EPS)
    assert_close(out, want, np.abs(want), 16)
    dx = engine.rmsnorm_backward(dout, x, rstd)
    want_dx = reference.rmsnorm_backward(wide(dout), wide(x), EPS)
    inner = (np.abs(wide(dout)) * np.abs(want)).mean(-1, keepdims=True)
    scale = wide(rstd)[:, None] * (np.abs(dout) + np.abs(want) * inner)
    assert_close(dx, want_dx, scale, 32)
    added = engine.rmsnorm_backward(dout, x, rstd, dx=before)
    assert_close(added, wide(before) + want_dx, np.abs(before) + scale, 33)


@odd_shapes
@given(sizes, widths, seeds)
def test_rmsnorm_with_gain(engine: Engine, n: int, d: int, seed: int) -> None:
    x, dout, gain = rows_of(seed, n, d), normal(seed + 3, n, d), normal(seed + 4, d)
    out, rstd = engine.rmsnorm_forward(x, gain)
    plain, _ = engine.rmsnorm_forward(x)
    np.testing.assert_array_equal(out, plain * gain)  # as Hugging Face: rounded, then times the gain
    dx, dgain = engine.rmsnorm_backward(dout, x, rstd, gain)
    want_dx, want_dgain = reference.rmsnorm_gain_backward(wide(dout), wide(x), wide(gain), EPS)
    norm = np.abs(reference.rmsnorm(wide(x), EPS))
    inner = (np.abs(wide(dout) * gain) * norm).mean(-1, keepdims=True)
    assert_close(dx, want_dx, wide(rstd)[:, None] * (np.abs(wide(dout) * gain) + norm * inner), 32)
    assert_close(dgain, want_dgain, (np.abs(wide(dout)) * norm).sum(0), n + 16)
    alone = engine.rmsnorm_backward(dout, x, rstd, gain, dx=dout, dgain=False)
    assert alone[1] is None
    more = engine.rmsnorm_backward(dout, x, rstd, gain, dgain=gain)[1]
    assert_close(more, wide(gain) + want_dgain, np.abs(gain) + (np.abs(wide(dout)) * norm).sum(0), n + 17)


@odd_shapes
@given(sizes, widths, st.sampled_from([1e-30, 1e-6, 1.0, 1e15, 1e30]), seeds)
def test_l2_normalize(engine: Engine, n: int, d: int, spread: float, seed: int) -> None:
    x, dout, before = normal(seed, n, d, scale=spread), normal(seed + 1, n, d), normal(seed + 2, n, d)
    out, norm = engine.l2_normalize_forward(x)
    want = reference.l2_normalize(wide(x))
    assert_close(out, want, np.abs(want), 16)
    least = np.maximum(np.linalg.norm(wide(x), axis=-1), 1e-12)
    assert_close(norm, least, least, 16)
    dx = engine.l2_normalize_backward(dout, out, norm)
    want_dx = reference.l2_normalize_backward(wide(dout), wide(x))
    scale = (np.abs(dout) + np.abs(want) * np.abs(wide(dout) * want).sum(-1, keepdims=True)) / least[:, None]
    assert_close(dx, want_dx, scale, 48)
    added = engine.l2_normalize_backward(dout, out, norm, dx=before)
    assert_close(added, wide(before) + want_dx, np.abs(before) + scale, 49)


def test_l2_normalize_of_what_is_not_finite(engine: Engine) -> None:
    """As in PyTorch: no row is changed by another one's NaN."""
    x = np.array([[0, 0], [np.inf, 1], [np.nan, 1], [3, 4]], np.float32)
    out, norm = engine.l2_normalize_forward(x)
    want = np.array([[0, 0], [np.nan, 0], [np.nan, np.nan], [0.6, 0.8]], np.float32)
    np.testing.assert_array_equal(out, want)
    np.testing.assert_array_equal(norm, np.array([1e-12, np.inf, np.nan, 5], np.float32))


@odd_shapes
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), widths, seeds)
def test_pools(engine: Engine, lengths: list[int], d: int, seed: int) -> None:
    n, count = sum(lengths), len(lengths)
    x, dout, before = normal(seed, n, d), normal(seed + 1, count, d), normal(seed + 2, n, d)
    size = reference.mean_pool(np.abs(wide(x)), lengths)
    assert_close(engine.mean_pool_forward(x, lengths), reference.mean_pool(wide(x), lengths), size, 16)
    np.testing.assert_array_equal(engine.cls_pool_forward(x, lengths), reference.cls_pool(x, lengths))
    dx = reference.mean_pool_backward(wide(dout), lengths)
    assert_close(engine.mean_pool_backward(dout, lengths), dx, np.abs(dx), 2)
    added = engine.mean_pool_backward(dout, lengths, dx=before)
    assert_close(added, wide(before) + dx, np.abs(before) + np.abs(dx), 3)
    first = reference.cls_pool_backward(dout, lengths).astype(np.float32)
    np.testing.assert_array_equal(engine.cls_pool_backward(dout, lengths), first)
    np.testing.assert_array_equal(engine.cls_pool_backward(dout, lengths, dx=before), before + first)


@pytest.mark.parametrize("lengths", [[1, 2], [4], [3, 0], [4, -1], [[3]], [], [0, 3], [1.0, 2.0]])
def test_lengths_that_do_not_fit(engine: Engine, lengths: list) -> None:
    x = normal(1, 3, 4) if lengths != [1, 2] else normal(1, 4, 4)
    for refused in (
        lambda: engine.mean_pool_forward(x, lengths),
        lambda: engine.cls_pool_forward(x, lengths),
        lambda: engine.attention_forward(x[None], x[None], x[None], 2, bidirectional=True, lengths=lengths),
    ):
        with pytest.raises((ValueError, TypeError), match="lengths"):
            refused()


@odd_shapes
@given(sizes, widths, st.sampled_from([0.1, 1.0, 10.0]), seeds)
def test_softmax(engine: Engine, n: int, d: int, spread: float, seed: int) -> None:
    x, dout, before = normal(seed, n, d, scale=spread), normal(seed + 1, n, d), normal(seed + 2, n, d)
    out = engine.softmax_forward(x)
    want = reference.softmax(wide(x))
    distance = wide(x).max(-1, keepdims=True) - wide(x)
    assert_close(out, want, want * (16 + distance), 1)
    np.testing.assert_allclose(out.sum(-1, dtype=np.float64), 1, rtol=0, atol=1e-6)
    dx = engine.softmax_backward(dout, out)
    want_dx = reference.softmax_backward(wide(dout), wide(x))
    scale = want * (np.abs(dout) + (np.abs(dout) * want).sum(-1, keepdims=True)) * (24 + 2 * distance.max())
    assert_close(dx, want_dx, scale, 1)
    assert_close(
        engine.softmax_backward(dout, out, dx=before), wide(before) + want_dx, np.abs(before) + scale, 2
    )


def test_softmax_of_extreme_rows(engine: Engine) -> None:
    x = np.array([[3e38, -3e38, 3e38], [-3e38, -3e38, -3e38], [0, -200, -90]], np.float32)
    out = engine.softmax_forward(x)
    np.testing.assert_allclose(out[:2], [[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    np.testing.assert_allclose(out[2], [1, 0, np.exp(-90.0)], rtol=1e-5, atol=1e-44)
    masked = np.array([[1.0, -np.inf, 2.0]], np.float32)
    np.testing.assert_allclose(engine.softmax_forward(masked), reference.softmax(wide(masked)), rtol=1e-6)


@odd_shapes
@given(st.integers(1, 600), sizes, seeds)
def test_sum_rows(engine: Engine, n: int, d: int, seed: int) -> None:
    x, before = normal(seed, n, d), normal(seed + 1, d)
    magnitude = np.abs(wide(x)).sum(0)
    assert_close(engine.sum_rows(x), wide(x).sum(0), magnitude, n)
    added = engine.sum_rows(x, out=before)
    assert_close(added, wide(before) + wide(x).sum(0), np.abs(before) + magnitude, n + 1)


@odd_shapes
@given(st.integers(0, 5000), seeds)
def test_sums(engine: Engine, n: int, seed: int) -> None:
    x = normal(seed, n)
    assert engine.sum(x) == pytest.approx(wide(x).sum(), abs=1e-6 * np.abs(wide(x)).sum() + 1e-12)
    assert engine.sum_squares(x) == pytest.approx((wide(x) ** 2).sum(), rel=1e-6)
    assert engine.all_finite(x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 16, 33, 100_003])
def test_all_finite_sees_every_place(engine: Engine, bad: float, n: int) -> None:
    x = normal(1, n)
    x[0] = np.finfo(np.float32).max
    assert engine.all_finite(x)
    for place in {0, n // 2, n - 1}:
        spoiled = x.copy()
        spoiled[place] = bad
        assert not engine.all_finite(spoiled)
