"""Elementwise ops against float64, and what must hold exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import Engine

from ..reference.ops import ACTIVATIONS, gelu, gelu_exact
from .large import FLAT, FLAT2, KEY, WIDE, Cases
from .tolerance import U, assert_close, normal, odd_shapes, seeds, wide

lengths = st.integers(0, 200)


def same_forward(name: str) -> Callable[[Engine], object]:
    return lambda e: [getattr(e, f"{name}_forward")(x) for x in (FLAT, WIDE)]


def same_backward(name: str) -> Callable[[Engine], object]:
    def gradients(e: Engine) -> object:
        backward = getattr(e, f"{name}_backward")
        return backward(FLAT2, FLAT), backward(FLAT2, WIDE), backward(FLAT2, FLAT, dx=FLAT)

    return gradients


SAME_BITS: Cases = {
    "fill": lambda e: e.fill(100_003, 0.125),
    "copy": lambda e: (e.copy(FLAT), e.copy(FLAT, out=FLAT2)),
    "add": lambda e: e.add(FLAT, FLAT2),
    "sub": lambda e: e.sub(FLAT, FLAT2),
    "mul": lambda e: e.mul(FLAT, FLAT2),
    "div": lambda e: e.div(FLAT, FLAT2),
    "neg": lambda e: e.neg(FLAT),
    "scale": lambda e: (e.scale(FLAT, 0.3125), e.scale(FLAT, 0.3125, out=FLAT2)),
    "mul_acc": lambda e: (e.mul_acc(FLAT, FLAT2), e.mul_acc(FLAT, FLAT2, out=FLAT)),
    **{f"{name}_forward": same_forward(name) for name in ACTIVATIONS},
    **{f"{name}_backward": same_backward(name) for name in ACTIVATIONS},
    "swiglu_forward": lambda e: (e.swiglu_forward(FLAT, FLAT2), e.swiglu_forward(WIDE, FLAT)),
    "swiglu_backward": lambda e: (
        *e.swiglu_backward(FLAT2, WIDE, FLAT),
        *e.swiglu_backward(FLAT2, FLAT, FLAT2, dgate=FLAT, dup=WIDE),
    ),
    "dropout": lambda e: (
        e.dropout(FLAT, 0.09375, **KEY),
        e.dropout(FLAT, 0.6875, first=2**40 + 3, out=FLAT2, **KEY),
    ),
}


@odd_shapes
@given(lengths, seeds)
def test_arithmetic_is_correctly_rounded(engine: Engine, n: int, seed: int) -> None:
    a, b = normal(seed, n), normal(seed + 1, n)
    np.testing.assert_array_equal(engine.add(a, b), a + b)
    np.testing.assert_array_equal(engine.sub(a, b), a - b)
    np.testing.assert_array_equal(engine.mul(a, b), a * b)
    np.testing.assert_array_equal(engine.div(a, b), a / b)
    np.testing.assert_array_equal(engine.neg(a), -a)
    np.testing.assert_array_equal(engine.copy(a), a)
    np.testing.assert_array_equal(engine.copy(a, out=b), b + a)
    np.testing.assert_array_equal(engine.scale(a, 0.3), a * np.float32(0.3))
    np.testing.assert_array_equal(engine.mul_acc(a, b), a * b)
    np.testing.assert_array_equal(engine.fill(n, 2.5), np.full(n, 2.5, np.float32))


@odd_shapes
@given(lengths, seeds)
def test_swiglu(engine: Engine, n: int, seed: int) -> None:
    gate, up, dout = 4 * normal(seed, n), normal(seed + 1, n), normal(seed + 2, n)
    out = engine.swiglu_forward(gate, up)
    np.testing.assert_array_equal(out, engine.silu_forward(gate) * up)
    dgate, dup = engine.swiglu_backward(dout, gate, up)
    np.testing.assert_array_equal(dgate, engine.silu_backward(dout * up, gate))
    np.testing.assert_array_equal(dup, dout * engine.silu_forward(gate))
    more = engine.swiglu_backward(dout, gate, up, dgate=gate, dup=up)
    np.testing.assert_array_equal(more[0], gate + dgate)
    np.testing.assert_array_equal(more[1], up + dup)
    assert engine.swiglu_backward(dout, gate, up, dgate=False)[0] is None


@odd_shapes
@given(lengths, seeds)
def test_accumulating_forms(engine: Engine, n: int, seed: int) -> None:
    a, b, out = normal(seed, n), normal(seed + 1, n), normal(seed + 2, n)
    assert_close(engine.mul_acc(a, b, out=out), wide(out) + wide(a) * wide(b), np.abs(out) + np.abs(a * b), 2)
    s = float(np.float32(0.3))
    assert_close(engine.scale(a, s, out=out), wide(out) + s * wide(a), np.abs(out) + np.abs(a), 2)


def test_subnormals_are_kept(engine: Engine) -> None:
    tiny = np.full(40, 1e-40, np.float32)
    np.testing.assert_array_equal(engine.add(tiny, tiny), tiny + tiny)
    np.testing.assert_array_equal(engine.scale(tiny, 0.5), tiny * np.float32(0.5))


# -- activations: all of the reference's table


@pytest.mark.parametrize("name", ACTIVATIONS)
@odd_shapes
@given(lengths, seeds)
def test_activation(engine: Engine, name: str, n: int, seed: int) -> None:
    activation = ACTIVATIONS[name]
    forward, backward = getattr(engine, f"{name}_forward"), getattr(engine, f"{name}_backward")
    x, dout, before = normal(seed, n, scale=3), normal(seed + 1, n), normal(seed + 2, n)
    X, D = wide(x), wide(dout)
    assert_close(forward(x), activation.forward(X), activation.size(X), activation.roundings)
    want, scale = activation.backward(D, X), np.abs(D) * activation.slope(X)
    assert_close(backward(dout, x), want, scale, activation.slope_roundings)
    # What is there already is added to, at the cost of one rounding more.
    added = backward(dout, x, dx=before)
    assert_close(added, wide(before) + want, np.abs(before) + scale, activation.slope_roundings + 1)


def test_gelu_over_its_whole_range(engine: Engine) -> None:
    x = np.concatenate([np.linspace(-12, 12, 40001), np.logspace(-38, 38, 500), -np.logspace(-38, 38, 500)])
    x = x.astype(np.float32)
    got = engine.gelu_forward(x)
    with np.errstate(over="ignore"):
        want = gelu(wide(x))
    assert_close(got, want, np.abs(wide(x)) + 2.0**-126, 6)
    assert np.all(np.isfinite(got))
    assert np.all(got[x > 6] == x[x > 6])
    slope = engine.gelu_backward(np.ones_like(x), x)
    assert np.all(np.isfinite(slope))
    np.testing.assert_array_equal(slope[x > 12], 1)
    np.testing.assert_array_equal(slope[x < -12], 0)


def test_gelu_exact_over_its_whole_range(engine: Engine) -> None:
    """Relative to the result, the tail included, down to where float itself ends."""
    x = np.concatenate([np.linspace(-12.5, 12, 40001), np.logspace(-38, 38, 500), -np.logspace(-38, 1, 500)])
    x = x.astype(np.float32)
    got = engine.gelu_exact_forward(x)
    want = gelu_exact(wide(x))
    assert_close(got, want, np.abs(want) + 2.0**-126, 8)
    assert np.all(got[x > 6] == x[x > 6])
    ends = np.array([np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0, 16.0, -16.0], np.float32)
    np.testing.assert_array_equal(
        engine.gelu_exact_forward(ends), np.array([np.inf, 0, 3e38, 0, 0, 0, 16, 0], np.float32)
    )
    np.testing.assert_array_equal(
        engine.gelu_exact_backward(np.ones_like(ends), ends),
        np.array([1, 0, 1, 0, 0.5, 0.5, 1, 0], np.float32),
    )


@pytest.mark.parametrize("op", [*(f"{name}_forward" for name in ACTIVATIONS), "neg", "copy"])
def test_nan_goes_through(engine: Engine, op: str) -> None:
    x = np.zeros(37, np.float32)
    x[[0, 20, 36]] = np.nan
    np.testing.assert_array_equal(np.isnan(getattr(engine, op)(x)), np.isnan(x))


# -- dropout


def test_dropout_keeps_the_right_share_and_scales(engine: Engine) -> None:
    n = 200_000
    for p in (0.1, 0.5, 0.9):
        out = engine.dropout(np.ones(n, np.float32), p, seed=1, step=2, site="h.0.mlp.dropout")
        kept = out != 0
        np.testing.assert_allclose(out[kept], 1 / (1 - np.float64(np.float32(p))), rtol=2 * U)
        assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / n)
        # neighbours are independent: the share of kept pairs is the square
        pairs = (kept[1:] & kept[:-1]).mean()
        assert abs(pairs - (1 - p) ** 2) < 5 / np.sqrt(n)


def test_dropout_of_nothing_is_the_identity(engine: Engine) -> None:
    x = normal(1, 1001)
    np.testing.assert_array_equal(engine.dropout(x, 0.0, seed=1, step=1, site="a"), x)


def test_dropout_depends_on_each_part_of_its_key(engine: Engine) -> None:
    x = np.ones(4096, np.float32)
    key = {"seed": 3, "step": 4, "site": "a"}
    mask = engine.dropout(x, 0.5, **key) != 0
    np.testing.assert_array_equal(engine.dropout(x, 0.5, **key) != 0, mask)
    for change in (
        {"seed": 5},
        {"step": 5},
        {"site": "b"},
        {"seed": 3 + 2**32},
        {"step": 4 + 2**32},
        {"first": 4096},
    ):
        other = engine.dropout(x, 0.5, **(key | change)) != 0
        assert abs((mask == other).mean() - 0.5) < 0.05, change
    np.testing.assert_array_equal(engine.dropout(x, 0.5, **(key | {"site": 0}), first=0).shape, x.shape)


@odd_shapes
@given(st.integers(0, 90), st.integers(0, 90), st.integers(0, 2**40))
def test_dropout_is_keyed_by_logical_element(engine: Engine, skip: int, n: int, first: int) -> None:
    x = normal(2, skip + n)
    whole = engine.dropout(x, 0.3, seed=9, step=8, site="s", first=first)
    part = engine.dropout(x[skip:], 0.3, seed=9, step=8, site="s", first=first + skip)
    np.testing.assert_array_equal(part, whole[skip:])


def test_dropout_backward_is_the_same_mask(engine: Engine) -> None:
    x, dout, before = normal(1, 500), normal(2, 500), normal(3, 500)
    key = {"seed": 1, "step": 1, "site": "s"}
    kept = engine.dropout(np.ones(500, np.float32), 0.4, **key)
    assert_close(engine.dropout(dout, 0.4, **key), wide(dout) * wide(kept), np.abs(dout) * 2, 1)
    np.testing.assert_array_equal(engine.dropout(x, 0.4, **key) == 0, kept == 0)
    added = engine.dropout(dout, 0.4, **key, out=before)
    assert_close(added, wide(before) + wide(dout) * wide(kept), np.abs(before) + 2 * np.abs(dout), 2)
