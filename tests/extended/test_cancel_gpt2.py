"""A cancel or a statement_timeout ends a training call of GPT-2 124M within 100 ms, whatever it is doing.

A call loads, takes steps at T = 1024, and writes back. Each phase is hit at random moments.
"""

from __future__ import annotations

import random
import re
import time
from typing import Any

import psycopg
import pytest

from ..conftest import Connect
from ..sql.small_models import train
from ..sql.tensors import value
from ..sql.test_transactions import cancel_after

Connection = psycopg.Connection[Any]

BOUND = 0.1
TRIES = 4  # other processes may delay one of them
STEPS = "SELECT llm_train('gpt2', 100, log_every => 0)"
# One step on 8 tokens, so that most of the call is loading and writing back.
WRITE_BACK = "SELECT llm_train('gpt2', 1, block_size => 8, log_every => 0)"
PHASES = {
    "load": ("SELECT llm_release(), llm_pin('gpt2', true), pg_llm_arena_close('gpt2')", 0.0),
    "steps": (STEPS, 3.0),
    "write-back": (WRITE_BACK, 0.3),
}


@pytest.fixture
def trained(gpt2: Connection) -> Connection:
    """With optimizer state, so that loading and writing back handle all three arrays."""
    train(gpt2, "gpt2", 1, block_size=8)
    return gpt2


def duration(conn: Connection, statement: str) -> float:
    began = time.monotonic()
    with conn.transaction(force_rollback=True):
        conn.execute(statement)
    return time.monotonic() - began


@pytest.mark.parametrize("phase", PHASES)
def test_cancels_at_random_moments(trained: Connection, connect: Connect, phase: str) -> None:
    statement, warm_up = PHASES[phase]
    worker = connect()
    if phase == "steps":
        first, last = 0.2, 8.0
    else:
        first, last = warm_up, duration(worker, statement)
    moments = random.Random(5)
    latencies = []
    for _ in range(6):
        delay = moments.uniform(first, last)
        tries: list[float | None] = []
        while len(tries) < TRIES:
            tries.append(cancel_after(trained, worker, statement, delay))
            if tries[-1] is None or tries[-1] < BOUND:
                break
        latencies.append((round(delay, 2), tries[-1]))
    print(phase, latencies)
    landed = [latency for _, latency in latencies if latency is not None]
    assert landed, f"every statement ended before its cancel: {latencies}"
    assert max(landed) < BOUND, latencies
    assert value(worker, "SELECT 1") == 1


def test_statement_timeouts_at_random_moments(trained: Connection, connect: Connect) -> None:
    worker = connect()
    moments = random.Random(6)
    late = []
    for _ in range(6):
        timeout = moments.uniform(0.2, 6.0)
        for _ in range(TRIES):
            worker.execute("SELECT set_config('statement_timeout', %s, false)", (f"{timeout * 1000:.0f}ms",))
            began = time.monotonic()
            with pytest.raises(psycopg.errors.QueryCanceled, match=re.escape("statement timeout")):
                worker.execute(STEPS)
            beyond = time.monotonic() - began - timeout
            worker.execute("RESET statement_timeout")
            if beyond < BOUND:
                break
        late.append((round(timeout, 2), round(beyond, 3)))
    print(late)
    assert max(beyond for _, beyond in late) < BOUND, late
