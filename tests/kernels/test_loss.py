"""Cross-entropy, alone and fused with the head, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llm_sql.kernels import Engine, mean_loss

from ..reference import ops as reference
from .large import CLASSES, DOUT, LOGITS, TARGETS, WTE, Cases, X
from .tolerance import assert_close, normal, odd_shapes, relative_error, seeds, sizes, wide


def same_lm_head_loss_backward(e: Engine) -> object:
    _, log_sum = e.lm_head_loss_forward(X, WTE, TARGETS)
    return e.lm_head_loss_backward(X, WTE, log_sum, TARGETS, 0.01171875, dx=DOUT)


def same_cross_entropy_backward(e: Engine) -> object:
    _, log_sum = e.cross_entropy_forward(LOGITS, CLASSES)
    return e.cross_entropy_backward(LOGITS, log_sum, CLASSES, 0.3125, dlogits=DOUT)


SAME_BITS: Cases = {
    "cross_entropy_forward": lambda e: e.cross_entropy_forward(LOGITS, CLASSES),
    "cross_entropy_backward": same_cross_entropy_backward,
    "lm_head_loss_forward": lambda e: e.lm_head_loss_forward(X, WTE, TARGETS),
    "lm_head_loss_backward": same_lm_head_loss_backward,
}


Array = NDArray[np.float32]
vocabularies = st.integers(1, 300)


def targets_of(seed: int, n: int, vocab: int) -> np.ndarray:
    """A quarter of them ignored."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < 0.25, -1, rng.integers(0, vocab, n)).astype(np.int32)


@odd_shapes
@given(sizes, vocabularies, seeds)
def test_cross_entropy(engine: Engine, n: int, vocab: int, seed: int) -> None:
    logits, targets = normal(seed, n, vocab, scale=4), targets_of(seed, n, vocab)
    before = normal(seed + 1, n, vocab)
    losses, log_sum = engine.cross_entropy_forward(logits, targets)
    want, want_sum = reference.cross_entropy(wide(logits), targets)
    top = np.abs(wide(logits)).max(-1) + np.log(vocab) + 1
    assert_close(log_sum[targets >= 0], want_sum[targets >= 0], top[targets >= 0], 8)
    assert_close(losses, want, np.where(targets < 0, 0, top), 10)
    dlogits = engine.cross_entropy_backward(logits, log_sum, targets, 0.125)
    want_d = reference.cross_entropy_backward(wide(logits), targets, 0.125)
    scale = np.where(targets < 0, 0, 0.125)[:, None] * (
        reference.softmax(wide(logits)) + np.equal(targets[:, None], np.arange(vocab))
    )
    assert_close(dlogits, want_d, scale, 60)
    added = engine.cross_entropy_backward(logits, log_sum, targets, 0.125, dlogits=before)
    assert_close(added, wide(before) + want_d, np.abs(before) + scale, 61)


def test_ignored_rows_leave_gradients_alone(engine: Engine) -> None:
    logits, targets = normal(1, 3, 17), np.array([-1, -100, -(2**31)], np.int64)
    losses, log_sum = engine.cross_entropy_forward(logits, targets)
    np.testing.assert_array_equal(losses, 0)
    np.testing.assert_array_equal(
        engine.cross_entropy_backward(logits, log_sum, targets, 1.0), np.zeros_like(logits)
    )
    before = normal(2, 3, 17)
    np.testing.assert_array_equal(
        engine.cross_entropy_backward(logits, log_sum, targets, 1.0, dlogits=before), before
    )
    assert mean_loss(losses, targets) == (0.0, 0)


def test_confident_rows_keep_their_loss(engine: Engine) -> None:
    """A loss near 0 and one near 200 both come from the shifted sum, without overflow."""
    logits = np.zeros((2, 50), np.float32)
    logits[:, 3] = 200
    losses, log_sum = engine.cross_entropy_forward(logits, [3, 4])
    np.testing.assert_allclose(losses, [0, 200], atol=1e-5)
    np.testing.assert_allclose(log_sum, 200, atol=1e-5)


