"""Weights as bf16, int8 and int4: how they are rounded, and that nothing but the numbers decides a result."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pytest

from llm_sql.kernels import Engine, PackedWeights

from .large import Cases, W, X
from .tolerance import normal

SAME_BITS: Cases = {
    "pack": lambda e: [np.frombuffer(e.pack(W, p).tobytes(), np.uint8) for p in ("bf16", "int8", "int4")],
    "packed_forward": lambda e: [e.packed_forward(X, e.pack(W, p), W[0]) for p in ("bf16", "int8", "int4")],
}


Precision = Literal["bf16", "int8", "int4"]
Floats = npt.NDArray[np.float32]
BLOCK = 128

pytestmark = pytest.mark.filterwarnings("error")


def round_bf16(w: Floats) -> Floats:
    """To the nearest number with 8 significant bits, ties to the even one."""
    mantissa, exponent = np.frexp(w.astype(np.float64))
    return np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(np.float32)


def round_int8(w: Floats) -> npt.NDArray[np.float64]:
    """Each column and block of inputs in steps of its largest weight / 127."""
    rounded = np.zeros(w.shape)
    for k in range(0, w.shape[0], BLOCK):
        block = w[k : k + BLOCK]
        scale = np.abs(block).max(axis=0) / np.float32(127)
        steps = np.round(block / np.where(scale == 0, np.float32(1), scale))
        rounded[k : k + BLOCK] = steps * scale.astype(np.float64)
    return rounded


def pack_both(engine: Engine, w: Floats, precision: Precision) -> list[PackedWeights]:
    """From (i,o) and from (o,i)."""
    return [
        engine.pack(w, precision),
        engine.pack(np.ascontiguousarray(w.T), precision, transposed=True),
    ]


SHAPES = [(1, 1), (3, 5), (127, 64), (128, 65), (129, 63), (300, 200), (0, 7), (768, 130)]
ROWS = (1, 2, 5, 6, 7, 13, 70)


@pytest.mark.parametrize(("i", "o"), SHAPES)
def test_bf16_is_the_product_with_rounded_weights(i: int, o: int, engine: Engine) -> None:
    w, b = normal(1, i, o), normal(2, o)
    for n in ROWS:
        x = normal(3, n, i)
        want = engine.linear_forward(x, round_bf16(w), b)
        for packed in pack_both(engine, w, "bf16"):
            np.testing.assert_array_equal(engine.packed_forward(x, packed, b), want)


@pytest.mark.parametrize(("i", "o"), SHAPES)
def test_int8_is_the_product_with_stepped_weights(i: int, o: int, engine: Engine) -> None:
    w, b = normal(1, i, o), normal(2, o)
    w[:, : o // 3] *= 100  # columns do not share a scale
    if i > BLOCK:
        w[BLOCK:] *= 1000  # nor do blocks
    for n in ROWS:
        x = normal(3, n, i)
        want = x.astype(np.float64) @ round_int8(w) + b
        bound = 1e-5 * (np.abs(x).astype(np.float64) @ np.abs(w) + np.abs(b))
        for packed in pack_both(engine, w, "int8"):
            assert np.all(np.abs(engine.packed_forward(x, packed, b) - want) <= bound)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_same_bits_everywhere(precision: Precision, every_engine: list[Engine]) -> None:
    """Every instruction set and number of threads, and each row alone as among the others."""
    w, b = normal(4, 300, 777), normal(5, 777)
    x = normal(6, 67, 300)
    want = every_engine[0].packed_forward(x, every_engine[0].pack(w, precision), b)
    written = every_engine[0].pack(w, precision).tobytes()
    for engine in every_engine:
        for packed in pack_both(engine, w, precision):
            assert packed.tobytes() == written
            np.testing.assert_array_equal(engine.packed_forward(x, packed, b), want)
            for rows in (slice(0, 1), slice(66, 67), slice(3, 5), slice(7, 15)):
                np.testing.assert_array_equal(engine.packed_forward(x[rows], packed, b), want[rows])


@pytest.mark.parametrize("precision", get_args(Precision))
def test_extremes(precision: Precision, every_engine: list[Engine]) -> None:
    """Zeros, ties, the largest and the smallest numbers stay finite and what they were."""
    largest = np.float32(1e5) if precision == "int4" else np.finfo(np.float32).max
    w = np.zeros((130, 70), dtype=np.float32)
    w[0] = [largest, -largest, 1e-44, -1e-44, 0.0, -0.0, 1.00390625] * 10
    w[1] = 0.001953125
    x = np.zeros((2, 130), dtype=np.float32)
    x[:, 0] = 1
    want = every_engine[0].packed_forward(x, every_engine[0].pack(w, precision))
    assert np.isfinite(want).all()
    np.testing.assert_allclose(
        want[0, [0, 1, 6]], w[0, [0, 1, 6]], rtol=2**-8 if precision != "int4" else 0.5
    )
    np.testing.assert_array_equal(want[0, [4, 5]], 0)
    for engine in every_engine:
        np.testing.assert_array_equal(engine.packed_forward(x, engine.pack(w, precision)), want)


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize(("i", "o"), [(300, 777), (1, 1), (0, 7)])
def test_a_file_of_one_packing_is_read_in_place(
    precision: Precision, i: int, o: int, tmp_path: Path, every_engine: list[Engine]
) -> None:
    """A view of a read-only mapping has the bits of what was written, and keeps the mapping."""
    w, x = normal(4, i, o), normal(6, 67, i)
    packed = every_engine[0].pack(w, precision)
    want = every_engine[0].packed_forward(x, packed)
    (tmp_path / "packed").write_bytes(bytes(4096) + packed.tobytes())
    file = np.memmap(tmp_path / "packed", np.uint8, "r")[4096:]
    view = PackedWeights.view(file, i, o, precision)
    del file
    gc.collect()
    assert (view.inputs, view.outputs, view.precision) == (i, o, precision)
    assert view.tobytes() == packed.tobytes()
    for engine in every_engine:
        np.testing.assert_array_equal(engine.packed_forward(x, view), want)
        np.testing.assert_array_equal(engine.packed_forward(x[5:6], view), want[5:6])


def test_bytes_that_are_no_such_weights_are_refused(engine: Engine) -> None:
    data = np.zeros(2 * 64 * 100 + 128, np.uint8)
    data = data[-data.ctypes.data % 64 :]
    assert PackedWeights.view(data[: 64 * 200], 100, 64, "bf16").nbytes == 64 * 200
    with pytest.raises(
        ValueError, match=r"12799 bytes are not bf16 weights of \(100, 64\), which take 12800"
    ):
        PackedWeights.view(data[: 64 * 200 - 1], 100, 64, "bf16")
    with pytest.raises(ValueError, match="12800 bytes are not bf16 weights"):
        PackedWeights.view(data[: 64 * 200], 2**62, 2**62, "bf16")
    with pytest.raises(ValueError, match="multiple of 64"):
        PackedWeights.view(data[32 : 32 + 64 * 200], 100, 64, "bf16")
    with pytest.raises(ValueError, match="expected 'bf16', 'int8' or 'int4'"):
        PackedWeights.view(data, 100, 64, "float32")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no weights"):
        PackedWeights().tobytes()


def test_memory(engine: Engine) -> None:
    w = normal(1, 768, 3072)
    assert engine.pack(w, "bf16").nbytes == w.nbytes / 2
    assert engine.pack(w, "int8").nbytes == w.nbytes / 4 + 6 * 3072 * 4
    assert engine.pack(w, "int4").nbytes == w.nbytes / 8 + 24 * 3072 * 4


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    w = normal(1, 4, 3)
    with pytest.raises(ValueError, match="not finite"):
        engine.pack(np.full((2, 2), np.nan, dtype=np.float32), "bf16")
    with pytest.raises(ValueError, match="expected 'bf16', 'int8' or 'int4'"):
        engine.pack(w, "float32")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not fit"):
        engine.packed_forward(w, engine.pack(w, "int8"))
