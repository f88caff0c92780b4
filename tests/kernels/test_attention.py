"""Attention, causal and of sequences end to end, and the key/value cache against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import Engine, KVCache

from ..reference import ops as reference
from . import large
from .large import DATT, Cases, K, Q, V
from .tolerance import U, normal, odd_shapes, relative_error, seeds, wide

DROP = {"dropout_p": 0.1875, **large.KEY}


LENGTHS = [70, 1, 129, 3, 97]


END_TO_END = [np.ascontiguousarray(x).reshape(1, 300, 60) for x in (Q, K, V)]
FLAT_DATT = DATT.reshape(1, 300, 60)
SEQUENCES = {"bidirectional": True, "lengths": LENGTHS}


KV, DKV = (normal(11, 2, 2, 150, 12), normal(12, 2, 150, 12))
SHARED = {"n_kv_head": 1, "window": 37}


def same_shared(e: Engine) -> object:
    """Five heads of queries that share one of keys and values, and see 37 tokens."""
    kept = [e.attention_forward(Q, *KV, 5, **SHARED, **more) for more in ({}, DROP)]
    return kept, [
        e.attention_backward(DATT, *saved, Q, *KV, 5, into=(Q, DKV, DKV), **SHARED, **more)
        for saved, more in zip(kept, ({}, DROP), strict=True)
    ]


def same_backward(e: Engine) -> object:
    plain = e.attention_backward(DATT, *e.attention_forward(Q, K, V, 4), Q, K, V, 4)
    dropped = e.attention_backward(
        DATT, *e.attention_forward(Q, K, V, 5, **DROP), Q, K, V, 5, into=plain, **DROP
    )
    q, k, v = END_TO_END
    sequences = [
        e.attention_backward(FLAT_DATT, *e.attention_forward(q, k, v, 4, **given), q, k, v, 4, **given)
        for given in (SEQUENCES, SEQUENCES | DROP)
    ]
    return plain, dropped, sequences


def same_cached(e: Engine) -> object:
    cache, shared = KVCache(4, 15, 150), KVCache(1, 12, 150)
    pieces = [slice(0, 70), slice(70, 71), slice(71, 150)]
    k, v = KV[:, 0]
    return [e.attention_cached(cache, Q[0, s], K[0, s], V[0, s]) for s in pieces] + [
        e.attention_cached(shared, Q[0, s], k[s], v[s], n_head=5, window=37) for s in pieces
    ]


LLAMA3 = ("llama3", 8.0, 1.0, 4.0, 64.0)


def same_rotary_backward(e: Engine) -> object:
    _, cosine, sine = e.rotary_forward(Q, range(150), 4, dims=14)
    return [e.rotary_backward(DATT, cosine, sine, 4, dx=dx) for dx in (None, Q)]


SAME_BITS: Cases = {
    "attention_forward": lambda e: (
        *e.attention_forward(Q, K, V, 4),
        *e.attention_forward(Q, K, V, 1, **DROP),
        *e.attention_forward(Q, K, V, 4, bidirectional=True),
        same_shared(e),
        *e.attention_forward(*END_TO_END, 4, **SEQUENCES),
        *e.attention_forward(*END_TO_END, 1, **SEQUENCES, **DROP),
    ),
    "attention_backward": same_backward,
    "attention_cached": same_cached,
    "rotary_forward": lambda e: [e.rotary_forward(Q, range(150), 5, scaling=s) for s in (None, LLAMA3)],
    "rotary_backward": same_rotary_backward,
}


@odd_shapes
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 40), seeds)
def test_rotary(engine: Engine, batch: int, length: int, n_head: int, half: int, seed: int) -> None:
    spare = seed % 3
    x, dout = (normal(seed + i, batch, length, n_head * (2 * half + spare)) for i in range(2))
    positions = np.random.default_rng(seed).integers(0, 5000, length)
    factors = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64.0,
    }
    for scaling in (None, {"rope_type": "linear", "factor": 4.0}, {"rope_type": "llama3", **factors}):
        given = None if scaling is None else tuple(scaling.values())
        arguments = {"theta": 1e4, "dims": 2 * half, "scaling": given}
        out, cosine, sine = engine.rotary_forward(x, positions, n_head, **arguments)
        size = np.abs(wide(x)).max() + 1e-30
        # NumPy's float32 powers are within an ulp of ours, and so much of an angle
        near = (4 + 2 * positions.max()) * U * size
        np.testing.assert_allclose(
            out, reference.rotary(wide(x), n_head, 1e4, 2 * half, positions, scaling), rtol=0, atol=near
        )
        np.testing.assert_allclose(cosine**2 + sine**2, 1, rtol=8 * U)
        dx = engine.rotary_backward(dout, cosine, sine, n_head)
        back = reference.rotary_backward(wide(dout), n_head, 1e4, 2 * half, positions, scaling)
        near = (4 + 2 * positions.max()) * U * (np.abs(dout).max() + 1e-30)
        np.testing.assert_allclose(dx, back, rtol=0, atol=near)
        np.testing.assert_array_equal(engine.rotary_backward(dout, cosine, sine, n_head, dx=x), x + dx)


def test_rotary_at_position_0_changes_nothing(engine: Engine) -> None:
    x = normal(1, 3, 64)
    np.testing.assert_array_equal(engine.rotary_forward(x, [0, 0, 0], 4)[0], x)


@pytest.mark.parametrize(
    ("positions", "n_head", "options", "message"),
    [
        ([0], 5, {}, "n_head 5"),
        ([0, 1], 4, {}, "positions do not fit"),
        ([-1], 4, {}, "positions holds"),
        ([0], 4, {"dims": 3}, "odd"),
        ([0], 4, {"dims": 18}, "more than the 16"),
        ([0], 4, {"scaling": ("yarn", 2.0)}, "yarn"),
    ],
)
def test_rotary_refuses(
    engine: Engine, positions: list[int], n_head: int, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        engine.rotary_forward(normal(1, 3, 64), positions, n_head, **options)


batches = st.integers(1, 3)
lengths = st.integers(1, 90)
heads = st.integers(1, 4)
head_widths = st.integers(1, 33)


def qkv(seed: int, B: int, T: int, D: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interleaved [q | k | v] per token, as one c_attn product leaves them."""
    whole = normal(seed, B, T, 3 * D)
    return whole[..., :D], whole[..., D : 2 * D], whole[..., 2 * D :]


