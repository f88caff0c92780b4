"""The same bits whatever the instruction set, the threads, the tile height and the rest of the batch.

An op's case stands in SAME_BITS of the module that tests its accuracy.
"""

from __future__ import annotations

import ctypes
import platform
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from llm_sql.kernels import Engine

from .large import DATT, DOUT, GAMMA, KEY, TARGETS, WTE, Cases, K, Q, V, W, X
from .tolerance import normal


def same_bits_cases() -> Cases:
    """SAME_BITS of all test modules here."""
    modules = [
        import_module(f".{path.stem}", __package__)
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
    ]
    return {name: case for module in modules for name, case in getattr(module, "SAME_BITS", {}).items()}


CASES = same_bits_cases()


def bits(result: object) -> bytes:
    if isinstance(result, tuple | list):
        return b"".join(bits(part) for part in result)
    return b"-" if result is None else np.asarray(result).tobytes()


def test_every_op_has_a_case() -> None:
    engine_itself = {"isa", "threads", "set_attention_chunk", "fma_burst"}
    ops = {name for name in dir(Engine) if not name.startswith("_")} - engine_itself
    assert ops == set(CASES)


@pytest.mark.parametrize("op", CASES)
def test_instruction_sets_and_threads(op: str, every_engine: list[Engine]) -> None:
    want = bits(CASES[op](every_engine[0]))
    for engine in every_engine[1:]:
        assert bits(CASES[op](engine)) == want, engine


@pytest.mark.skipif(
    (platform.machine(), platform.libc_ver()[0]) != ("x86_64", "glibc"), reason="glibc, x86-64"
)
@pytest.mark.parametrize("op", CASES)
def test_the_callers_rounding_mode_does_not_matter(op: str, engine: Engine) -> None:
    """A library that changed a thread's floating-point environment changes no result and stays."""
    want = bits(CASES[op](engine))
    upward, libm = 0x800, ctypes.CDLL("libm.so.6")
    before = libm.fegetround()
    libm.fesetround(upward)
    try:
        got = CASES[op](engine)
        mode = libm.fegetround()
    finally:
        libm.fesetround(before)
    assert mode == upward
    assert bits(got) == want


@pytest.mark.parametrize("chunk", [1, 3, 16, 50, 128, 1000])
def test_attention_tiles(chunk: int) -> None:
    usual, other = Engine(), Engine(threads=2, attention_chunk=chunk)
    for op in ("attention_forward", "attention_backward", "attention_cached"):
        assert bits(CASES[op](other)) == bits(CASES[op](usual)), op


@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 31, 33, 48, 64, 127, 129, 500])
def test_widths_around_the_registers(width: int, every_engine: list[Engine]) -> None:
    x, dout = normal(width, 3, width), normal(width + 1, 3, width)

    def everything(e: Engine) -> object:
        layernorm = e.layernorm_forward(x)
        return (
            *layernorm,
            e.layernorm_backward(dout, x, None, *layernorm[1:]),
            e.rmsnorm_forward(x),
            e.softmax_forward(x),
            e.cross_entropy_forward(x, [0, -1, width - 1]),
            e.gelu_forward(x),
            e.dropout(x, 0.5, **KEY),
            e.sum_rows(x),
            e.gemm(x, x, ta=True),
            e.gemm(x, dout, tb=True),
            e.attention_forward(x[None], dout[None], x[None], 1),
            np.float64(e.sum(x)),
        )

    want = bits(everything(every_engine[0]))
    for engine in every_engine[1:]:
        assert bits(everything(engine)) == want, engine


@pytest.mark.parametrize("rows", [1, 2, 5, 37])
def test_rows_do_not_depend_on_the_batch(rows: int, engine: Engine) -> None:
    part = slice(100, 100 + rows)
    pairs = [
        (engine.gemm(X, W)[part], engine.gemm(X[part], W)),
        (engine.gemm(X, WTE, tb=True)[part], engine.gemm(X[part], WTE, tb=True)),
        (engine.linear_forward(X, W, W[0])[part], engine.linear_forward(X[part], W, W[0])),
        (
            engine.linear_backward(DOUT @ W, X, W)[0][part],
            engine.linear_backward((DOUT @ W)[part], X[part], W)[0],
        ),
        (engine.layernorm_forward(X, GAMMA)[0][part], engine.layernorm_forward(X[part], GAMMA)[0]),
        (engine.rmsnorm_forward(X)[0][part], engine.rmsnorm_forward(X[part])[0]),
        (engine.softmax_forward(X)[part], engine.softmax_forward(X[part])),
        (
            engine.lm_head_loss_forward(X, WTE, TARGETS)[0][part],
            engine.lm_head_loss_forward(X[part], WTE, TARGETS[part])[0],
        ),
        (engine.gelu_forward(X)[part], engine.gelu_forward(X[part])),
    ]
    for whole, alone in pairs:
        np.testing.assert_array_equal(whole, alone)


def test_columns_of_a_product_do_not_depend_on_the_others(engine: Engine) -> None:
    whole = engine.gemm(X, W)
    for columns in (slice(0, 1), slice(7, 20), slice(100, 211)):
        np.testing.assert_array_equal(engine.gemm(X, np.ascontiguousarray(W[:, columns])), whole[:, columns])


def test_sequences_do_not_depend_on_the_batch(engine: Engine) -> None:
    both = engine.attention_forward(Q, K, V, 4)
    gradients = engine.attention_backward(DATT, *both, Q, K, V, 4)
    for b in range(2):
        one = slice(b, b + 1)
        alone = engine.attention_forward(Q[one], K[one], V[one], 4)
        for whole, part in zip(both, alone, strict=True):
            np.testing.assert_array_equal(whole[one], part)
        for whole, part in zip(
            gradients, engine.attention_backward(DATT[one], *alone, Q[one], K[one], V[one], 4), strict=True
        ):
            np.testing.assert_array_equal(whole[one], part)


def test_a_longer_sequence_keeps_its_beginning(engine: Engine) -> None:
    whole = engine.attention_forward(Q, K, V, 4)[0]
    for T in (1, 2, 63, 64, 65, 149):
        part = engine.attention_forward(Q[:, :T], K[:, :T], V[:, :T], 4)[0]
        np.testing.assert_array_equal(whole[:, :T], part)


def test_transposed_and_plain_operands_give_the_same_product(engine: Engine) -> None:
    plain = engine.gemm(X, W)
    np.testing.assert_array_equal(engine.gemm(X.T.copy(), W, ta=True), plain)
    np.testing.assert_array_equal(engine.gemm(X, W.T.copy(), tb=True), plain)


def test_repetition(engine: Engine) -> None:
    want = bits(CASES["gemm"](engine))
    assert all(bits(CASES["gemm"](engine)) == want for _ in range(5))
