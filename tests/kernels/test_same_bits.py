"""The same bits whatever the instruction set, the threads, the tile height and the rest of the batch."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable

import numpy as np
import pytest

from llm_sql.kernels import Engine, KVCache

from .tolerance import normal

# Scalar arguments are float32 numbers, so that passing them rounds nothing.
KEY = {"seed": 5, "step": 6, "site": "h.0"}
IDS = np.random.default_rng(1).integers(0, 211, 700)
TARGETS = np.where(np.arange(700) % 7 == 0, -1, IDS)

# Shapes are odd, and large enough that three threads each get work and that each instruction set has full and
# partial tiles.
X = normal(1, 700, 203)
DOUT = normal(2, 700, 203)
FLAT, FLAT2 = normal(3, 100_003, scale=3), normal(4, 100_003)
WIDE = np.float32(3) * FLAT
W = normal(5, 203, 211)
WTE = normal(6, 211, 203)
LOGITS, CLASSES = 10 * X, np.minimum(TARGETS, 202)
DEEP_A, DEEP_B, DEEP_C = normal(11, 40, 2000), normal(12, 2000, 50), normal(13, 40, 50)
DLINEAR = normal(14, 700, 211)
GAMMA, BETA = normal(7, 203), normal(8, 203)
QKV = normal(9, 2, 150, 3 * 60)
Q, K, V = QKV[..., :60], QKV[..., 60:120], QKV[..., 120:]
DATT = normal(10, 2, 150, 60)
DROP = {"dropout_p": 0.1875, **KEY}


def layernorm_backward(e: Engine) -> object:
    _, mean, rstd = e.layernorm_forward(X, GAMMA, BETA)
    return e.layernorm_backward(DOUT, X, GAMMA, mean, rstd, dx=DOUT, dgamma=GAMMA)


def attention_backward(e: Engine) -> object:
    plain = e.attention_backward(DATT, *e.attention_forward(Q, K, V, 4), Q, K, V, 4)
    dropped = e.attention_backward(
        DATT, *e.attention_forward(Q, K, V, 5, **DROP), Q, K, V, 5, into=plain, **DROP
    )
    return plain, dropped


def attention_cached(e: Engine) -> object:
    cache = KVCache(4, 15, 150)
    pieces = [slice(0, 70), slice(70, 71), slice(71, 150)]
    return [e.attention_cached(cache, Q[0, s], K[0, s], V[0, s]) for s in pieces]


def lm_head_loss_backward(e: Engine) -> object:
    _, log_sum = e.lm_head_loss_forward(X, WTE, TARGETS)
    return e.lm_head_loss_backward(X, WTE, log_sum, TARGETS, 0.01171875, dx=DOUT)


def cross_entropy_backward(e: Engine) -> object:
    _, log_sum = e.cross_entropy_forward(LOGITS, CLASSES)
    return e.cross_entropy_backward(LOGITS, log_sum, CLASSES, 0.3125, dlogits=DOUT)


CASES: dict[str, Callable[[Engine], object]] = {
    "gemm": lambda e: (
        e.gemm(X, W),
        e.gemm(X, X, ta=True),
        e.gemm(X, WTE, tb=True),
        e.gemm(W, X, ta=True, tb=True),
        e.gemm(X[:1], W),
        e.gemm(DEEP_A, DEEP_B, c=DEEP_C),
    ),
    "linear_forward": lambda e: e.linear_forward(X, W, W[0]),
    "pack": lambda e: [e.packed_forward(X[:1], e.pack(W, precision)) for precision in ("bf16", "int8")],
    "packed_forward": lambda e: [e.packed_forward(X, e.pack(W, p), W[0]) for p in ("bf16", "int8")],
    "linear_backward": lambda e: e.linear_backward(DLINEAR, X, W, dw=W),
    "transpose": lambda e: e.transpose(X),
    "embedding_forward": lambda e: e.embedding_forward(WTE, IDS),
    "embedding_backward": lambda e: e.embedding_backward(X, IDS, 211),
    "fill": lambda e: e.fill(100_003, 0.125),
    "copy": lambda e: (e.copy(FLAT), e.copy(FLAT, out=FLAT2)),
    "add": lambda e: e.add(FLAT, FLAT2),
    "sub": lambda e: e.sub(FLAT, FLAT2),
    "mul": lambda e: e.mul(FLAT, FLAT2),
    "div": lambda e: e.div(FLAT, FLAT2),
    "neg": lambda e: e.neg(FLAT),
    "scale": lambda e: (e.scale(FLAT, 0.3125), e.scale(FLAT, 0.3125, out=FLAT2)),
    "mul_acc": lambda e: (e.mul_acc(FLAT, FLAT2), e.mul_acc(FLAT, FLAT2, out=FLAT)),
    "gelu_forward": lambda e: e.gelu_forward(FLAT),
    "gelu_backward": lambda e: (e.gelu_backward(FLAT2, FLAT), e.gelu_backward(FLAT2, FLAT, dx=FLAT)),
    "gelu_exact_forward": lambda e: e.gelu_exact_forward(WIDE),
    "gelu_exact_backward": lambda e: (
        e.gelu_exact_backward(FLAT2, WIDE),
        e.gelu_exact_backward(FLAT2, FLAT, dx=FLAT),
    ),
    "relu_forward": lambda e: e.relu_forward(FLAT),
    "relu_backward": lambda e: (e.relu_backward(FLAT2, FLAT), e.relu_backward(FLAT2, FLAT, dx=FLAT)),
    "dropout": lambda e: (
        e.dropout(FLAT, 0.09375, **KEY),
        e.dropout(FLAT, 0.6875, first=2**40 + 3, out=FLAT2, **KEY),
    ),
    "normal": lambda e: e.normal(100_003, mean=0.125, std=0.01953125, seed=1, stream=2),
    "layernorm_forward": lambda e: (*e.layernorm_forward(X, GAMMA, BETA), *e.layernorm_forward(X)),
    "layernorm_backward": layernorm_backward,
    "rmsnorm_forward": lambda e: e.rmsnorm_forward(X),
    "rmsnorm_backward": lambda e: e.rmsnorm_backward(DOUT, X, e.rmsnorm_forward(X)[1]),
    "softmax_forward": lambda e: e.softmax_forward(LOGITS),
    "softmax_backward": lambda e: e.softmax_backward(DOUT, e.softmax_forward(LOGITS), dx=X),
    "sum_rows": lambda e: (e.sum_rows(X), e.sum_rows(X, out=BETA)),
    "sum": lambda e: np.float64(e.sum(FLAT)),
    "sum_squares": lambda e: np.float64(e.sum_squares(FLAT)),
    "all_finite": lambda e: np.bool_(e.all_finite(FLAT)),
    "attention_forward": lambda e: (
        *e.attention_forward(Q, K, V, 4),
        *e.attention_forward(Q, K, V, 1, **DROP),
    ),
    "attention_backward": attention_backward,
    "attention_cached": attention_cached,
    "cross_entropy_forward": lambda e: e.cross_entropy_forward(LOGITS, CLASSES),
    "cross_entropy_backward": cross_entropy_backward,
    "lm_head_loss_forward": lambda e: e.lm_head_loss_forward(X, WTE, TARGETS),
    "lm_head_loss_backward": lm_head_loss_backward,
    "adamw_step": lambda e: e.adamw_step(
        FLAT, FLAT2, np.abs(FLAT2), FLAT2, lr=1e-3, weight_decay=0.1, step=3, grad_scale=0.6875
    ),
}


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
