"""Crashes, full disks, prepared transactions: the last committed checkpoint loads, nothing is left for ever.

tests/hunts/checkpoint_crashes.py is the long form, by hand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from ..amount import EXTENDED, grows
from ..hunts.checkpoint_crashes import ENOSPC, crashes, failures
from ..support.checkpoints import files, load, referenced, save
from ..support.durable import Durable, provisioned
from ..support.limits import as_the_server
from ..support.small_models import make_model, weights
from ..support.tensors import value

pytestmark = pytest.mark.skipif(
    "DATABASE_URL" in os.environ, reason="DATABASE_URL's server cannot be killed by a test"
)


@pytest.fixture(scope="module")
def durable() -> Iterator[Durable]:
    """A server whose WAL writer sleeps, so that what is committed asynchronously is lost in a crash."""
    with provisioned() as server:
        with server.connect() as conn:
            conn.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            conn.execute("ALTER SYSTEM SET wal_writer_flush_after = '1GB'")
            conn.execute("ALTER SYSTEM SET max_prepared_transactions = 4")
        server.server.stop()
        server.server.start()
        yield server


@pytest.fixture
def model(durable: Durable) -> str:
    with durable.connect() as conn:
        conn.execute("SELECT llm_drop_model(model) FROM llm_model_config WHERE model IN ('tiny', 'wide')")
        conn.execute("DELETE FROM llm_checkpoint")
        return make_model(conn)


def test_what_a_lost_commit_gave_up_is_there(durable: Durable, model: str) -> None:
    """synchronous_commit off: keep, and rows deleted by hand, swept by a transaction that writes nothing."""
    with durable.connect() as conn:
        old = save(conn)
        before = weights(conn)
        conn.execute("SET synchronous_commit = off")
        conn.execute("SELECT llm_init_model('tiny', 2)")
        new = save(conn, keep=1)
    durable.crash()
    with durable.connect() as conn:
        assert value(conn, "SELECT array_agg(id ORDER BY id) FROM llm_checkpoint") in ([old], [new])
        id_ = value(conn, "SELECT max(id) FROM llm_checkpoint")
        load(conn, id_)
        assert (weights(conn) == before) == (id_ == old)
        conn.execute("SET synchronous_commit = off")
        conn.execute("DELETE FROM llm_checkpoint")
        conn.execute("SELECT llm_checkpoint_sweep()")
        assert files(conn) == set()
    durable.crash()
    with durable.connect() as conn:
        for row in conn.execute("SELECT id FROM llm_checkpoint").fetchall():
            load(conn, row[0])
        save(conn)
        assert files(conn) == referenced(conn)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("crash", [False, True])
def test_prepared_transactions(durable: Durable, model: str, end: str, crash: bool) -> None:
    with durable.connect() as conn:
        first = save(conn)
        conn.autocommit = False
        second = save(conn, keep=1)
        conn.execute("PREPARE TRANSACTION 'saved'")
        conn.rollback()
    if crash:
        durable.crash()
    with durable.connect() as conn:
        # neither the one's file nor the other's may go while it is not known which row stays
        save(conn)
        assert len(files(conn)) == 3
        assert load(conn, first) == 0
        conn.execute(f"{end} PREPARED 'saved'")
        save(conn)
        assert files(conn) == referenced(conn)
        assert load(conn, second if end == "COMMIT" else first) == 0
        with pytest.raises(errors.UndefinedObject):
            load(conn, first if end == "COMMIT" else second)


def test_a_prepared_transaction_that_holds_a_model_is_named_as_such(durable: Durable, model: str) -> None:
    with durable.connect() as conn:
        conn.autocommit = False
        conn.execute("SELECT llm_init_model('tiny', 2)")
        conn.execute("PREPARE TRANSACTION 'held'")
        conn.rollback()
        conn.autocommit = True
        with pytest.raises(errors.LockNotAvailable, match="by a prepared transaction") as caught:
            conn.execute("SELECT llm_drop_model('tiny')")
        assert "pg_prepared_xacts" in str(caught.value.diag.message_hint)
        conn.execute("ROLLBACK PREPARED 'held'")
        conn.execute("SELECT llm_drop_model('tiny')")


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="limits of another process are Linux's")
def test_a_disk_that_is_full(durable: Durable, model: str) -> None:
    """As far as a limit on the size of files stands for it; above what WAL and tables need."""
    with durable.connect() as conn:
        make_model(conn, "wide", n_layer=1, n_head=1, d_model=512, vocab=20000)
        kept = save(conn)
        before = files(conn)
        as_the_server(["prlimit", f"--pid={conn.info.backend_pid}", "--fsize=20000000"])
        for _ in range(3):
            with pytest.raises(psycopg.Error, match="could not access file"):
                save(conn, "wide", keep=1)
            assert files(conn) == before
    with durable.connect() as conn:
        assert load(conn, kept) == 0
        conn.execute("SELECT llm_drop_model('wide')")


def test_cancels_leave_nothing(durable: Durable, model: str) -> None:
    """At whatever moment a save or a load is cancelled."""
    with durable.connect() as conn:
        make_model(conn, "wide", n_layer=1, n_head=1, d_model=256, vocab=20000)
        id_ = save(conn, "wide")
        before, at = files(conn), weights(conn, "wide")
        for call in ("llm_checkpoint_save('wide', keep => 1)", f"llm_checkpoint_load('wide', {id_})"):
            for milliseconds in (1, 3, 10, 20, 40, 80):
                with conn.transaction(force_rollback=True):
                    conn.execute(f"SET LOCAL statement_timeout = {milliseconds}")
                    with contextlib.suppress(errors.QueryCanceled):
                        conn.execute(f"SELECT {call}")
                assert files(conn) == before
                assert weights(conn, "wide") == at
        conn.execute("SELECT llm_drop_model('wide')")


@grows
def test_kill_9_at_random_moments(durable: Durable) -> None:
    with durable.connect() as conn:
        conn.execute("SELECT llm_drop_model(model) FROM llm_model_config WHERE model = 'tiny'")
        conn.execute("DELETE FROM llm_checkpoint")
    crashes(durable, int(os.environ.get("LLM_SQL_CRASH_SEED", "1")), 8 if EXTENDED else 3)


@grows
@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="calls are made to fail by a preloaded library",
)
def test_every_call_on_a_file_may_find_the_disk_full() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as where:
        assert failures(Path(where), 2 if EXTENDED else 1, (ENOSPC,)) >= (5 if EXTENDED else 4)
