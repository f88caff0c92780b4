"""Many sessions that train at once, changing thread counts, errors and cancels: the same bits."""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ..amount import extended
from ..conftest import Connect
from ..support.small_models import add_rows, make_model, train, weights
from ..support.tensors import value
from .test_same_bits import configure

Connection = psycopg.Connection[Any]

SESSIONS = 20
SIZES = {"n_head": 4, "d_model": 64, "n_positions": 48, "vocab": 61}
ARGUMENTS = {"batch_size": 4, "dropout_p": 0.1, "grad_clip": 0.5, "lr_max": 0.01, "warmup": 1}


def make(conn: Connection, model: str) -> None:
    make_model(conn, model, seed=4, **SIZES)
    add_rows(conn, model, length=48, vocab=61)


def in_threads(work: list[Any]) -> None:
    """Runs callables at the same time; the first error is raised here."""
    errors: list[BaseException] = []
    together = threading.Barrier(len(work))

    def run(one: Any) -> None:
        try:
            together.wait()
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive(), "a session hangs"
    if errors:
        raise errors[0]


def expected(conn: Connection) -> dict[tuple[str, int], Any]:
    make(conn, "alone")
    configure(conn, threads=1)
    for _ in range(3):
        train(conn, "alone", 4, **ARGUMENTS)
    return weights(conn, "alone")


def test_twenty_sessions_train_at_once(conn: Connection, connect: Connect) -> None:
    """Each in three calls with another number of threads, after errors and cancels in the middle."""
    wanted = expected(conn)
    models = [f"m{i}" for i in range(SESSIONS)]
    for model in models:
        make(conn, model)
    sessions = {model: connect() for model in models}

    def work(model: str) -> None:
        session, chance = sessions[model], random.Random(model)
        for _ in range(3):
            configure(session, threads=chance.choice([1, 2, 3, 4, 8]))
            interrupt(session, model, chance)
            train(session, model, 4, **ARGUMENTS)

    in_threads([lambda model=model: work(model) for model in models])
    for model in models:
        assert weights(conn, model) == wanted, model
    running = "backend_type = 'client backend' AND datname = current_database() AND state = 'active'"
    assert value(conn, f"SELECT count(*) FROM pg_stat_activity WHERE {running}") == 1


def interrupt(session: Connection, model: str, chance: random.Random) -> None:
    """A call that ends in the middle: by a timeout, by weights that overflow, or none at all."""
    way = chance.choice(["timeout", "error", "none"])
    if way == "timeout":
        session.execute(
            "SELECT set_config('statement_timeout', %s, false)", (f"{chance.randint(20, 400)}ms",)
        )
        try:
            train(session, model, 100_000, **ARGUMENTS)
        except psycopg.errors.QueryCanceled:
            pass
        else:
            raise AssertionError("a hundred thousand steps in so little time")
        session.execute("RESET statement_timeout")
    elif way == "error":
        # The rate lets the weights overflow after some steps.
        try:
            train(session, model, 10_000, **(ARGUMENTS | {"lr_max": 1e30}))
        except psycopg.errors.NumericValueOutOfRange:
            pass
        else:
            raise AssertionError("weights of 1e30 and a loss")


def test_threads_change_from_call_to_call(conn: Connection) -> None:
    wanted = expected(conn)
    make(conn, "changing")
    for threads in (3, 1, 8):
        configure(conn, threads=threads)
        train(conn, "changing", 4, **ARGUMENTS)
    assert weights(conn, "changing") == wanted


def test_threads_change_inside_a_step(conn: Connection) -> None:
    """By hand: forward with three, backward with one, gradients with two."""
    make(conn, "alone")
    grads = []
    for counts in ((1, 1, 1), (3, 1, 2), (2, 4, 1)):
        with conn.transaction(force_rollback=True):
            value(conn, "SELECT llm_materialize_params('alone')")
            conn.execute("UPDATE llm_autograd_mode SET flag = true")
            configure(conn, threads=counts[0])
            value(conn, "SELECT llm_loss('alone', array_fill(3, '{4,48}'), array_fill(5, '{4,48}'))")
            configure(conn, threads=counts[1])
            value(conn, "SELECT llm_backprop(NULL, 'alone')")
            configure(conn, threads=counts[2])
            value(conn, "SELECT llm_accumulate_grads('alone')")
            grads.append(
                conn.execute(
                    "SELECT name, grad::bytea FROM llm_param WHERE model = 'alone' ORDER BY 1"
                ).fetchall()
            )
    assert grads[0] == grads[1] == grads[2]
    assert all(grad is not None for _, grad in grads[0])


def threads_of(conn: Connection) -> int:
    """Threads of the session's backend, its own included."""
    tasks = Path(f"/proc/{conn.info.backend_pid}/task")
    if not (conn.info.host or "").startswith("/") or not tasks.exists():
        pytest.skip("needs a server on this machine, and Linux")
    return len(list(tasks.iterdir()))


WORK = "SELECT norm(pg_llm_softmax(pg_llm_full('{20000,64}', 1)))"


def test_a_superuser_bounds_the_threads_of_a_session(conn: Connection, connect: Connect) -> None:
    name = f"threads_{secrets.token_hex(4)}"
    conn.execute(f"CREATE ROLE {name} LOGIN")
    other = connect(user=name)
    try:
        other.execute(WORK)
        before = threads_of(other)
        other.execute("SET pg_llm.threads = 1024")
        other.execute(WORK)
        assert threads_of(other) <= max(before, os.cpu_count() or 1)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute("SET pg_llm.max_threads = 1024")
    finally:
        other.close()
        conn.execute(f"DROP ROLE {name}")


@extended
def test_workers_that_have_nothing_to_do_end(conn: Connection) -> None:
    configure(conn, threads=9)
    conn.execute(WORK)
    many = threads_of(conn)
    assert many > 2
    configure(conn, threads=2)
    for _ in range(600):
        conn.execute(WORK)
        if threads_of(conn) <= 2:
            break
        time.sleep(0.1)
    assert threads_of(conn) <= 2, "those above the setting"
    for _ in range(600):
        if threads_of(conn) == 1:
            break
        time.sleep(0.1)
    assert threads_of(conn) == 1, "all of a session that waits"
    assert conn.execute(WORK).fetchone() == conn.execute(WORK).fetchone()
