"""AdamW against float64 and PyTorch, and the learning-rate schedules."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import Engine, lr_schedule

from ..reference import ops as reference
from .large import FLAT, FLAT2, Cases
from .tolerance import assert_close, normal, odd_shapes, seeds, wide

SAME_BITS: Cases = {
    "adamw_step": lambda e: e.adamw_step(
        FLAT, FLAT2, np.abs(FLAT2), FLAT2, lr=1e-3, weight_decay=0.1, step=3, grad_scale=0.6875
    )
}


# torch.optim.AdamW 2.13.0 in float32: lr 1e-2, betas (0.9, 0.999), eps 1e-8, weight_decay 0.1.
START = [0.5, -1.25, 2.0, -0.03125, 0.0]
GRADS = [[0.1, -0.2, 3.0, 1e-4, 0.0], [-0.4, 0.05, 2.5, -1e-4, 1e-3], [0.25, 0.3, -1.0, 5e-5, -2e-3]]
TORCH_W = [
    [0.4895000159740448, -1.2387499809265137, 1.9880000352859497, -0.04121775180101395, 0.0],
    [
        0.49460554122924805,
        -1.2328165769577026,
        1.9761003255844116,
        -0.040650270879268646,
        -0.007441262248903513,
    ],
    [
        0.49449530243873596,
        -1.234796404838562,
        1.9682881832122803,
        -0.04235667362809181,
        -0.004290983080863953,
    ],
]
TORCH_M = [-0.0029000001959502697, 0.018300002440810204, 0.3680000305175781, 4.100000296602957e-06]
TORCH_V = [0.0002323200460523367, 0.00013241755368653685, 0.01622575893998146, 2.2470010227482184e-11]


def test_adamw_gives_torchs_numbers(engine: Engine) -> None:
    w = np.array(START, np.float32)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step, grad in enumerate(GRADS, 1):
        w, m, v = engine.adamw_step(
            w,
            m,
            v,
            np.array(grad, np.float32),
            lr=1e-2,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=0.1,
            step=step,
        )
        np.testing.assert_allclose(w, TORCH_W[step - 1], rtol=3e-7, atol=1e-9)
    np.testing.assert_allclose(m[:4], TORCH_M, rtol=1e-6)
    np.testing.assert_allclose(v[:4], TORCH_V, rtol=1e-6)


@odd_shapes
@given(
    st.integers(0, 300),
    st.integers(1, 10_000),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([1.0, 0.25]),
    seeds,
)
def test_adamw(engine: Engine, n: int, step: int, weight_decay: float, grad_scale: float, seed: int) -> None:
    w, grad = normal(seed, n), normal(seed + 1, n)
    m, v = normal(seed + 2, n, scale=0.1), normal(seed + 3, n, scale=0.1) ** 2
    options = {
        "lr": 3e-4,
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "weight_decay": weight_decay,
        "step": step,
    }
    got = engine.adamw_step(w, m, v, grad, grad_scale=grad_scale, **options)
    want = reference.adamw(wide(w), wide(m), wide(v), wide(grad) * grad_scale, **options)
    moved = np.abs(want[0] - wide(w)) + 10 * options["lr"]
    # The decay factor, its product and the difference each round at the size of w.
    assert_close(got[0], want[0], np.abs(wide(w)) * 3 + moved * 8, 1)
    assert_close(got[1], want[1], np.abs(wide(m)) + np.abs(wide(grad)), 3)
    assert_close(got[2], want[2], want[2], 4)


def test_adamw_without_gradient_only_decays(engine: Engine) -> None:
    w = normal(1, 50)
    zero = np.zeros_like(w)
    got, m, v = engine.adamw_step(w, zero, zero, zero, lr=0.1, weight_decay=0.5, step=1)
    assert_close(got, wide(w) * 0.95, np.abs(w), 1.5)
    np.testing.assert_array_equal(m, 0)
    np.testing.assert_array_equal(v, 0)


def test_adamw_leaves_its_arguments_alone(engine: Engine) -> None:
    arrays = [np.abs(normal(i, 20)) for i in range(4)]
    copies = [a.copy() for a in arrays]
    engine.adamw_step(*arrays, lr=0.1, step=1)
    for a, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


def test_adamw_minimises(engine: Engine) -> None:
    w = normal(1, 8)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step in range(1, 301):
        w, m, v = engine.adamw_step(w, m, v, 2 * (w - 3), lr=0.1, weight_decay=0.0, step=step)
    np.testing.assert_allclose(w, 3, atol=0.02)


# -- schedules


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_schedule_edges(kind: str) -> None:
    rates = [lr_schedule(kind, i, 10, 50, 1.0, 0.1) for i in range(1, 51)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-15)
    assert rates[10] == 1.0  # the step after warm-up has progress 0
    assert all(rate > 0 for rate in rates)
    after = rates[10:]
    if kind == "constant":
        assert after == [1.0] * 40
    else:
        assert all(a > b for a, b in itertools.pairwise(after))
        assert after[-1] > 0.1
        assert lr_schedule(kind, 51, 10, 50, 1.0, 0.1) == pytest.approx(0.1, abs=1e-15)
        assert lr_schedule(kind, 1000, 10, 50, 1.0, 0.1) == pytest.approx(0.1, abs=1e-15)


def test_schedule_formulas() -> None:
    for i in range(11, 51):
        progress = (i - 11) / 40
        assert lr_schedule("linear", i, 10, 50, 2.5e-4, 1e-5) == pytest.approx(
            2.5e-4 + (1e-5 - 2.5e-4) * progress, rel=1e-13
        )
        assert lr_schedule("cosine", i, 10, 50, 2.5e-4, 1e-5) == pytest.approx(
            1e-5 + 0.5 * (2.5e-4 - 1e-5) * (1 + math.cos(math.pi * progress)), rel=1e-13
        )


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (1, 1), (0, 2), (5, 5), (20, 5), (0, 10**6)])
def test_no_step_has_rate_zero_by_accident(kind: str, warmup: int, total: int) -> None:
    for i in {1, 2, min(total, 100), total}:
        if i <= total:
            assert 0 < lr_schedule(kind, i, warmup, total, 1e-3) <= 1e-3, i
    assert lr_schedule(kind, 1, 0, total, 1e-3) == 1e-3


def test_schedule_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'step'"):
        lr_schedule("step", 1, 0, 10, 1.0)
    for bad in ((0, 0, 10), (1, -1, 10), (1, 0, 0)):
        with pytest.raises(ValueError, match="expected at least"):
            lr_schedule("cosine", *bad, 1.0)
