"""A standby under way: what is replayed below its readers, what cancels them, what outlives its promotion."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.durable import Durable, provisioned, streaming_replica, wait_for_replay
from ..support.shared_files import listed, logits, mapped, private_logits
from ..support.small_models import Connection, make_names, make_trainable, state_sha256, train
from ..support.tensors import value
from ..support.waiting import wait_for

STREAM = "SELECT token_id FROM llm_generate_stream('em', %(n)s, 1, 0, 1, 'names', 7)"
LOGITS = "SELECT md5(llm_logits('{1,2,3}', 'names')::text)"
EVALUATION = "SELECT md5(e::text) FROM llm_evaluate('names', 'train') e"
LOOP = (
    "CALL llm_train_loop(%s, %s, 3, lr_max => 0.01, warmup => 5, dropout_p => 0.1, batch_size => 2,"
    " log_every => 0)"
)
STEPS = 90


def make_endless(conn: Connection) -> None:
    """A model of names whose texts no token ends."""
    make_names(conn)
    conn.execute("UPDATE llm_bpe_vocab SET flags = '{bos}' WHERE model = 'names' AND token = '<|bos|>'")
    conn.execute(
        "INSERT INTO llm_bpe_vocab (model, token_id, token, bytes, flags)"
        r" VALUES ('names', 1000, '<|never|>', '\x2e', '{added,special,stop}')"
    )
    train(conn, "names", 10, lr_max=0.01)


@pytest.fixture
def primary() -> Iterator[Durable]:
    with provisioned() as server:
        with server.connect() as conn:
            make_endless(conn)
        yield server


@pytest.fixture
def standby(primary: Durable) -> Iterator[Durable]:
    with streaming_replica(primary) as server:
        yield server


def test_every_version_is_replayed_whole(primary: Durable, standby: Durable) -> None:
    """The primary commits every step: each result on the standby is one committed version's."""
    committed: dict[str, set[Any]] = {LOGITS: set(), EVALUATION: set()}
    seen: dict[str, set[Any]] = {LOGITS: set(), EVALUATION: set()}
    problems: list[str] = []
    done = threading.Event()

    def read(query: str) -> None:
        with standby.connect() as conn:
            while not done.is_set():
                try:
                    seen[query].add(value(conn, query))
                except psycopg.Error as problem:
                    problems.append(f"{problem.sqlstate} {problem}")

    with primary.connect() as writer, standby.connect() as reader:
        for query in committed:
            committed[query].add(value(writer, query))
        readers = [threading.Thread(target=read, args=(query,)) for query in (*committed, LOGITS)]
        for thread in readers:
            thread.start()
        try:
            for _ in range(25):
                train(writer, "names", 1, lr_max=0.02)
                for query in committed:
                    committed[query].add(value(writer, query))
            wait_for_replay(writer, reader)
        finally:
            done.set()
            for thread in readers:
                thread.join()
        assert not problems
        for query in committed:
            assert len(committed[query]) == 26
            assert seen[query] <= committed[query]
            assert len(seen[query]) > 3
            assert value(reader, query) == value(writer, query)


def test_a_conflict_with_replay_cancels_and_a_retry_works(primary: Durable, standby: Durable) -> None:
    """40001 for a statement, the end of the session for one that waits inside of a transaction."""
    problems: list[psycopg.Error] = []

    def endless(conn: Connection) -> None:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(STREAM, {"n": 100_000_000})
        problems.append(caught.value)

    with primary.connect() as writer, standby.connect() as reader, standby.connect() as observer:
        observer.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        observer.execute("SELECT pg_reload_conf()")
        wait_for(lambda: value(observer, "SHOW max_standby_streaming_delay") == "0", "the setting")
        before = reader.execute(STREAM, {"n": 40}).fetchall()
        thread = threading.Thread(target=endless, args=(reader,))
        thread.start()
        busy = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s"
        wait_for(lambda: value(observer, busy, (reader.info.backend_pid,)), "the stream")
        with standby.connect() as idle, idle.transaction(force_rollback=True):
            idle.execute(f"DECLARE c CURSOR FOR {STREAM}", {"n": 1000})
            first = idle.execute("FETCH 2 FROM c").fetchall()
            # Rows that both may need are removed on the primary, and it does not know.
            there = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            for _ in range(300):
                if not thread.is_alive() and not value(observer, there, (idle.info.backend_pid,)):
                    break
                with writer.transaction():
                    writer.execute("UPDATE llm_param SET data = data WHERE model = 'names'")
                writer.execute("VACUUM llm_param")
                thread.join(0.2)
            else:
                pytest.fail("replay cancels neither")
            assert problems[0].sqlstate == "40001"
            assert "conflict with recovery" in str(problems[0])
            with pytest.raises(psycopg.Error) as caught:
                idle.execute("FETCH 2 FROM c")
            assert "conflict with recovery" in str(caught.value)
        assert first == before[:2]
        wait_for_replay(writer, observer)
        # the cancelled session goes on, without what it had begun
        for conn in (reader, observer):
            wait_for(lambda conn=conn: attempt(conn) == before, "the retry")


def attempt(conn: Connection) -> list[Any] | None:
    """The stream from its beginning, unless replay cancels it again."""
    with contextlib.suppress(errors.SerializationFailure):
        return conn.execute(STREAM, {"n": 40}).fetchall()
    return None