@odd_shapes
@given(batches, lengths, heads, head_widths, st.booleans(), seeds)
def test_forward(engine: Engine, B: int, T: int, H: int, dh: int, interleaved: bool, seed: int) -> None:
    q, k, v = qkv(seed, B, T, H * dh)
    if not interleaved:
        q, k, v = q.copy(), k.copy(), v.copy()
    out, row_max, row_sum = engine.attention_forward(q, k, v, H)
    want = reference.attention(wide(q), wide(k), wide(v), H)
    # Weights sum to 1, so errors are relative to the largest value.
    np.testing.assert_allclose(out, want, rtol=0, atol=2e-6 * np.abs(v).max())
    assert relative_error(out, want) < 1e-6
    assert row_max.shape == row_sum.shape == (B, H, T)
    # The largest weight is exp of about 0: of a score's rounding.
    assert np.all(row_sum >= 1 - 4 * U * (1 + np.abs(row_max)))
    assert np.all(row_sum <= np.arange(1, T + 1) * (1 + 4 * U * (1 + np.abs(row_max))) * (1 + T * U))


@odd_shapes
@given(batches, lengths, heads, head_widths, st.booleans(), seeds)
def test_backward(engine: Engine, B: int, T: int, H: int, dh: int, interleaved: bool, seed: int) -> None:
    q, k, v = qkv(seed, B, T, H * dh)
    if not interleaved:
        q, k, v = q.copy(), k.copy(), v.copy()
    dout = normal(seed + 1, B, T, H * dh)
    saved = engine.attention_forward(q, k, v, H)
    got = engine.attention_backward(dout, *saved, q, k, v, H)
    want = reference.attention_backward(wide(dout), wide(q), wide(k), wide(v), H)
    for mine, theirs in zip(got, want, strict=True):
        assert np.linalg.norm(mine - theirs) <= 2e-6 * np.linalg.norm(theirs) + 1e-6 * np.sqrt(theirs.size)


