"""Weights in 4 bits: blocks that a file holds so are found in their numbers, others are rounded well."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import Engine, PackedWeights

from .tolerance import normal

Floats = npt.NDArray[np.float32]
BLOCK = 32
LEAST_HALF = 2.0**-24


def blocks_of(i: int) -> range:
    return range(0, i, BLOCK)


def dequantised(q: npt.NDArray[np.integer], d: npt.NDArray[np.float16], m: npt.NDArray[np.float16]) -> Floats:
    """q (i,o) with a scale and a minimum (blocks,o), as GGUF's readers compute Q4_1."""
    at = np.arange(q.shape[0]) // BLOCK
    return q.astype(np.float32) * d.astype(np.float32)[at] + m.astype(np.float32)[at]


def read(packed: PackedWeights) -> Floats:
    """The weights that packed bytes stand for, as engine/quantized.h describes them."""
    i, o = packed.inputs, packed.outputs
    data, at = packed.tobytes(), 0
    w = np.zeros((i, -(-o // 64) * 64), np.float32)
    for panel in range(0, o, 64):
        for k in blocks_of(i):
            n = min(BLOCK, i - k)
            d, m = np.frombuffer(data, np.float16, 128, at).reshape(2, 64).astype(np.float32)
            pairs = np.frombuffer(data, np.uint32, (n + 1) // 2 * 16, at + 256).reshape(-1, 16)
            q = pairs[:, None] >> (4 * np.arange(8, dtype=np.uint32))[:, None] & 15  # (pairs, 8, 16)
            w[k : k + n, panel : panel + 64] = (q.reshape(-1, 64).astype(np.float32) * d + m)[:n]
            at += 256 + pairs.nbytes
    assert at == len(data)
    return w[:, :o]


def q4_1(w: Floats) -> Floats:
    """What Q4_1's own quantiser would make of them."""
    out = np.zeros_like(w)
    for k in blocks_of(w.shape[0]):
        block = w[k : k + BLOCK]
        low, step = block.min(0), (block.max(0) - block.min(0)) / np.float32(15)
        q = np.minimum(15, np.floor((block - low) / np.where(step == 0, 1, step) + np.float32(0.5)))
        out[k : k + BLOCK] = dequantised(
            q.astype(np.int64), step.astype(np.float16)[None], low.astype(np.float16)[None]
        )
    return out


@pytest.mark.parametrize(("i", "o"), [(1, 1), (31, 5), (32, 64), (33, 65), (128, 3), (161, 130), (576, 200)])
def test_blocks_come_out_as_they_went_in(i: int, o: int, every_engine: list[Engine]) -> None:
    """Of any scale and minimum, every q or few of them, tails too; products are float32's, to the bit."""
    rng = np.random.default_rng(i * 1000 + o)
    shape = (len(blocks_of(i)), o)
    d = np.exp(rng.uniform(np.log(1e-6), np.log(10), shape)).astype(np.float16)
    m = (-d.astype(np.float32) * rng.uniform(-20, 20, shape)).astype(np.float16)
    w = dequantised(np.minimum(15, rng.integers(0, rng.integers(1, 17, o), (i, o))), d, m)
    x, b = normal(3, 9, i), normal(4, o)
    for engine in every_engine:
        packed = engine.pack(w, "int4")
        np.testing.assert_array_equal(read(packed), w)
        want = engine.linear_forward(x, w, b)
        np.testing.assert_array_equal(engine.packed_forward(x, packed, b), want)
        np.testing.assert_array_equal(engine.packed_forward(x[:1], packed, b), want[:1])


halves = st.integers(0, 0x7BFF).map(lambda bits: np.uint16(bits).view(np.float16))


@given(
    d=halves, m=halves, sign=st.sampled_from([-1, 1]), q=st.lists(st.integers(0, 15), min_size=1, max_size=32)
)
def test_any_block_is_recovered(
    d: np.float16, m: np.float16, sign: int, q: list[int], engine: Engine
) -> None:
    """Denormal scales and constants too. Only where rounding to float32 eats the steps may they be lost."""
    m = np.float16(sign * m)
    w = dequantised(np.array(q)[:, None], np.array([[d]]), np.array([[m]]))
    got = read(engine.pack(w, "int4"))
    if np.abs(m) > 2.0**16 * np.float32(d) > 0:
        np.testing.assert_allclose(got, w, rtol=1e-3, atol=16 * float(d))
    else:
        np.testing.assert_array_equal(got, w)


def test_products_of_rounded_weights(engine: Engine) -> None:
    """A product is that of what the bytes stand for: float32's to the bit, close to float64's."""
    for i, o in ((33, 5), (300, 200), (768, 130), (0, 7)):
        w, b = normal(1, i, o), normal(2, o)
        packed = engine.pack(w, "int4")
        rounded = read(packed)
        for n in (1, 2, 5, 6, 7, 13, 70):
            x = normal(3, n, i)
            got = engine.packed_forward(x, packed, b)
            np.testing.assert_array_equal(got, engine.linear_forward(x, rounded, b))
            want = x.astype(np.float64) @ rounded.astype(np.float64) + b
            bound = 1e-5 * (np.abs(x).astype(np.float64) @ np.abs(rounded) + np.abs(b))
            assert np.all(np.abs(got - want) <= bound)


def test_others_are_rounded_at_least_as_well_as_by_q4_1(engine: Engine) -> None:
    w = normal(1, 576, 130) * np.exp(normal(2, 1, 130))
    w[:, 0] = 1e-5 * normal(3, 576)
    ours, theirs = ((read_ - w) ** 2 for read_ in (read(engine.pack(w, "int4")), q4_1(w)))
    for k in blocks_of(576):
        assert np.all(ours[k : k + BLOCK].sum(0) <= 1.01 * theirs[k : k + BLOCK].sum(0) + 1e-20)
    assert ours.sum() < 0.95 * theirs.sum()


def test_what_is_too_large_is_cut(every_engine: list[Engine]) -> None:
    largest = np.finfo(np.float32).max
    w = np.array([[largest, -largest, 1e-44, 70000], [0, largest, LEAST_HALF, 0]], np.float32)
    want = read(every_engine[0].pack(w, "int4"))
    assert np.isfinite(want).all()
    np.testing.assert_array_equal(np.sign(want[0]), [1, -1, 0, 1])
    assert np.all(np.abs(want[:, 2] - w[:, 2]) <= LEAST_HALF)
    for engine in every_engine:
        np.testing.assert_array_equal(read(engine.pack(w, "int4")), want)


def test_bytes_of_other_sizes_are_refused(engine: Engine) -> None:
    packed = engine.pack(normal(1, 100, 64), "int4")
    data = np.zeros(packed.nbytes + 128, np.uint8)
    data = data[-data.ctypes.data % 64 :]
    data[: packed.nbytes] = np.frombuffer(packed.tobytes(), np.uint8)
    np.testing.assert_array_equal(
        read(PackedWeights.view(data[: packed.nbytes], 100, 64, "int4")), read(packed)
    )
    for n, i in (
        (packed.nbytes - 1, 100),
        (packed.nbytes + 1, 100),
        (packed.nbytes, 101),
        (packed.nbytes, 98),
    ):
        with pytest.raises(ValueError, match="bytes are not int4 weights"):
            PackedWeights.view(data[:n], i, 64, "int4")