def test_streams_go_on_over_a_promotion(primary: Durable, standby: Durable) -> None:
    """To the same bits, whatever holds their weights, while the new primary trains the model."""
    with contextlib.ExitStack() as stack, standby.connect() as conn:
        cursors = []
        for weights in ("float32", "bf16", "int8", "int4"):
            session = stack.enter_context(standby.connect())
            session.execute(f"SET pg_llm.weights = '{weights}'")
            whole = session.execute(STREAM, {"n": 40}).fetchall()
            assert len(whole) == 40
            stack.enter_context(session.transaction())
            session.execute(f"DECLARE c CURSOR FOR {STREAM}", {"n": 40})
            cursors.append((session, whole, session.execute("FETCH 10 FROM c").fetchall()))
        assert value(conn, "SELECT pg_promote()")
        cursors = [(s, whole, got + s.execute("FETCH 10 FROM c").fetchall()) for s, whole, got in cursors]
        train(conn, "names", 2, lr_max=0.05)
        conn.execute("VACUUM llm_param")
        for session, whole, got in cursors:
            assert got + session.execute("FETCH ALL FROM c").fetchall() == whole
            # for this transaction it is as it was; it began where nothing could be written
            with pytest.raises(errors.ReadOnlySqlTransaction), session.transaction():
                session.execute("DELETE FROM llm_dataset")


@pytest.mark.parametrize("end", ["killed", "alive"])
def test_a_run_is_resumed_on_the_promoted_standby(primary: Durable, standby: Durable, end: str) -> None:
    """Wherever it stood: with the bits, and the log, of a run that nothing interrupted."""
    with primary.connect() as conn:
        for model in ("moved", "whole"):
            make_trainable(conn, model, d_model=64)

    def loop() -> None:
        with contextlib.suppress(psycopg.OperationalError), primary.connect() as conn:
            conn.execute(LOOP, ("moved", STEPS))

    thread = threading.Thread(target=loop)
    with standby.connect() as conn:
        # What a session of the standby has in memory is no hindrance.
        wait_for(lambda: value(conn, "SELECT count(*) FROM llm_param WHERE model = 'whole'"), "the models")
        thread.start()
        last = "SELECT COALESCE(max(last_step), 0) FROM llm_train_run WHERE model = 'moved'"
        wait_for(lambda: value(conn, last) >= 9, "progress of the loop")
        conn.execute("SELECT llm_logits('{1,2,3}', 'moved')")
        if end == "killed":
            primary.server.kill()
        # A statement that waited for it would hold a snapshot against what is still replayed.
        assert value(conn, "SELECT pg_promote(wait => false)")
        wait_for(lambda: not value(conn, "SELECT pg_is_in_recovery()"), "the promotion")
        status = "SELECT run_id, status, last_step FROM llm_train_status WHERE model = 'moved'"
        run, said, reached = conn.execute(status).fetchone() or (0, "", 0)
        assert reached < STEPS
        assert said == "interrupted"
        conn.execute("CALL llm_train_resume(%s)", (run,))
        conn.execute(LOOP, ("whole", STEPS))
        assert state_sha256(conn, "moved") == state_sha256(conn, "whole")
        losses = "SELECT array_agg((step, loss, grad_norm) ORDER BY step) FROM llm_train_log WHERE model = %s"
        assert value(conn, losses, ("moved",)) == value(conn, losses, ("whole",))
    thread.join(600)


def sharing(durable: Durable) -> Connection:
    """A session that shares its weights, however young they are."""
    conn = durable.connect()
    conn.execute("SELECT pg_llm_numerics_version()")
    conn.execute("SET pg_llm.shared_age = 0")
    return conn


def shared_files(durable: Durable) -> set[Path]:
    return set(durable.server.data_directory.resolve().rglob("pgsql_tmp_llm*"))


def test_shared_files_are_each_servers_own(primary: Durable) -> None:
    """A backup takes none along, a standby writes its own, and they serve on when it is promoted."""
    with sharing(primary) as writer:
        before = logits(writer, "names")
        assert len(shared_files(primary)) == 1
        with streaming_replica(primary) as standby:
            assert shared_files(standby) == set()
            with sharing(standby) as reader, sharing(standby) as other:
                assert logits(reader, "names") == logits(other, "names") == before
                assert mapped(reader) == mapped(other)
                assert {Path(path).resolve() for path in mapped(reader)} == shared_files(standby)
                assert {path.name for path in shared_files(standby)} != {
                    path.name for path in shared_files(primary)
                }
                train(writer, "names", 1, lr_max=0.05)
                wait_for_replay(writer, reader)
                replayed = logits(writer, "names")
                assert logits(reader, "names") == replayed != before
                assert [row for row in listed(reader) if row[2]] == [("names", "float32", True)]
                assert value(reader, "SELECT pg_promote()")
                with sharing(standby) as late:
                    assert logits(late, "names") == logits(reader, "names") == replayed
                    assert len(mapped(late)) == 1
                # The two servers' transactions bear the same numbers from now on.
                train(other, "names", 1, lr_max=0.02)
                train(writer, "names", 1, lr_max=0.04)
                for session, durable in ((reader, standby), (writer, primary)):
                    with durable.connect() as alone:
                        assert logits(session, "names") == private_logits(alone, "names") != replayed
                after = logits(reader, "names")
                assert after != logits(writer, "names")
            standby.server.stop()
            standby.server.start()
            assert shared_files(standby) == set()
            with sharing(standby) as reader:
                assert logits(reader, "names") == after
                assert len(mapped(reader)) == len(shared_files(standby)) == 1