def test_gradients_are_as_good_as_float32_allows(engine: Engine) -> None:
    q, k, v = qkv(1, 2, 200, 96)
    dout = normal(2, 2, 200, 96)
    saved = engine.attention_forward(q, k, v, 6)
    want = reference.attention_backward(wide(dout), wide(q), wide(k), wide(v), 6)
    for mine, theirs in zip(engine.attention_backward(dout, *saved, q, k, v, 6), want, strict=True):
        assert relative_error(mine, theirs) < 5e-7


def test_backward_adds(engine: Engine) -> None:
    q, k, v = qkv(1, 2, 70, 24)
    dout = normal(2, 2, 70, 24)
    saved = engine.attention_forward(q, k, v, 3)
    fresh = engine.attention_backward(dout, *saved, q, k, v, 3)
    before = [normal(3 + i, 2, 70, 24) for i in range(3)]
    for got, start, gradient in zip(
        engine.attention_backward(dout, *saved, q, k, v, 3, into=before), before, fresh, strict=True
    ):
        np.testing.assert_allclose(
            got, wide(start) + wide(gradient), rtol=0, atol=2e-6 * np.abs(gradient).max()
        )


def test_no_token_sees_a_later_one(engine: Engine) -> None:
    q, k, v = (x.copy() for x in qkv(1, 1, 80, 32))
    out, _, _ = engine.attention_forward(q, k, v, 2)
    for changed in (q, k, v):
        changed[:, 50:] = np.float32(1e6)
    other, _, _ = engine.attention_forward(q, k, v, 2)
    np.testing.assert_array_equal(other[:, :50], out[:, :50])
    dout = normal(3, 1, 80, 32)
    dout[:, :50] = 0  # what later tokens learn changes no gradient through earlier queries
    saved = engine.attention_forward(q, k, v, 2)
    dq, _, _ = engine.attention_backward(dout, *saved, q, k, v, 2)
    np.testing.assert_array_equal(dq[:, :50], 0)


def test_large_scores_do_not_overflow(engine: Engine) -> None:
    q, k, v = qkv(1, 1, 40, 16)
    out, _, _ = engine.attention_forward(q * np.float32(100), k * np.float32(100), v.copy(), 2)
    want = reference.attention(wide(q) * 100, wide(k) * 100, wide(v), 2)
    np.testing.assert_allclose(out, want, atol=2e-3)


# -- every token to all of its sequence


sequences = st.lists(st.integers(1, 140), min_size=1, max_size=5)


@odd_shapes
@given(sequences, heads, head_widths, seeds)
def test_bidirectional(engine: Engine, lengths: list[int], H: int, dh: int, seed: int) -> None:
    n, D = sum(lengths), H * dh
    q, k, v = qkv(seed, 1, n, D)
    dout = normal(seed + 1, 1, n, D)
    given = {"bidirectional": True, "lengths": lengths}
    saved = engine.attention_forward(q, k, v, H, **given)
    want = reference.bidirectional_attention(*(wide(x)[0] for x in (q, k, v)), H, lengths=lengths)
    np.testing.assert_allclose(saved[0][0], want, rtol=0, atol=2e-6 * np.abs(v).max())
    assert saved[1].size == saved[2].size == n * H
    got = engine.attention_backward(dout, *saved, q, k, v, H, **given)
    wants = reference.bidirectional_attention_backward(*(wide(x)[0] for x in (dout, q, k, v)), H, lengths)
    for mine, theirs in zip(got, wants, strict=True):
        assert np.linalg.norm(mine[0] - theirs) <= 2e-6 * np.linalg.norm(theirs) + 1e-6 * np.sqrt(theirs.size)
    before = [normal(seed + 2 + i, 1, n, D) for i in range(3)]
    added = engine.attention_backward(dout, *saved, q, k, v, H, into=before, **given)
    for mine, start, gradient in zip(added, before, got, strict=True):
        np.testing.assert_array_equal(mine, start + gradient)


