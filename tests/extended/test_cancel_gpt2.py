"""A cancel or a statement_timeout ends a training call of GPT-2 124M at once, whatever it is doing.

A call loads, takes steps at T = 1024, and writes back. Each phase is hit at random moments, and what the
backend still works from then on is held against a tenth of a second of all its threads, a fraction of a step.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from ..conftest import Server
from ..schema.test_transactions import cancel_after
from ..support.small_models import train
from ..support.tensors import value
from ..support.waiting import work_of
from .conftest import make_gpt2

Connection = psycopg.Connection[Any]

THREADS = 2
BOUND = 0.1 * THREADS  # CPU seconds
MOMENTS = 6
STEPS = "SELECT llm_train('gpt2', 100, log_every => 0)"
# One step on 8 tokens, so that most of the call is loading and writing back.
WRITE_BACK = "SELECT llm_train('gpt2', 1, block_size => 8, log_every => 0)"
# Statement, and between which seconds of it; 0: until it ends.
PHASES = {
    "load": ("SELECT llm_release(), llm_pin('gpt2', true), pg_llm_arena_close('gpt2')", 0.0, 0.0),
    "steps": (STEPS, 0.2, 8.0),
    "write-back": (WRITE_BACK, 0.3, 0.0),
}


@pytest.fixture(scope="module")
def database(server: Server, template: str) -> Iterator[str]:
    """With a model that has optimizer state, so that loading and writing back handle all three arrays."""
    name = server.create_database(template)
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        make_gpt2(connection)
        train(connection, "gpt2", 1, block_size=8)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def observer(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def worker(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT set_config('pg_llm.threads', %s, false)", (str(THREADS),))
        yield connection


def duration(conn: Connection, statement: str) -> float:
    began = time.monotonic()
    with conn.transaction(force_rollback=True):
        conn.execute(statement)
    return time.monotonic() - began


def hold(what: str, moments: list[float], late_at: Callable[[float], float | None]) -> None:
    """Every moment's work against the bound; None: nothing was left to end, and an earlier one is tried."""
    landed: list[float] = []
    for moment in moments:
        while (late := late_at(moment)) is None:
            moment *= 0.7
            assert moment > 0.01, f"{what}: no cancel came before the end"
        landed.append(late)
    print(f"{what}: {sorted(round(late * 1000) for late in landed)} ms of CPU after it")
    assert max(landed) < BOUND, what


@pytest.mark.parametrize("phase", PHASES)
def test_cancels_at_random_moments(observer: Connection, worker: Connection, phase: str) -> None:
    statement, first, last = PHASES[phase]
    moments = random.Random(5)
    # The second time nothing is new to the caches.
    last = last or min(duration(worker, statement) for _ in range(2)) * 0.9
    hold(
        phase,
        [moments.uniform(first, max(first, last)) for _ in range(MOMENTS)],
        lambda moment: cancel_after(observer, worker, statement, moment),
    )
    assert value(worker, "SELECT 1") == 1


def test_statement_timeouts_at_random_moments(worker: Connection) -> None:
    def beyond(timeout: float) -> float:
        """CPU seconds beyond those that its threads can have used up to the timeout."""
        worker.execute("SELECT set_config('statement_timeout', %s, false)", (f"{timeout * 1000:.0f}ms",))

        def run() -> None:
            with pytest.raises(psycopg.errors.QueryCanceled, match=re.escape("statement timeout")):
                worker.execute(STEPS)

        used = work_of(worker, run)
        worker.execute("RESET statement_timeout")
        return used - timeout * THREADS

    moments = random.Random(6)
    hold("timeout", [moments.uniform(0.2, 6.0) for _ in range(MOMENTS)], beyond)
