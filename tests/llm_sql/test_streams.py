"""A stream is its reader's loop: what he does in it on the same connection is neither lost nor changed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from llm_sql import AsyncLanguageModel, LanguageModel
from llm_sql.client import AsyncPGLLMClient, PGLLMClient

OPTIONS: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "seed": 7}


class Loop:
    """A way to stream on a connection, and to use that connection meanwhile."""

    def __init__(self, stream: Callable[[], Iterator[Any]], raw: psycopg.Connection[Any], note: Any) -> None:
        self.stream = stream
        self.raw = raw
        self.note = note

    def write(self, number: int) -> None:
        self.raw.execute("INSERT INTO note VALUES (%s)", (number,))

    def committed(self) -> list[int]:
        """What another connection sees."""
        return [n for (n,) in self.note.execute("SELECT n FROM note ORDER BY n").fetchall()]

    def is_idle(self) -> bool:
        return self.raw.info.transaction_status == TransactionStatus.IDLE


@pytest.fixture
def notes(tiny: LanguageModel, conn: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    conn.execute("CREATE TABLE note (n int PRIMARY KEY)")
    yield conn
    # Waits for nobody: what a test left open is ended first.
    conn.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    conn.execute("DROP TABLE note")


@pytest.fixture(params=["client", "model"])
def autocommit(request: Any, notes: Any, connect: Any, db_url: str) -> Iterator[Loop]:
    if request.param == "client":
        raw = connect(autocommit=True)
        yield Loop(lambda: PGLLMClient(raw).stream("the ", model="tiny", **OPTIONS), raw, notes)
        return
    engine = create_engine(db_url, isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        raw = session.connection().connection.driver_connection  # type: ignore[assignment]
        yield Loop(lambda: LanguageModel(session, "tiny").stream("the ", **OPTIONS), raw, notes)
    engine.dispose()


@pytest.fixture(params=["client", "model"])
def transaction(request: Any, notes: Any, connect: Any, engine: Engine) -> Iterator[Loop]:
    if request.param == "client":
        raw = connect(autocommit=False)
        yield Loop(lambda: PGLLMClient(raw).stream("the ", model="tiny", **OPTIONS), raw, notes)
        return
    with Session(engine) as session:
        raw = session.connection().connection.driver_connection  # type: ignore[assignment]
        yield Loop(lambda: LanguageModel(session, "tiny").stream("the ", **OPTIONS), raw, notes)


@pytest.fixture
def expected(tiny: LanguageModel) -> list[Any]:
    events = list(tiny.stream("the ", **OPTIONS))
    tiny.session.rollback()
    assert len(events) > 5
    return events


def test_what_is_written_in_autocommit_stays_when_the_loop_is_left(autocommit: Loop) -> None:
    for event in autocommit.stream():
        autocommit.write(event.step)
        assert autocommit.committed() == [1]
        break
    assert autocommit.is_idle()
    autocommit.write(50)
    assert autocommit.committed() == [1, 50]


def test_every_event_can_be_written_in_autocommit(autocommit: Loop, expected: list[Any]) -> None:
    seen = []
    for event in autocommit.stream():
        autocommit.write(event.step)
        assert autocommit.committed()[-1] == event.step
        seen.append(event)
    assert seen == expected
    assert autocommit.is_idle()


def test_an_error_in_autocommit_undoes_nothing_else(autocommit: Loop, expected: list[Any]) -> None:
    seen = []
    for event in autocommit.stream():
        seen.append(event)
        autocommit.write(event.step)
        with pytest.raises(psycopg.errors.UniqueViolation):
            autocommit.write(event.step)
    assert seen == expected
    assert autocommit.committed() == [event.step for event in expected]


@pytest.mark.parametrize("fails", [False, True])
def test_the_readers_own_transaction_in_autocommit(autocommit: Loop, fails: bool) -> None:
    for event in autocommit.stream():
        with contextlib.suppress(psycopg.errors.UniqueViolation), autocommit.raw.transaction():
            autocommit.write(event.step)
            if fails:
                autocommit.write(event.step)
    assert (autocommit.committed() == []) == fails
    with autocommit.raw.transaction():
        events = autocommit.stream()
        next(events)
        autocommit.write(1000)
    assert autocommit.committed()[-1] == 1000
    assert len(list(events)) > 2


def test_an_exception_in_the_loop_is_the_readers(autocommit: Loop) -> None:
    def read() -> None:
        for event in autocommit.stream():
            autocommit.write(event.step)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        read()
    assert autocommit.committed() == [1]
    autocommit.write(2)
    assert autocommit.committed() == [1, 2]


def test_throw_and_close_end_the_stream(autocommit: Loop) -> None:
    events: Any = autocommit.stream()
    next(events)
    with pytest.raises(KeyError):
        events.throw(KeyError("x"))
    assert list(events) == []
    assert autocommit.is_idle()
    events = autocommit.stream()
    events.close()
    assert list(events) == []
    assert autocommit.is_idle()


def test_the_collector_closes_a_stream(autocommit: Loop) -> None:
    ring: list[Any] = [autocommit.stream()]
    next(ring[0])
    ring.append(ring)
    assert not autocommit.is_idle()
    del ring
    gc.collect()
    assert autocommit.is_idle()


def test_two_streams_on_one_connection(autocommit: Loop, expected: list[Any]) -> None:
    assert list(zip(autocommit.stream(), autocommit.stream(), strict=True)) == list(
        zip(expected, expected, strict=True)
    )
    assert autocommit.is_idle()


def test_two_streams_in_one_transaction(transaction: Loop, expected: list[Any]) -> None:
    assert list(zip(transaction.stream(), transaction.stream(), strict=True)) == list(
        zip(expected, expected, strict=True)
    )


def test_writing_in_a_transaction_is_the_readers_to_commit(transaction: Loop) -> None:
    for event in transaction.stream():
        transaction.write(event.step)
        break
    assert transaction.raw.info.transaction_status == TransactionStatus.INTRANS
    assert transaction.committed() == []
    transaction.raw.commit()
    assert transaction.committed() == [1]
    for event in transaction.stream():
        transaction.write(event.step + 1)
    transaction.raw.rollback()
    assert transaction.committed() == [1]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_ending_the_transaction_in_the_loop(transaction: Loop, expected: list[Any], end: str) -> None:
    transaction.write(100)
    seen = []
    for event in transaction.stream():
        seen.append(event)
        transaction.write(event.step)
        getattr(transaction.raw, end)()
    assert seen == expected
    assert transaction.committed() == ([e.step for e in expected] + [100] if end == "commit" else [])


@pytest.mark.parametrize("when", ["before", "in"])
def test_savepoints_in_the_loop(transaction: Loop, expected: list[Any], when: str) -> None:
    events = transaction.stream()
    seen = [next(events)] if when == "before" else []

    def fail() -> None:
        with transaction.raw.transaction():
            seen.append(next(events))
            transaction.raw.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        fail()
    transaction.write(1)
    assert seen + list(events) == expected
    transaction.raw.commit()
    assert transaction.committed() == [1]


def test_an_aborted_transaction_stays_the_readers(transaction: Loop, expected: list[Any]) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        transaction.raw.execute("SELECT 1 / 0")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        next(transaction.stream())
    transaction.raw.rollback()
    assert list(transaction.stream()) == expected


def test_a_failing_stream_undoes_nothing_in_autocommit(notes: Any, connect: Any) -> None:
    raw = connect(autocommit=True)
    loop = Loop(lambda: PGLLMClient(raw).stream("x", temperature=-1.0, model="tiny"), raw, notes)
    loop.write(1)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        list(loop.stream())
    assert loop.is_idle()
    loop.write(2)
    assert loop.committed() == [1, 2]


def test_a_session_may_end_before_its_stream(
    tiny: LanguageModel, engine: Engine, expected: list[Any]
) -> None:
    one = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=1)
    with Session(one) as session:
        events = LanguageModel(session, "tiny").stream("the ", **OPTIONS)
        seen = [next(events)]
    with Session(one) as session:
        assert session.scalar(text("SELECT 1")) == 1
        assert seen + list(events) == expected
    one.dispose()


def test_bytes_are_no_prompt(tiny: LanguageModel, connect: Any) -> None:
    client = PGLLMClient(connect())
    prompt: Any = b"the "
    for call in (client.generate, client.stream, client.beam_search, tiny.generate, tiny.stream, tiny.encode):
        with pytest.raises(TypeError, match="decode"):
            call(prompt)  # type: ignore[operator]


# ---- asynchronous ----


def test_asynchronous_streams(notes: Any, expected: list[Any], server: Any, dbname: str) -> None:
    committed = Loop(lambda: iter(()), notes, notes).committed

    async def run() -> None:
        raw = await psycopg.AsyncConnection.connect(server.url(dbname), autocommit=True)
        client = AsyncPGLLMClient(raw)

        def stream() -> Any:
            return client.stream("the ", model="tiny", **OPTIONS)

        async for event in stream():
            await raw.execute("INSERT INTO note VALUES (%s)", (event.step,))
            break
        assert committed() == [1]
        async for _ in stream():
            break
        await raw.execute("INSERT INTO note VALUES (2)")
        assert committed() == [1, 2]
        assert raw.info.transaction_status == TransactionStatus.IDLE
        events = stream()
        seen = [await anext(events)]
        await raw.execute("INSERT INTO note VALUES (3)")
        assert committed() == [1, 2, 3]
        assert seen + [event async for event in events] == expected
        first, second = stream(), stream()
        assert [(await anext(first), await anext(second)) for _ in expected] == [(e, e) for e in expected]
        await first.aclose()
        events = stream()
        await anext(events)
        with pytest.raises(KeyError):
            await events.athrow(KeyError("x"))
        assert raw.info.transaction_status == TransactionStatus.IDLE

        # Cancelled while the server works: the first event waits for a lock.
        notes.execute("BEGIN; LOCK TABLE llm_model_config")
        task = asyncio.create_task(anext(stream()))
        while raw.info.transaction_status != TransactionStatus.ACTIVE:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        notes.execute("COMMIT")
        await raw.execute("INSERT INTO note VALUES (4)")
        assert committed() == [1, 2, 3, 4]
        await raw.close()

    asyncio.run(run())


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "READ COMMITTED"])
def test_asynchronous_sessions(notes: Any, expected: list[Any], db_url: str, level: Any) -> None:
    committed = Loop(lambda: iter(()), notes, notes).committed

    async def run() -> None:
        engine = create_async_engine(db_url, isolation_level=level, pool_size=1, max_overflow=0)
        async with AsyncSession(engine) as session:
            seen = []
            async for event in AsyncLanguageModel(session, "tiny").stream("the ", **OPTIONS):
                seen.append(event)
                await session.execute(text("INSERT INTO note VALUES (:n)"), {"n": event.step})
                await session.commit()
            assert seen == expected
            assert committed() == [event.step for event in expected]
            async for _ in AsyncLanguageModel(session, "tiny").stream("the ", **OPTIONS):
                await session.execute(text("INSERT INTO note VALUES (100)"))
                break
            await session.commit()
        assert committed()[-1] == 100
        await engine.dispose()

    asyncio.run(run())