@odd_shapes
@given(sequences, heads, head_widths, seeds)
def test_a_sequence_alone_and_among_others(
    engine: Engine, lengths: list[int], H: int, dh: int, seed: int
) -> None:
    """The same bits, forward and backward; what other sequences hold, NaN even, does not matter."""
    n, D = sum(lengths), H * dh
    q, k, v = qkv(seed, 1, n, D)
    dout = normal(seed + 1, 1, n, D)
    given = {"bidirectional": True, "lengths": lengths}
    chosen = seed % len(lengths)
    rows = slice(sum(lengths[:chosen]), sum(lengths[: chosen + 1]))
    others = np.ones(n, bool)
    others[rows] = False
    q, k, v = (x.copy() for x in (q, k, v))
    v[:, others] = np.nan
    k[:, others] = np.inf
    saved = engine.attention_forward(q, k, v, H, **given)
    gradients = engine.attention_backward(dout, *saved, q, k, v, H, **given)
    one = [x[:, rows] for x in (q, k, v)]
    alone = engine.attention_forward(*one, H, bidirectional=True)
    np.testing.assert_array_equal(saved[0][:, rows], alone[0])
    back = engine.attention_backward(dout[:, rows], *alone, *one, H, bidirectional=True)
    for whole, part in zip(gradients, back, strict=True):
        np.testing.assert_array_equal(whole[:, rows], part)


def test_sequences_of_one_length_are_a_batch(engine: Engine) -> None:
    q, k, v = (np.ascontiguousarray(x) for x in (Q, K, V))
    flat = [x.reshape(1, 300, 60) for x in (q, k, v)]
    for dropped in ({}, DROP):
        batch = engine.attention_forward(q, k, v, 4, bidirectional=True, **dropped)
        end_to_end = engine.attention_forward(*flat, 4, bidirectional=True, lengths=[150, 150], **dropped)
        for one, other in zip(batch, end_to_end, strict=True):
            np.testing.assert_array_equal(one.reshape(-1), other.reshape(-1))


def test_dropout_of_sequences(engine: Engine) -> None:
    """A sequence's mask is llm_dropout's over (n_head,T,T), one sequence's after the other's."""
    lengths, H, n = [5, 1, 37], 2, 43
    given = {"bidirectional": True, "lengths": lengths, "dropout_p": 0.25, **large.KEY}
    widest = max(lengths)
    flat = np.zeros((1, n, H * widest), np.float32)  # equal scores: every weight is 1 / T
    rows = [np.eye(T, widest, dtype=np.float32) for T in lengths]
    values = np.tile(np.concatenate(rows), (1, H))[None]
    out, _, _ = engine.attention_forward(flat, flat, values, H, **given)
    first = row = 0
    for T in lengths:
        plain = engine.dropout(np.ones((H, T, T), np.float32), 0.25, first=first, **large.KEY)
        mine = out[0, row : row + T].reshape(T, H, widest).swapaxes(0, 1)[..., :T]
        np.testing.assert_allclose(mine * T, plain, rtol=1e-5)
        first, row = first + H * T * T, row + T


