"""Attention whose query heads share keys and values, and attention within a window, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import Engine, KVCache

from ..reference import ops as reference
from .tolerance import normal, odd_shapes, seeds, wide

batches = st.integers(1, 3)
head_widths = st.integers(1, 33)
KEY = {"dropout_p": 0.25, "seed": 11, "step": 3, "site": "h.0.attn.attn_dropout"}


def qkv(seed: int, B: int, T: int, D: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interleaved [q | k | v] per token, as one c_attn product leaves them."""
    whole = normal(seed, B, T, 3 * D)
    return whole[..., :D], whole[..., D : 2 * D], whole[..., 2 * D :]


windows = st.sampled_from([0, 1, 2, 16, 31, 32, 33, 64, 127, 128, 129, 200])


@odd_shapes
@given(batches, st.integers(1, 300), st.integers(1, 3), st.integers(1, 3), head_widths, windows, seeds)
def test_shared_heads_and_windows(
    engine: Engine, B: int, T: int, n_kv: int, group: int, dh: int, window: int, seed: int
) -> None:
    """Values, gradients, gradients added up, and through a cache, the bits of the full forward."""
    H = n_kv * group
    q, k, v = normal(seed, B, T, H * dh), normal(seed + 1, B, T, n_kv * dh), normal(seed + 2, B, T, n_kv * dh)
    dout, given = normal(seed + 3, B, T, H * dh), {"n_kv_head": n_kv, "window": window}
    saved = engine.attention_forward(q, k, v, H, **given)
    want = reference.shared_attention(wide(q), wide(k), wide(v), H, **given)
    np.testing.assert_allclose(saved[0], want, rtol=0, atol=2e-6 * np.abs(v).max())
    got = engine.attention_backward(dout, *saved, q, k, v, H, **given)
    wants = reference.shared_attention_backward(wide(dout), wide(q), wide(k), wide(v), H, **given)
    for mine, theirs in zip(got, wants, strict=True):
        assert np.linalg.norm(mine - theirs) <= 2e-6 * np.linalg.norm(theirs) + 1e-6 * np.sqrt(theirs.size)
    before = [normal(seed + 4 + i, *g.shape) for i, g in enumerate(got)]
    added = engine.attention_backward(dout, *saved, q, k, v, H, into=before, **given)
    for mine, start, gradient in zip(added, before, got, strict=True):
        np.testing.assert_allclose(
            mine, wide(start) + gradient, rtol=0, atol=1e-5 * np.abs(gradient).max() + 1e-6
        )
    cache, outs = KVCache(n_kv, dh, T), []
    for rows in (slice(0, T // 3), slice(T // 3, T // 3 + 1), slice(T // 3 + 1, T)):
        outs.append(
            engine.attention_cached(cache, q[0, rows], k[0, rows], v[0, rows], n_head=H, window=window)
        )
    np.testing.assert_array_equal(np.concatenate(outs), saved[0][0])


@pytest.mark.parametrize("window", [5, 40, 128])
def test_what_is_outside_a_window_does_not_matter(engine: Engine, window: int) -> None:
    """NaN and infinity there change no bit of what comes after, forward, backward or from a cache."""
    T, old = 300, 300 - window - 60
    q, k, v = (x.copy() for x in qkv(1, 1, T, 32))
    dout = normal(2, 1, T, 32)
    dout[:, : old + window] = 0  # of queries that see what is about to change
    saved = engine.attention_forward(q, k, v, 2, window=window)
    dq = engine.attention_backward(dout, *saved, q, k, v, 2, window=window)[0]
    k[:, :old], v[:, :old] = np.inf, np.nan
    other = engine.attention_forward(q, k, v, 2, window=window)
    sound = slice(old // 32 * 32 + 32 + window + 16, T)  # no panel of keys that their tile reads holds them
    np.testing.assert_array_equal(other[0][:, sound], saved[0][:, sound])
    assert np.isfinite(dq[:, sound]).all()
    cache = KVCache(2, 16, T)
    rows = [
        engine.attention_cached(cache, q[0, t : t + 1], k[0, t : t + 1], v[0, t : t + 1], window=window)
        for t in range(T)
    ]
    np.testing.assert_array_equal(np.concatenate(rows)[sound], saved[0][0, sound])


@pytest.mark.parametrize("window", [3, 20, 64])
def test_dropout_in_a_window_is_that_of_all(engine: Engine, window: int) -> None:
    """A weight is dropped by its place in (B,n_head,T,T), whatever else is seen."""
    B, T, H, dh = 2, 140, 2, 8
    q, k, v = qkv(3, B, T, H * dh)
    k, v = k[..., :dh].copy(), v[..., :dh].copy()
    dout, given = normal(4, B, T, H * dh), {"n_kv_head": 1, "window": window}
    key = {"seed": 11, "step": 3, "site": KEY["site"]}
    keep = wide(engine.dropout(np.ones((B, H, T, T), np.float32), 0.25, **key))
    saved = engine.attention_forward(q, k, v, H, **given, **KEY)
    own = [reference.repeat_heads(wide(x), H, 1) for x in (k, v)]
    want = reference.attention(wide(q), *own, H, keep, window=window)
    np.testing.assert_allclose(saved[0], want, rtol=0, atol=4e-6 * np.abs(v).max())
    got = engine.attention_backward(dout, *saved, q, k, v, H, **given, **KEY)
    wants = reference.shared_attention_backward(wide(dout), wide(q), wide(k), wide(v), H, 1, window, keep)
    for mine, theirs in zip(got, wants, strict=True):
        assert np.linalg.norm(mine - theirs) <= 2e-6 * np.linalg.norm(theirs) + 2e-6 * np.sqrt(theirs.size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_kv_head": 3}, "n_kv_head 3"),
        ({"n_kv_head": 2}, "expected"),
        ({"window": -1}, "window -1"),
        ({"window": 2, "bidirectional": True}, "window 2"),
    ],
)
def test_shared_heads_refuse(engine: Engine, options: dict, message: str) -> None:
    q, k, v = qkv(1, 1, 5, 16)
    with pytest.raises(ValueError, match=message):
        engine.attention_forward(q, k, v, 4, **options)
