"""Shared weights over crashes, cancels, restarts and base backups, and on standbys."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from ..support.durable import (
    Durable,
    alive,
    program,
    provisioned,
    streaming_replica,
    temporary_directory,
    wait_for_replay,
)
from ..support.places import new_place
from ..support.shared_files import (
    listed,
    logits,
    mapped,
    only_file,
    own,
    private_logits,
    using,
)
from ..support.small_models import Connection, make_model, make_trainable, train
from ..support.tensors import value
from ..support.waiting import wait_for

Connect = Callable[..., Connection]


@pytest.fixture(scope="module")
def durable() -> Iterator[Durable]:
    with provisioned() as server:
        yield server


def tmp_names(conn: Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT name FROM pg_ls_tmpdir()").fetchall()]


def test_a_writer_that_is_killed_leaves_nothing_and_the_next_writes(durable: Durable) -> None:
    with durable.connect() as conn:
        make_model(conn, "killed", d_model=256, n_layer=6, vocab=8000, n_positions=64)
        expected = private_logits(conn, "killed")
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04):
        with durable.connect() as conn:
            victim = durable.connect()
            pid = victim.info.backend_pid
            conn.execute("SELECT llm_release(shared => true)")

            def write(victim: Connection = victim) -> None:
                with contextlib.suppress(psycopg.Error):
                    logits(victim, "killed")

            thread = threading.Thread(target=write)
            thread.start()
            threading.Event().wait(delay)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            thread.join(60)
            victim.close()
            wait_for(lambda conn=conn: not alive(conn), "the end of all sessions")

        def back() -> bool:
            with contextlib.suppress(psycopg.OperationalError), durable.connect() as again:
                return value(again, "SELECT 1") == 1
            return False

        wait_for(back, "the server's recovery")
        with durable.connect() as conn:
            assert not [name for name in tmp_names(conn) if name.endswith(".tmp")]
            assert logits(conn, "killed") == expected
            assert len(mapped(conn)) == 1


def test_a_writer_that_hangs_keeps_nobody_from_reading(durable: Durable) -> None:
    """Others read the rows for themselves, and share the file once it is there."""
    writing = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 21320"
    with durable.connect() as conn, durable.connect() as reader:
        make_model(conn, "slow", d_model=256, n_layer=6, vocab=8000, n_positions=64)
        expected = private_logits(durable.connect(), "slow")
        for _ in range(50):
            conn.execute("SELECT llm_release(shared => true)")
            writer = durable.connect()
            thread = threading.Thread(target=logits, args=(writer, "slow"))
            thread.start()
            while thread.is_alive() and (row := conn.execute(writing).fetchone()) is None:
                pass
            if row is not None:
                os.kill(row[0], signal.SIGSTOP)
                if conn.execute(writing).fetchone() is not None:
                    break
                os.kill(row[0], signal.SIGCONT)
            thread.join()
            writer.close()
        else:
            pytest.skip("never met a session that was writing")
        try:
            assert logits(reader, "slow") == expected
            assert mapped(reader) == []
            assert logits(reader, "slow") == expected
        finally:
            os.kill(row[0], signal.SIGCONT)
            thread.join()
        assert logits(reader, "slow") == expected
        assert mapped(reader) == mapped(writer)
        assert len(mapped(reader)) == 1
        writer.close()


def test_a_cancelled_writer_leaves_nothing(durable: Durable) -> None:
    with durable.connect() as conn, durable.connect() as other:
        make_model(conn, "cancelled", d_model=256, n_layer=6, vocab=8000, n_positions=64)
        for timeout in range(1, 60, 6):
            conn.execute("SELECT llm_release(shared => true)")
            other.execute(f"SET statement_timeout = {timeout}".encode())
            with contextlib.suppress(errors.QueryCanceled):
                logits(other, "cancelled")
            assert not [name for name in tmp_names(conn) if name.endswith(".tmp")]
            assert value(conn, "SELECT count(*) FROM pg_locks WHERE objsubid = 21320") == 0
        other.execute("SET statement_timeout = 0")
        assert logits(other, "cancelled") == private_logits(conn, "cancelled")


def test_a_restart_and_a_backup_leave_nothing(durable: Durable) -> None:
    with durable.connect() as conn:
        make_model(conn, "kept")
        expected = logits(conn, "kept")
        assert tmp_names(conn)
    with temporary_directory() as directory:
        backup = directory / "backup"
        command = [program("pg_basebackup"), "-c", "fast", "-D", backup, "-d", durable.server.url("postgres")]
        subprocess.run(command, check=True, capture_output=True)
        assert not list(backup.rglob("pgsql_tmp*"))
    durable.server.stop()
    durable.server.start()
    with durable.connect() as conn:
        assert tmp_names(conn) == []
        assert logits(conn, "kept") == expected
        assert tmp_names(conn)


def test_a_standby_has_files_of_its_own(durable: Durable) -> None:
    """Written in recovery and kept over its promotion; servers that share a directory are told apart."""
    place = new_place("llm-sql-shared-")
    own(place)
    try:
        with durable.connect() as conn, streaming_replica(durable) as standby:
            make_trainable(conn, "followed")
            logits(using(conn, place), "followed")
            with standby.connect() as reader, standby.connect() as other:
                wait_for_replay(conn, reader)
                assert (
                    logits(reader, "followed")
                    == logits(using(other, place), "followed")
                    == logits(conn, "followed")
                )
                assert len({path for one in (conn, reader, other) for path in mapped(one)}) == 3
                assert listed(reader) == [("followed", "float32", True)]
                train(conn, "followed", 1, lr_max=0.1)
                wait_for_replay(conn, reader)
                assert logits(reader, "followed") == logits(conn, "followed")
                kept = mapped(reader)
                assert value(reader, "SELECT pg_promote()")
                assert logits(reader, "followed") == logits(conn, "followed")
                assert mapped(reader) == kept
                train(reader, "followed", 1, lr_max=0.1)
                train(conn, "followed", 1, lr_max=0.2)
                # Two histories from here on, which may number what they write alike.
                theirs = [logits(one, "followed") for one in (reader, using(other, place))]
                assert theirs[0] == theirs[1] == private_logits(standby.connect(), "followed")
                assert logits(conn, "followed") == private_logits(durable.connect(), "followed") != theirs[0]
                assert value(reader, "SELECT llm_release(shared => true)") > 0
                assert listed(reader) == []
            assert len(listed(conn)) > 0
    finally:
        shutil.rmtree(place)


def test_another_directorys_leftovers_are_not_believed_and_go(durable: Durable) -> None:
    """Of an earlier start of the server: nobody knows what has happened to its data directory since."""
    place = new_place("llm-sql-shared-")
    own(place)
    try:
        with durable.connect() as conn:
            make_model(conn, "left")
            expected = logits(using(conn, place), "left")
        left = only_file(place)
        (place / (left.name + ".1.tmp")).write_bytes(b"")
        own(place / (left.name + ".1.tmp"))
        foreign = place / left.name.replace(left.name.split(".")[1], "0123456789abcdef")
        foreign.write_bytes(left.read_bytes())
        started = left.stat().st_ino, left.stat().st_mtime_ns
        durable.server.stop()
        durable.server.start()
        with durable.connect() as conn, durable.connect() as reader:
            using(reader, place).execute("SET pg_llm.shared_size = 0")
            assert logits(reader, "left") == expected
            assert mapped(reader) == []
            make_model(conn, "next")
            logits(using(conn, place), "next")
            assert sorted(place.iterdir()) == sorted([foreign, *map(Path, mapped(conn))])
            assert logits(conn, "left") == expected
            assert started not in {(path.stat().st_ino, path.stat().st_mtime_ns) for path in place.iterdir()}
    finally:
        shutil.rmtree(place)
