"""A training call's progress, as seen from another connection while it runs."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from llm_sql.connections import opens_connections, separate_engine
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.streaming import refusing

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """Where a running training call is."""

    model: str
    run_id: int | None
    step: int
    total: int
    loss: float | None
    lr: float | None
    tokens: int


ProgressCallback = Callable[[Progress], None]

PROGRESS_QUERY = text(
    "SELECT model, run_id, step, total, loss, lr, tokens FROM public.llm_train_progress"
    " WHERE CASE WHEN CAST(:pid AS integer) IS NULL THEN model = :model ELSE pid = :pid END"
)
"""By the trainer's backend, or by the model where the backend is not known (behind a pooler)."""

# What a commit of another connection would wait for.
BLOCKING = text(
    "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid()"
    " AND mode = 'RowExclusiveLock' AND relation IN ('public.llm_param'::pg_catalog.regclass,"
    " 'public.llm_dataset'::pg_catalog.regclass, 'public.llm_model_config'::pg_catalog.regclass)"
)


def check_nothing_blocks(n_locks: int) -> None:
    """UsageError when the session's own changes would make a run on another connection wait for ever."""
    if n_locks:
        raise UsageError(
            "commit_every trains on a separate connection, which would wait for this session's changes",
            hint="Commit or roll back the session first.",
        )


class ProgressWatcher:
    """Calls back from a thread of its own while another connection trains.

    It polls on a connection that is nobody else's. Where there is none to be had the training goes on
    unseen: progress is a courtesy. An error of the callback ends the reports and is raised at the end.
    """

    def __init__(
        self, engine: Engine, callback: ProgressCallback, *, pid: int | None = None, model: str | None = None
    ) -> None:
        self._engine = engine
        self._whose = {"pid": pid, "model": model}
        self._callback = callback
        self._done = threading.Event()
        self._calling = threading.Lock()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name="llm-sql progress", daemon=True)

    def __enter__(self) -> ProgressWatcher:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._done.set()
        with self._calling:
            pass
        # A pooler may keep the thread waiting for the very server that this session holds.
        self._thread.join(timeout=1)
        if self._error is not None and error is None:
            raise self._error

    def _watch(self) -> None:
        last = None
        with contextlib.suppress(SQLAlchemyError, LLMSQLError):
            engine = separate_engine(self._engine)
            try:
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    while not self._done.wait(POLL_SECONDS):
                        row = connection.execute(PROGRESS_QUERY, self._whose).one_or_none()
                        if row is not None and row != last and not self._report(Progress(*row)):
                            return
                        last = row
            finally:
                engine.dispose()

    def _report(self, progress: Progress) -> bool:
        with self._calling:
            if self._done.is_set():
                return False
            try:
                self._callback(progress)
            except BaseException as error:
                self._error = error
        return self._error is None


_NOTICE = re.compile(r"step (\d+) of (\d+): loss (\S+), rate (\S+)")


class NoticeWatcher:
    """Calls back with what the trainer's own connection says meanwhile: llm_train's NOTICE every log_every
    steps. For connections beside which no other can be opened.
    """

    def __init__(self, driver: Any, model: str, callback: ProgressCallback) -> None:
        self._driver = driver
        self._model = model
        self._callback = callback
        self._error: BaseException | None = None

    def __enter__(self) -> NoticeWatcher:
        self._driver.add_notice_handler(self._notice)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._driver.remove_notice_handler(self._notice)
        if self._error is not None and error is None:
            raise self._error

    def _notice(self, diagnostic: Any) -> None:
        found = _NOTICE.fullmatch(diagnostic.message_primary or "")
        if found is None or self._error is not None:
            return
        step, total, loss, lr = found.groups()
        progress = Progress(self._model, None, int(step), int(total), float(loss), float(lr), 0)
        try:
            with refusing(self._driver, "the connection is training: use another one in the callback"):
                self._callback(progress)
        except BaseException as error:
            self._error = error


def watching(
    connection: Connection, model: str, callback: ProgressCallback | None, pid: int | None
) -> contextlib.AbstractContextManager[object]:
    """Reports the training that `connection` does, to the callback if there is one."""
    if callback is None:
        return contextlib.nullcontext()
    if opens_connections(connection.engine):
        return ProgressWatcher(connection.engine, callback, pid=pid, model=model)
    driver = connection.connection.driver_connection
    return (
        NoticeWatcher(driver, model, callback)
        if hasattr(driver, "add_notice_handler")
        else (contextlib.nullcontext())
    )
