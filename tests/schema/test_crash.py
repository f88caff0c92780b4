"""What survives a crash of the server (with fsync on, in a home of its own) and a dump."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from ..support.durable import Durable, program, provisioned
from ..support.small_models import Connection, make_names, make_trainable, train, weights
from ..support.tensors import value
from ..support.waiting import wait_for

LOOP = (
    "CALL llm_train_loop(%s, %s, 3, lr_max => 0.01, warmup => 5, dropout_p => 0.1, batch_size => 2,"
    " log_every => 0)"
)
STEPS = 90


@pytest.fixture(scope="module")
def durable() -> Iterator[Durable]:
    with provisioned() as server:
        yield server


def run_until_killed(durable: Durable, model: str, commits: int) -> None:
    """Starts the loop and crashes the server after so many commits were seen."""

    def loop() -> None:
        with pytest.raises(psycopg.OperationalError), durable.connect() as conn:
            conn.execute(LOOP, (model, STEPS))

    with durable.connect() as observer:
        thread = threading.Thread(target=loop)
        thread.start()
        logged = "SELECT count(*) FROM llm_train_log WHERE model = %s"
        wait_for(lambda: value(observer, logged, (model,)) >= 3 * commits, "progress of the loop")
        durable.crash()
        thread.join(600)


def state(conn: Connection, model: str) -> dict[str, Any]:
    """The last step as every relation tells it."""
    row = conn.execute(
        """SELECT
            (SELECT array_agg(DISTINCT step) FROM llm_param WHERE model = %(m)s),
            (SELECT max(step) FROM llm_train_log WHERE model = %(m)s AND NOT superseded),
            (SELECT count(*) FROM llm_train_log WHERE model = %(m)s AND NOT superseded),
            (SELECT last_step FROM llm_train_run WHERE model = %(m)s),
            (SELECT stored_step FROM llm_train_run WHERE model = %(m)s),
            (SELECT status FROM llm_train_run WHERE model = %(m)s)""",
        {"m": model},
    ).fetchone()
    assert row is not None
    return dict(zip(("params", "log", "rows", "run", "stored", "status"), row, strict=True))


def test_a_crash_costs_nothing_that_was_committed(durable: Durable) -> None:
    with durable.connect() as conn:
        for model in ("crashed", "whole"):
            make_trainable(conn, model, d_model=64)
    run_until_killed(durable, "crashed", 3)
    with durable.connect() as conn:
        after = state(conn, "crashed")
        done, stored = after["run"], after["stored"]
        assert after["params"] == [stored]
        assert (after["log"] or 0, after["rows"], after["status"]) == (done, done, "running")
        # Commits of the log alone are asynchronous: the last of them may be lost.
        assert 0 <= stored <= done < STEPS
        assert done % 3 == 0
        assert value(conn, "SELECT count(*) FROM llm_train_progress") == 0
        assert value(conn, "SELECT count(*) FROM llm_dataset WHERE model = 'crashed'") == 10
        run = value(conn, "SELECT run_id FROM llm_train_run WHERE model = 'crashed'")
        conn.execute("CALL llm_train_resume(%s)", (run,))
        conn.execute(LOOP, ("whole", STEPS))
        assert state(conn, "crashed")["status"] == "done"
        assert weights(conn, "crashed") == weights(conn, "whole")
        losses = "SELECT array_agg(loss ORDER BY step) FROM llm_train_log WHERE model = %s AND NOT superseded"
        assert value(conn, losses, ("crashed",)) == value(conn, losses, ("whole",))


def test_two_crashes(durable: Durable) -> None:
    """Crashed while it makes up for a crash; a run of one transaction leaves nothing."""
    with durable.connect() as conn:
        for model in ("twice", "once", "lost"):
            make_trainable(conn, model, d_model=64)
    run_until_killed(durable, "twice", 2)
    with durable.connect() as conn:
        before = weights(conn, "lost")
        run = value(conn, "SELECT run_id FROM llm_train_run WHERE model = 'twice'")

    def resume() -> None:
        with pytest.raises(psycopg.OperationalError), durable.connect() as conn:
            conn.execute("CALL llm_train_resume(%s, 2)", (run,))

    def lose() -> None:
        with pytest.raises(psycopg.OperationalError), durable.connect() as conn:
            train(conn, "lost", 1_000_000)

    with durable.connect() as observer:
        done = state(observer, "twice")["run"]
        threads = [threading.Thread(target=target) for target in (resume, lose)]
        for thread in threads:
            thread.start()
        lost = "SELECT count(*) FROM llm_train_progress WHERE model = 'lost'"
        wait_for(
            lambda: state(observer, "twice")["run"] >= done + 4 and value(observer, lost), "progress of both"
        )
        durable.crash()
        for thread in threads:
            thread.join(600)
    with durable.connect() as conn:
        assert weights(conn, "lost") == before
        assert value(conn, "SELECT count(*) FROM llm_train_log WHERE model = 'lost'") == 0
        conn.execute("CALL llm_train_resume(%s)", (run,))
        conn.execute(LOOP, ("once", STEPS))
        assert weights(conn, "twice") == weights(conn, "once")


def digest(conn: Connection, model: str) -> str:
    """sha256 over data, m and v of the parameters by name."""
    found = value(
        conn,
        "SELECT encode(sha256(string_agg(data::bytea || m::bytea || v::bytea, '' ORDER BY name)), 'hex')"
        " FROM llm_param WHERE model = %s",
        (model,),
    )
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("victim", ["backend", "postmaster"])
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(durable: Durable, victim: str, seed: int) -> None:
    """Whenever it is killed, in steps, commits or write-backs: the bits of a run that is not."""
    rng = Random(f"{victim}/{seed}")
    arguments = (
        "lr_max => 0.01, warmup => 5, dropout_p => 0.1, batch_size => 2, grad_clip => 0.5, log_every => 0"
    )
    model, other = f"killed {victim} {seed}", f"whole {victim} {seed}"
    with durable.connect() as conn:
        for name in (model, other):
            make_trainable(conn, name, d_model=32, n_layer=4)
        conn.execute(f"CALL llm_train_loop('{other}', 200, {arguments})")
        whole = digest(conn, other)

    def train_on(call: str) -> None:
        # Killed; or complete already.
        over = (psycopg.OperationalError, psycopg.errors.InvalidParameterValue)
        with contextlib.suppress(*over), durable.connect() as conn:
            conn.execute(call)

    call = f"CALL llm_train_loop('{model}', 200, 1, {rng.choice(('NULL', '7', '1000'))}, {arguments})"
    for _ in range(4):
        thread = threading.Thread(target=train_on, args=(call,))
        thread.start()
        thread.join(rng.uniform(0.05, 0.6))
        with durable.connect() as observer:
            pid = value(observer, "SELECT max(pid) FROM pg_stat_activity WHERE query ~ '^CALL llm_train_'")
            if victim == "postmaster":
                durable.crash()
            elif pid is not None:
                durable.kill_backend(pid)
        thread.join(600)
        wait_for(lambda: connects(durable), "the server after its recovery")
        with durable.connect() as conn:
            run = value(conn, "SELECT max(run_id) FROM llm_train_run WHERE model = %s", (model,))
        if run is not None:
            call = f"CALL llm_train_resume({run})"
    with durable.connect() as conn:
        if call.startswith("CALL llm_train_loop") or value(conn, UNFINISHED, (run,)):
            conn.execute(call)
        assert digest(conn, model) == whole
        log = "SELECT array_agg((loss, grad_norm)::text ORDER BY step) FROM llm_train_log WHERE model = %s"
        assert value(conn, log, (model,)) == value(conn, log, (other,))


UNFINISHED = "SELECT stored_step < 200 FROM llm_train_run WHERE run_id = %s"


def connects(durable: Durable) -> bool:
    with contextlib.suppress(psycopg.OperationalError), durable.connect():
        return True
    return False


def test_a_dump_holds_the_whole_model(durable: Durable, tmp_path: Path) -> None:
    dump = tmp_path / "dump.sql"
    with durable.connect() as conn:
        make_names(conn)
        train(conn, "names", 10, lr_max=0.01)
    subprocess.run(
        [program("pg_dump"), "--file", str(dump), durable.server.url()],
        check=True,
        capture_output=True,
    )
    with durable.connect() as conn:
        conn.execute("DROP DATABASE IF EXISTS restored")
        conn.execute("CREATE DATABASE restored")
    restore = [program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(dump)]
    subprocess.run([*restore, durable.server.url("restored")], check=True, capture_output=True)
    query = "SELECT llm_generate(ARRAY['', 'em', 'lu'], 16, 1, 0, 1, 'names', 3)"
    with durable.connect() as original, durable.connect("restored") as copy:
        assert weights(copy, "names") == weights(original, "names")
        assert value(copy, query) == value(original, query)
        for conn in (original, copy):
            train(conn, "names", 3, lr_max=0.01)
        assert weights(copy, "names") == weights(original, "names")
        assert value(copy, "SELECT max(run_id) FROM llm_train_run") == value(
            original, "SELECT max(run_id) FROM llm_train_run"
        )
        flag = "SELECT flag FROM llm_autograd_mode"
        assert value(copy, flag) is value(original, flag) is False