@odd_shapes
@given(batches, st.integers(1, 50), heads, st.integers(1, 20), seeds)
def test_bidirectional_dropout(engine: Engine, B: int, T: int, H: int, dh: int, seed: int) -> None:
    q, k, v = qkv(seed, B, T, H * dh)
    dout = normal(seed + 1, B, T, H * dh)
    keep = wide(engine.dropout(np.ones((B, H, T, T), np.float32), 0.25, **large.KEY))
    given = {"bidirectional": True, "dropout_p": 0.25, **large.KEY}
    saved = engine.attention_forward(q, k, v, H, **given)
    want = reference.attention(wide(q), wide(k), wide(v), H, keep, causal=False)
    np.testing.assert_allclose(saved[0], want, rtol=0, atol=4e-6 * np.abs(v).max())
    got = engine.attention_backward(dout, *saved, q, k, v, H, **given)
    wants = reference.attention_backward(wide(dout), wide(q), wide(k), wide(v), H, keep, causal=False)
    for mine, theirs in zip(got, wants, strict=True):
        assert np.linalg.norm(mine - theirs) <= 2e-6 * np.linalg.norm(theirs) + 2e-6 * np.sqrt(theirs.size)


# -- dropout of the weights


def dropout_mask(engine: Engine, B: int, T: int, H: int, key: dict[str, object]) -> np.ndarray:
    """What multiplies each weight. Values are unit vectors, so that an output row is the row of weights."""
    flat = np.zeros((B, T, H * T), np.float32)  # equal scores: every weight of row i is 1 / (i + 1)
    eye = np.broadcast_to(np.tile(np.eye(T, dtype=np.float32), (1, H)), (B, T, H * T))
    out, _, _ = engine.attention_forward(flat, flat, eye, H, **key)
    weights = out.reshape(B, T, H, T).swapaxes(1, 2)
    return weights * np.arange(1, T + 1)[:, None]


KEY = {"dropout_p": 0.25, "seed": 11, "step": 3, "site": "h.0.attn.attn_dropout"}


def test_dropout_statistics(engine: Engine) -> None:
    B, T, H = 2, 64, 3
    mask = dropout_mask(engine, B, T, H, KEY)
    seen = np.broadcast_to(np.tri(T, dtype=bool), mask.shape)
    assert not mask[~seen].any()
    kept = mask[seen] != 0
    np.testing.assert_allclose(mask[seen][kept], 1 / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / kept.size)
    # heads and batches draw their own masks
    assert abs((mask[0, 0] == mask[0, 1])[np.tri(T, dtype=bool)].mean() - (0.75**2 + 0.25**2)) < 0.06
    assert abs((mask[0, 0] == mask[1, 0])[np.tri(T, dtype=bool)].mean() - (0.75**2 + 0.25**2)) < 0.06


def test_dropout_weights_are_keyed_like_dropout(engine: Engine) -> None:
    """The weights' mask is llm_dropout's over the logical (B,n_head,T,T) array."""
    B, T, H = 2, 37, 2
    key = {"seed": 11, "step": 3, "site": KEY["site"], "first": 1000}
    plain = engine.dropout(np.ones((B, H, T, T), np.float32), 0.25, **key)
    got = dropout_mask(engine, B, T, H, key | {"dropout_p": 0.25})
    np.testing.assert_array_equal(got != 0, (plain != 0) & np.tri(T, dtype=bool))


@odd_shapes
@given(batches, st.integers(1, 50), heads, st.integers(1, 20), seeds)
def test_dropout_forward_and_backward(engine: Engine, B: int, T: int, H: int, dh: int, seed: int) -> None:
    q, k, v = qkv(seed, B, T, H * dh)
    dout = normal(seed + 1, B, T, H * dh)
    key = {"seed": 11, "step": 3, "site": KEY["site"]}
    keep = wide(engine.dropout(np.ones((B, H, T, T), np.float32), 0.25, **key))
    saved = engine.attention_forward(q, k, v, H, **KEY)
    want = reference.attention(wide(q), wide(k), wide(v), H, keep)
    np.testing.assert_allclose(saved[0], want, rtol=0, atol=4e-6 * np.abs(v).max())
    got = engine.attention_backward(dout, *saved, q, k, v, H, **KEY)
    wants = reference.attention_backward(wide(dout), wide(q), wide(k), wide(v), H, keep)
    for mine, theirs in zip(got, wants, strict=True):
        assert np.linalg.norm(mine - theirs) <= 2e-6 * np.linalg.norm(theirs) + 2e-6 * np.sqrt(theirs.size)


