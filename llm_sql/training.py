"""A training call's arguments, and its progress as seen from another connection while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Arguments of llm_train; None leaves the database's default. Rates are per step, sizes in tokens or
    rows.
    """

    dropout_p: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    wd: float | None = None
    lr_max: float | None = None
    warmup: int | None = None
    grad_clip: float | None = None
    grad_workers: int | None = None
    prune_workers: int | None = None
    batch_size: int | None = None
    grad_accum: int | None = None
    block_size: int | None = None
    schedule: str | None = None
    min_lr: float | None = None
    decay: str | None = None
    seed: int | None = None
    data_order: str | None = None
    start_step: int | None = None
    total_steps: int | None = None
    log_every: int | None = None
    keep_grad: bool | None = None

    @classmethod
    def of(cls, **options: Any) -> TrainingOptions:
        """Options by name; an unknown one is a TypeError that lists them."""
        known = {field.name for field in fields(cls)}
        unknown = set(options) - known
        if unknown:
            raise TypeError(
                f"unknown training option {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
            )
        return cls(**options)

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


_CASTS = {int: "bigint", float: "double precision", str: "text", bool: "boolean"}
_INTEGERS = {"warmup", "grad_workers", "prune_workers", "batch_size", "grad_accum", "block_size", "log_every"}


def _arguments(options: dict[str, Any]) -> str:
    """Named arguments with their types: drivers send Python's ints as whatever fits."""
    casts = {name: "integer" if name in _INTEGERS else _CASTS[type(value)] for name, value in options.items()}
    return "".join(f", {name} => CAST(:{name} AS {type_})" for name, type_ in casts.items())


def train_statement(model: str, n_steps: int, options: TrainingOptions) -> TextClause:
    """SELECT llm_train(...): one transaction, returns the run's id."""
    given = _with_float_types(options.given())
    statement = f"SELECT llm_train(CAST(:model AS text), CAST(:n_steps AS integer){_arguments(given)})"
    return text(statement).bindparams(model=model, n_steps=n_steps, **given)


def train_loop_statement(model: str, n_steps: int, commit_every: int, options: TrainingOptions) -> TextClause:
    """CALL llm_train_loop(...): commits as it goes, so it needs a connection in autocommit."""
    given = _with_float_types(options.given())
    statement = (
        "CALL llm_train_loop(CAST(:model AS text), CAST(:n_steps AS integer), "
        f"commit_every => CAST(:commit_every AS integer){_arguments(given)})"
    )
    return text(statement).bindparams(model=model, n_steps=n_steps, commit_every=commit_every, **given)


def _with_float_types(given: dict[str, Any]) -> dict[str, Any]:
    """lr_max=1 means 1.0: the parameter is double precision whatever the caller wrote."""
    floats = {"dropout_p", "beta1", "beta2", "eps", "wd", "lr_max", "grad_clip", "min_lr"}
    return {name: float(value) if name in floats else value for name, value in given.items()}


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
    "SELECT model, run_id, step, total, loss, lr, tokens FROM public.llm_train_progress WHERE pid = :pid"
)


def read_progress(connection: Connection, pid: int) -> Progress | None:
    row = connection.execute(PROGRESS_QUERY, {"pid": pid}).one_or_none()
    return None if row is None else Progress(*row)


class ProgressWatcher:
    """Calls back while another connection (backend `pid`) trains; the callback runs in the watcher's
    thread.
    """

    def __init__(self, engine: Engine, pid: int, callback: ProgressCallback) -> None:
        self._engine = engine
        self._pid = pid
        self._callback = callback
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="llm-sql progress", daemon=True)

    def __enter__(self) -> ProgressWatcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        last = None
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                while not self._done.wait(POLL_SECONDS):
                    progress = read_progress(connection, self._pid)
                    if progress is not None and progress != last:
                        self._callback(progress)
                        last = progress
        except SQLAlchemyError:
            # Progress is a courtesy: without a second connection the training goes on unseen.
            return
