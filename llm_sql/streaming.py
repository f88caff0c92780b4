"""Streams of generated tokens over a psycopg connection that stays its user's own.

A cursor lives in a transaction, and a stream is suspended while its reader's loop runs. So a stream never
lets a statement of anybody else into what it holds open: before the connection does anything for somebody
else, the stream fetches the rest of its rows into memory and lets go. What the reader writes, commits, rolls
back or throws in the loop is then exactly what it would be without the stream.

psycopg takes `connection.lock` before all that it sends; the guard stands in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from llm_sql.errors import UsageError


@dataclass(frozen=True)
class StreamEvent:
    """One generated token: its number from 1, id, text of this piece, text so far, and whether it is the
    last.
    """

    step: int
    token_id: int
    token: str
    text: str
    is_complete: bool


Connection: TypeAlias = "psycopg.Connection[Any]"
AsyncConnection: TypeAlias = "psycopg.AsyncConnection[Any]"
Query = tuple[str, Mapping[str, Any]]
"""Columns step, token_id, token, text, is_complete, and the values of its %(name)s."""

_working: ContextVar[object] = ContextVar("llm_sql_working", default=None)


@contextlib.contextmanager
def _work(guard: object) -> Iterator[None]:
    """Within, the guard takes statements for the streams' own."""
    token = _working.set(guard)
    try:
        yield
    finally:
        _working.reset(token)


def as_text(value: Any) -> str:
    """Text of a database in SQL_ASCII arrives as bytes."""
    return bytes(value).decode("utf-8", "replace") if isinstance(value, (bytes, memoryview)) else str(value)


def _event(row: tuple[Any, ...]) -> StreamEvent:
    step, token_id, token, text, is_complete = row
    return StreamEvent(step, token_id, as_text(token), as_text(text), is_complete)


class Guard:
    """Stands in the place of a connection's lock and settles its open streams before others take it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.streams: list[_Fetcher] = []
        self.refusal: str | None = None

    @classmethod
    def of(cls, conn: Connection) -> Guard:
        if not isinstance(conn.lock, cls):
            conn.lock = cls(conn.lock)  # type: ignore[assignment]
        return conn.lock  # type: ignore[return-value]

    def acquire(self, *arguments: Any, **options: Any) -> bool:
        while _working.get() is not self:
            if self.refusal is not None:
                raise UsageError(self.refusal)
            for stream in list(self.streams):
                stream.settle()
            taken: bool = self.inner.acquire(*arguments, **options)
            if not taken or not self.streams:
                return taken
            self.inner.release()
        return bool(self.inner.acquire(*arguments, **options))

    def release(self) -> None:
        self.inner.release()

    def locked(self) -> bool:
        return bool(self.inner.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def refusing(conn: object, message: str) -> Iterator[None]:
    """Within, statements on the connection are a UsageError: a callback runs in the middle of work on it."""
    if not isinstance(conn, psycopg.Connection):
        yield
        return
    guard = Guard.of(conn)
    before, guard.refusal = guard.refusal, message
    try:
        yield
    finally:
        guard.refusal = before


class _Fetcher:
    """The open cursor of one stream, and the rows that were fetched before their reader asked for them."""

    def __init__(self, connect: Callable[[], Connection], query: Query) -> None:
        self.connect = connect
        self.query = query
        self.rows: deque[tuple[Any, ...]] = deque()
        self.mutex = threading.RLock()
        self.guard: Guard | None = None
        self.conn: Connection | None = None
        self.cursor: psycopg.ServerCursor[tuple[Any, ...]] | None = None
        self.is_finished = False
        self.is_abandoned = False
        self.owns_transaction = False
        self.failure: BaseException | None = None

    def next(self) -> tuple[Any, ...] | None:
        with self.mutex:
            if self.rows:
                return self.rows.popleft()
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
            if self.is_finished:
                return None
            if self.guard is None:
                self.conn = self.connect()
                self.guard = Guard.of(self.conn)
            if self.cursor is None:
                for stream in list(self.guard.streams):
                    stream.settle()
            with _work(self.guard), self._ending_on_error():
                if self.cursor is None:
                    self._open()
                row = None if self.cursor is None else self.cursor.fetchone()
                if row is None or row[-1]:
                    self._close()
            return row

    def _open(self) -> None:
        assert self.conn is not None
        assert self.guard is not None
        if self.conn.autocommit and self.conn.info.transaction_status == TransactionStatus.IDLE:
            self.owns_transaction = True
            self.conn.execute("BEGIN", prepare=False)
        self.guard.streams.append(self)
        self.cursor = self.conn.cursor(f"llm_sql_{uuid.uuid4().hex}", row_factory=tuple_row)
        self.cursor.itersize = 1
        self.cursor.execute(*self.query)

    @contextlib.contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                self._close()
            raise

    def _close(self) -> None:
        """Let go of cursor and transaction. Nothing but the stream's own reading is in the transaction."""
        assert self.conn is not None
        assert self.guard is not None
        self.is_finished = True
        if self in self.guard.streams:
            self.guard.streams.remove(self)
        if self.owns_transaction:
            self.owns_transaction = False
            if not self.conn.closed:
                self.conn.execute("COMMIT", prepare=False)
        elif self.cursor is not None and not self.conn.closed:
            self.cursor.close()

    def settle(self) -> None:
        """Fetch the rest, unless nobody waits for it, and let go. An error is the reader's, at his turn."""
        with self.mutex:
            if self.is_finished or self.cursor is None or self.guard is None:
                return
            try:
                with _work(self.guard), self._ending_on_error():
                    if not self.is_abandoned:
                        self.rows.extend(self.cursor.fetchall())
                    self._close()
            except psycopg.Error as error:
                self.failure = error

    def abandon(self) -> None:
        """The reader has left."""
        with self.mutex:
            self.is_abandoned = True
            self.rows.clear()
            self.failure = None
            if self.cursor is None:
                self.is_finished = True
            self.settle()