# -- key/value cache


@odd_shapes
@given(st.lists(st.integers(1, 70), min_size=1, max_size=6), heads, head_widths, st.booleans(), seeds)
def test_cache_gives_the_full_forward_bit_for_bit(
    engine: Engine, pieces: list[int], H: int, dh: int, interleaved: bool, seed: int
) -> None:
    T, D = sum(pieces), H * dh
    q, k, v = qkv(seed, 1, T, D)
    full, _, _ = engine.attention_forward(q, k, v, H)
    if not interleaved:
        q, k, v = q.copy(), k.copy(), v.copy()
    cache = KVCache(H, dh, T)
    outs, start = [], 0
    for length in pieces:
        rows = slice(start, start + length)
        outs.append(engine.attention_cached(cache, q[0, rows], k[0, rows], v[0, rows]))
        start += length
    np.testing.assert_array_equal(np.concatenate(outs), full[0])
    assert cache.length == T


def test_cache_token_by_token_over_several_tiles(engine: Engine) -> None:
    q, k, v = qkv(3, 1, 300, 64)
    full, _, _ = engine.attention_forward(q, k, v, 4)
    cache = KVCache(4, 16, 300)
    for t in range(300):
        row = engine.attention_cached(cache, q[0, t : t + 1], k[0, t : t + 1], v[0, t : t + 1])
        np.testing.assert_array_equal(row[0], full[0, t])


def test_cache_can_go_back(engine: Engine) -> None:
    q, k, v = qkv(4, 1, 120, 32)
    cache = KVCache(2, 16, 128)
    garbage = normal(5, 128, 32)
    engine.attention_cached(cache, q[0, :40], k[0, :40], v[0, :40])
    engine.attention_cached(cache, garbage[:80], garbage[:80], garbage[:80])
    got = engine.attention_cached(cache, q[0, 40:], k[0, 40:], v[0, 40:], past=40)
    full, _, _ = engine.attention_forward(q, k, v, 2)
    np.testing.assert_array_equal(got, full[0, 40:])
    engine.attention_cached(cache, garbage[:128], garbage[:128], garbage[:128], past=0)
    again = engine.attention_cached(cache, q[0, :33], k[0, :33], v[0, :33], past=0)
    np.testing.assert_array_equal(again, full[0, :33])


def test_cache_takes_about_what_it_holds() -> None:
    cache = KVCache(12, 64, 1024)
    assert 2 * 12 * 64 * 1024 * 4 <= cache.nbytes <= 2.2 * 12 * 64 * 1024 * 4


def test_cache_refuses_what_does_not_fit(engine: Engine) -> None:
    cache = KVCache(2, 8, 10)
    x = normal(1, 11, 16)
    with pytest.raises(ValueError, match="capacity 10"):
        engine.attention_cached(cache, x, x, x)
    with pytest.raises(ValueError, match="past 1 is outside"):
        engine.attention_cached(cache, x[:1], x[:1], x[:1], past=1)
    with pytest.raises(ValueError, match="expected"):
        engine.attention_cached(cache, x[:2, :8], x[:2, :8], x[:2, :8])
    with pytest.raises(ValueError, match="positive"):
        KVCache(0, 8, 10)
    with pytest.raises(MemoryError):
        KVCache(2**20, 2**20, 2**20)
    assert cache.length == 0