def test_mean_loss_counts_targets() -> None:
    losses = np.array([1.5, 0, 2.5, 8.0], np.float32)
    mean, count = mean_loss(losses, [0, -1, 3, 7])
    assert count == 3
    assert mean == pytest.approx(4.0, rel=1e-12)


def target_last(
    engine: Engine, dlogits: Array, w: Array, targets: NDArray[np.int32], dx: Array | None = None
) -> Array:
    """dlogits @ w (plus dx), each row's target left to the end of its sum."""
    rows = np.flatnonzero(targets >= 0)
    rest = dlogits.copy()
    rest[rows, targets[rows]] = 0
    total = engine.gemm(rest, w, c=dx)
    for row in rows:
        total[row] = engine.scale(w[targets[row]], dlogits[row, targets[row]], out=total[row])
    return total


@odd_shapes
@given(st.integers(1, 150), st.integers(1, 60), vocabularies, seeds)
def test_fused_head(engine: Engine, n: int, d: int, vocab: int, seed: int) -> None:
    x, w, targets = normal(seed, n, d), normal(seed + 1, vocab, d), targets_of(seed, n, vocab)
    logits = engine.gemm(x, w, tb=True)
    losses, log_sum = engine.cross_entropy_forward(logits, targets)
    fused_losses, fused_sum = engine.lm_head_loss_forward(x, w, targets)
    np.testing.assert_array_equal(fused_losses, losses)
    counted = targets >= 0
    np.testing.assert_array_equal(fused_sum[counted], log_sum[counted])
    dlogits = engine.cross_entropy_backward(logits, log_sum, targets, 0.25)
    dx, dw = engine.lm_head_loss_backward(x, w, log_sum, targets, 0.25)
    np.testing.assert_array_equal(dx, target_last(engine, dlogits, w, targets))
    np.testing.assert_array_equal(dw, engine.gemm(dlogits, x, ta=True))
    before_x, before_w = normal(seed + 2, n, d), normal(seed + 3, vocab, d)
    added_x, added_w = engine.lm_head_loss_backward(x, w, log_sum, targets, 0.25, dx=before_x, dw=before_w)
    np.testing.assert_array_equal(added_x, target_last(engine, dlogits, w, targets, before_x))
    np.testing.assert_array_equal(added_w, engine.gemm(dlogits, x, ta=True, c=before_w))
    assert engine.lm_head_loss_backward(x, w, log_sum, targets, 0.25, dx=False)[0] is None


def test_the_heads_dx_keeps_its_digits_over_a_large_vocabulary(engine: Engine) -> None:
    n, d, vocab = 9, 32, 50257
    x, w = normal(1, n, d), normal(2, vocab, d, scale=0.02)
    targets = targets_of(3, n, vocab)
    _, log_sum = engine.lm_head_loss_forward(x, w, targets)
    dx, _ = engine.lm_head_loss_backward(x, w, log_sum, targets, 0.125, dw=False)
    want = reference.cross_entropy_backward(wide(x) @ wide(w).T, targets, 0.125) @ wide(w)
    assert relative_error(dx, want) < 1e-7


def test_fused_head_of_many_rows_against_float64(engine: Engine) -> None:
    n, d, vocab = 700, 48, 1001
    x, w, targets = normal(1, n, d), normal(2, vocab, d, scale=0.3), targets_of(3, n, vocab)
    losses, log_sum = engine.lm_head_loss_forward(x, w, targets)
    logits = wide(x) @ wide(w).T
    want, _ = reference.cross_entropy(logits, targets)
    assert relative_error(losses, want) < 3e-7
    mean, count = mean_loss(losses, targets)
    assert count == (targets >= 0).sum()
    assert mean == pytest.approx(want.sum() / count, rel=1e-6)
    dx, dw = engine.lm_head_loss_backward(x, w, log_sum, targets, 1 / count)
    dlogits = reference.cross_entropy_backward(logits, targets, 1 / count)
    assert relative_error(dx, dlogits @ wide(w)) < 1e-6
    assert relative_error(dw, dlogits.T @ wide(x)) < 1e-6
    np.testing.assert_array_equal(
        losses, engine.cross_entropy_forward(engine.gemm(x, w, tb=True), targets)[0]
    )
