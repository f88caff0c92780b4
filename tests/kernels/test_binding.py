"""What the binding promises beyond the numbers: errors instead of bad reads, the GIL, signals, settings."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llm_sql.kernels import Engine, available_isas, best_isa, cpu_count, mean_loss, numerics_version

from .tolerance import normal

A = normal(1, 3, 4)
V3 = normal(2, 3)
QKV = normal(3, 2, 5, 6)


def test_this_machine() -> None:
    isas = available_isas()
    assert isas[0] == "scalar"
    assert best_isa() in isas
    assert Engine().isa == best_isa()
    assert cpu_count() >= 1
    assert Engine(threads=0).threads == cpu_count()
    assert numerics_version() >= 1


def test_settings() -> None:
    engine = Engine(isa="scalar", threads=3)
    assert (engine.isa, engine.threads) == ("scalar", 3)
    assert repr(engine) == "Engine(isa='scalar', threads=3)"
    with pytest.raises(ValueError, match="unknown instruction set 'mmx'"):
        engine.isa = "mmx"
    with pytest.raises(ValueError, match="negative"):
        engine.threads = -1
    with pytest.raises(ValueError, match="not positive"):
        engine.set_attention_chunk(0)
    missing = {"scalar", "neon", "avx2", "avx512"} - set(available_isas())
    for isa in missing:
        with pytest.raises(ValueError, match="cannot run"):
            Engine(isa=isa)


BAD_CALLS: list[tuple[str, Callable[[Engine], object]]] = [
    (r"disagree on K: 4 and 3", lambda e: e.gemm(A, A)),
    (r"c has shape \(3, 4\), expected \(3, 3\)", lambda e: e.gemm(A, A, tb=True, c=A)),
    (r"expected a matrix", lambda e: e.gemm(V3, A)),
    (r"do not fit", lambda e: e.linear_forward(A, A)),
    (r"b has shape \(3,\), expected \(4,\)", lambda e: e.linear_forward(V3, A, V3)),
    (r"dout has shape", lambda e: e.linear_backward(A, A, normal(1, 4, 5))),
    (r"dw has shape", lambda e: e.linear_backward(A, A, normal(1, 4, 4), dw=A)),
    (r"expected a matrix", lambda e: e.transpose(V3)),
    (r"ids holds 3, outside \[0, 3\)", lambda e: e.embedding_forward(A, [0, 3])),
    (r"ids holds -1, outside", lambda e: e.embedding_forward(A, [-1])),
    (r"ids holds 4294967296, outside", lambda e: e.embedding_forward(A, [2**32])),
    (r"ids has shape \(2,\), expected \(3,\)", lambda e: e.embedding_backward(A, [0, 1], 5)),
    (r"ids holds 9, outside", lambda e: e.embedding_backward(A, [0, 1, 9], 5)),
    (r"b has shape \(4, 3\), expected \(3, 4\)", lambda e: e.add(A, A.T.copy())),
    (r"b has shape", lambda e: e.div(A, V3)),
    (r"out has shape", lambda e: e.scale(A, 2.0, out=V3)),
    (r"dout has shape", lambda e: e.gelu_backward(V3, A)),
    (r"dropout probability 1.0", lambda e: e.dropout(A, 1.0, seed=0, step=0, site="s")),
    (r"dropout probability nan", lambda e: e.dropout(A, float("nan"), seed=0, step=0, site="s")),
    (r"gamma has shape \(3,\), expected \(4,\)", lambda e: e.layernorm_forward(A, V3)),
    (r"mean has shape", lambda e: e.layernorm_backward(A, A, None, A, V3)),
    (r"dgamma has shape", lambda e: e.layernorm_backward(A, A, None, V3, V3, dgamma=V3)),
    (r"at least one element", lambda e: e.softmax_forward(np.zeros((3, 0), "f4"))),
    (r"at least one element", lambda e: e.layernorm_forward(np.zeros((2, 0), "f4"))),
    (r"at least one element", lambda e: e.softmax_forward(np.float32(1))),
    (r"rstd has shape", lambda e: e.rmsnorm_backward(A, A, A)),
    (r"targets holds 4, outside", lambda e: e.cross_entropy_forward(A, [0, 1, 4])),
    (r"targets has shape", lambda e: e.cross_entropy_forward(A, [0, 1])),
    (r"log_sum has shape", lambda e: e.cross_entropy_backward(A, A, [0, 1, 2], 1.0)),
    (r"w has shape .* expected \(vocab, 4\)", lambda e: e.lm_head_loss_forward(A, A.T.copy(), [0, 0, 0])),
    (r"targets holds 3, outside", lambda e: e.lm_head_loss_forward(A, A, [0, 3, 0])),
    (r"n_head 4 does not divide D 6", lambda e: e.attention_forward(QKV, QKV, QKV, 4)),
    (r"n_head 0 does not divide", lambda e: e.attention_forward(QKV, QKV, QKV, 0)),
    (r"k has shape", lambda e: e.attention_forward(QKV, QKV[:, :4], QKV, 2)),
    (r"expected \(B,T,D\)", lambda e: e.attention_forward(A, A, A, 2)),
    (r"row_max has shape", lambda e: e.attention_backward(QKV, QKV, V3, V3, QKV, QKV, QKV, 2)),
    (r"grad has shape", lambda e: e.adamw_step(A, A, A, V3, lr=0.1, step=1)),
    (r"step 0 is less than 1", lambda e: e.adamw_step(A, A, A, A, lr=0.1, step=0)),
    (r"targets has shape", lambda _: mean_loss(V3, [1])),
]


@pytest.mark.parametrize(("message", "call"), BAD_CALLS, ids=range(len(BAD_CALLS)))
def test_bad_shapes_and_ids_are_refused(
    engine: Engine, message: str, call: Callable[[Engine], object]
) -> None:
    with pytest.raises(ValueError, match=message):
        call(engine)


def test_other_types_are_refused_rather_than_rounded(engine: Engine) -> None:
    for other in (A.astype(np.float64), A.astype(np.float16), A.astype(np.int32), A.astype(">f4"), A > 0):
        with pytest.raises(TypeError, match=re.escape(f"x must be float32, got {other.dtype}")):
            engine.softmax_forward(other)
    with pytest.raises(TypeError, match="ids must be integers"):
        engine.embedding_forward(A, np.array([0.5]))
    np.testing.assert_array_equal(engine.add([1.0, 2], [3, 4]), [4, 6])


def test_views_and_strides_are_read_right(engine: Engine) -> None:
    big = normal(1, 12, 20)
    for view in (big[::2, ::3], big.T, big[::-1, ::-1], np.broadcast_to(big[0], (4, 20)), big[:, 3:4]):
        np.testing.assert_array_equal(engine.neg(view), -view)
        np.testing.assert_array_equal(
            engine.gemm(view, view, tb=True), engine.gemm(view.copy(), view.T.copy())
        )
    misaligned = np.frombuffer(b"\0" + big.tobytes(), np.uint8)[1:].view(np.float32)
    np.testing.assert_array_equal(engine.add(misaligned, misaligned), 2 * big.ravel())


def test_arguments_stay_as_they_are(engine: Engine) -> None:
    x, before = normal(1, 50, 30), normal(2, 50, 30)
    copies = x.copy(), before.copy()
    engine.gelu_backward(x, x, dx=before)
    engine.scale(x, 2.0, out=before)
    engine.dropout(x, 0.5, seed=0, step=0, site=0, out=before)
    engine.gemm(x, x, tb=True)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(before, copies[1])


def test_nothing_to_do(engine: Engine) -> None:
    none = np.zeros((0, 5), np.float32)
    assert engine.softmax_forward(none).shape == (0, 5)
    assert engine.layernorm_forward(none)[0].shape == (0, 5)
    assert engine.gelu_forward(none).shape == (0, 5)
    np.testing.assert_array_equal(engine.sum_rows(none), np.zeros(5))
    dx, dw, db = engine.linear_backward(np.zeros((0, 3), "f4"), none, normal(1, 5, 3))
    assert dx.shape == (0, 5)
    np.testing.assert_array_equal(dw, np.zeros((5, 3)))
    np.testing.assert_array_equal(db, np.zeros(3))
    losses, log_sum = engine.cross_entropy_forward(none, np.zeros(0, int))
    assert losses.shape == log_sum.shape == (0,)
    dx, dw = engine.lm_head_loss_backward(none, normal(1, 7, 5), log_sum, np.zeros(0, int), 1.0)
    np.testing.assert_array_equal(dw, np.zeros((7, 5)))
    assert engine.attention_forward(
        np.zeros((0, 4, 6), "f4"), np.zeros((0, 4, 6), "f4"), np.zeros((0, 4, 6), "f4"), 2
    )[0].shape == (0, 4, 6)
    np.testing.assert_array_equal(engine.embedding_forward(normal(1, 3, 4), []), np.zeros((0, 4)))
    assert engine.sum(np.zeros(0, "f4")) == 0.0
    assert engine.all_finite(np.zeros(0, "f4"))


def test_other_threads_run_during_an_op() -> None:
    engine = Engine(isa="scalar")
    x = np.ones((700, 700), np.float32)
    ticks, inside, done = 0, False, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.001):
            ticks += inside

    other = threading.Thread(target=tick)
    other.start()
    # A busy machine may give the other thread no time during one op, but not during a hundred.
    for _ in range(100):
        ticks, inside = 0, True
        engine.gemm(x, x)
        inside = False
        if ticks >= 5:
            break
    done.set()
    other.join()
    assert ticks >= 5


def test_two_threads_may_use_engines_at_once() -> None:
    x = normal(1, 300, 300)
    want = Engine(threads=1).gemm(x, x)
    wrong = []

    def work(threads: int) -> None:
        engine = Engine(threads=threads)
        wrong.extend(i for i in range(20) if not np.array_equal(engine.gemm(x, x), want))

    workers = [threading.Thread(target=work, args=(threads,)) for threads in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_signal_stops_a_long_op() -> None:
    class AlarmError(Exception):
        pass

    def ring(*_: object) -> None:
        raise AlarmError

    engine = Engine(isa="scalar", threads=2)
    small, x = np.ones((600, 600), np.float32), np.ones((2400, 2400), np.float32)
    start = time.process_time()
    engine.gemm(small, small)
    whole = 64 * (time.process_time() - start)
    old = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        start = time.process_time()
        with pytest.raises(AlarmError):
            engine.gemm(x, x)
        used = time.process_time() - start
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert used < whole / 4
    np.testing.assert_array_equal(engine.add(A, A), A + A)  # the engine is usable afterwards


def test_every_op_is_documented() -> None:
    undocumented = [
        name
        for name in dir(Engine)
        if not name.startswith("_") and name not in ("isa", "threads") and not getattr(Engine, name).__doc__
    ]
    assert not undocumented


@pytest.mark.parametrize("room", ["migrations", "models"])
def test_a_room_has_one_name(room: str) -> None:
    """Python finds the folder at the top of the repository too; a second copy would be a second MetaData."""
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", f"import {room}"], cwd=root, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"import this package as llm_sql.{room}" in run.stderr


def test_the_folder_kernels_hides_no_package() -> None:
    """Hugging Face has a package called kernels, which transformers imports or does without."""
    root = Path(__file__).parents[2]
    program = """
import importlib.util
found = importlib.util.find_spec("kernels")
assert found is None or found.origin is None or "site-packages" in found.origin, found
if importlib.util.find_spec("transformers"):
    from transformers import GPT2LMHeadModel
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