class Stream(Generator[StreamEvent, None, None]):
    """The events of one generation, each as soon as the server has made it. Closing it ends the generation.

    The connection stays free for other use: a statement on it first completes the generation, and what is
    left of the events then comes from memory.
    """

    def __init__(self, connect: Callable[[], Connection], query: Query) -> None:
        self._fetcher = _Fetcher(connect, query)

    def send(self, _: None, /) -> StreamEvent:
        row = self._fetcher.next()
        if row is None:
            raise StopIteration
        return _event(row)

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> StreamEvent:
        self._fetcher.abandon()
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        raise error.with_traceback(tb) if tb is not None else error

    def close(self) -> None:
        self._fetcher.abandon()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A collector may run this in the middle of a statement: then the connection's next user closes.
        fetcher = self._fetcher
        fetcher.is_abandoned = True
        if fetcher.guard is not None and not fetcher.guard.locked() and fetcher.mutex.acquire(blocking=False):
            try:
                with contextlib.suppress(psycopg.Error):
                    fetcher.abandon()
            finally:
                fetcher.mutex.release()


# ---- the same over an asynchronous connection ----


class AsyncGuard:
    """Guard for an asynchronous connection."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.streams: list[_AsyncFetcher] = []

    @classmethod
    def of(cls, conn: AsyncConnection) -> AsyncGuard:
        if not isinstance(conn.lock, cls):
            conn.lock = cls(conn.lock)  # type: ignore[assignment]
        return conn.lock  # type: ignore[return-value]

    async def acquire(self) -> bool:
        while _working.get() is not self:
            if self.streams:
                # A loop that was left a moment ago closes its iterator in a task that has yet to run.
                for _ in range(3):
                    await asyncio.sleep(0)
            for stream in list(self.streams):
                await stream.settle()
            await self.inner.acquire()
            if not self.streams:
                return True
            self.inner.release()
        return bool(await self.inner.acquire())

    def release(self) -> None:
        self.inner.release()

    def locked(self) -> bool:
        return bool(self.inner.locked())

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class _AsyncFetcher:
    """_Fetcher over an asynchronous connection."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncConnection]], query: Query) -> None:
        self.connect = connect
        self.query = query
        self.rows: deque[tuple[Any, ...]] = deque()
        self.mutex = asyncio.Lock()
        self.guard: AsyncGuard | None = None
        self.conn: AsyncConnection | None = None
        self.cursor: psycopg.AsyncServerCursor[tuple[Any, ...]] | None = None
        self.is_finished = False
        self.is_abandoned = False
        self.owns_transaction = False
        self.failure: BaseException | None = None

    async def next(self) -> tuple[Any, ...] | None:
        async with self.mutex:
            if self.rows:
                return self.rows.popleft()
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
            if self.is_finished:
                return None
            if self.guard is None:
                self.conn = await self.connect()
                self.guard = AsyncGuard.of(self.conn)
            if self.cursor is None:
                for stream in list(self.guard.streams):
                    await stream.settle()
            with _work(self.guard):
                async with self._ending_on_error():
                    if self.cursor is None:
                        await self._open()
                    row = None if self.cursor is None else await self.cursor.fetchone()
                    if row is None or row[-1]:
                        await self._close()
            return row

    async def _open(self) -> None:
        assert self.conn is not None
        assert self.guard is not None
        if self.conn.autocommit and self.conn.info.transaction_status == TransactionStatus.IDLE:
            self.owns_transaction = True
            await self.conn.execute("BEGIN", prepare=False)
        self.guard.streams.append(self)
        self.cursor = self.conn.cursor(f"llm_sql_{uuid.uuid4().hex}", row_factory=tuple_row)
        self.cursor.itersize = 1
        await self.cursor.execute(*self.query)

    @contextlib.asynccontextmanager
    async def _ending_on_error(self) -> AsyncGenerator[None, None]:
        try:
            yield
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                await self._close()
            raise

    async def _close(self) -> None:
        assert self.conn is not None
        assert self.guard is not None
        self.is_finished = True
        if self in self.guard.streams:
            self.guard.streams.remove(self)
        if self.owns_transaction:
            self.owns_transaction = False
            if not self.conn.closed:
                await self.conn.execute("COMMIT", prepare=False)
        elif self.cursor is not None and not self.conn.closed:
            await self.cursor.close()

    async def settle(self) -> None:
        async with self.mutex:
            if self.is_finished or self.cursor is None or self.guard is None:
                return
            try:
                with _work(self.guard):
                    async with self._ending_on_error():
                        if not self.is_abandoned:
                            self.rows.extend(await self.cursor.fetchall())
                        await self._close()
            except psycopg.Error as error:
                self.failure = error

    async def abandon(self) -> None:
        self.is_abandoned = True
        self.rows.clear()
        self.failure = None
        if self.cursor is None:
            self.is_finished = True
        await self.settle()


_closing: set[asyncio.Task[None]] = set()


class AsyncStream(AsyncGenerator[StreamEvent, None]):
    """Stream over an asynchronous connection; aclose() ends the generation.

    A loop that is left early lets go of the connection at the event loop's next turn, or before the next
    statement, whichever comes first.
    """

    def __init__(self, connect: Callable[[], Awaitable[AsyncConnection]], query: Query) -> None:
        self._fetcher = _AsyncFetcher(connect, query)

    async def asend(self, _: None, /) -> StreamEvent:
        row = await self._fetcher.next()
        if row is None:
            raise StopAsyncIteration
        return _event(row)

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None, /) -> StreamEvent:
        await self._fetcher.abandon()
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        raise error.with_traceback(tb) if tb is not None else error

    async def aclose(self) -> None:
        await self._fetcher.abandon()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        fetcher = self._fetcher
        fetcher.is_abandoned = True
        if fetcher.is_finished or fetcher.cursor is None:
            return
        try:
            task = asyncio.get_running_loop().create_task(fetcher.abandon())
        except RuntimeError:  # no loop runs any more: the connection's next user closes
            return
        _closing.add(task)
        task.add_done_callback(_closing.discard)
