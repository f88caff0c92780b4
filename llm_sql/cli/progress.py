"""The bars that commands show in a terminal while they work, on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from llm_sql.cli.common import console

if TYPE_CHECKING:
    from llm_sql import training
    from llm_sql.corpus import LoadProgress


def is_terminal() -> bool:
    """In a log or a pipe a bar is only its last state."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def progress_bar(total: int, quiet: bool = False) -> Iterator[Callable[[training.Progress], None]]:
    """A bar with the live loss and rate; yields the callback that moves it."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), disable=quiet or not is_terminal()) as bar:
        task = bar.add_task("train", total=total, state="")
        first: list[int] = []

        def advance(progress: training.Progress) -> None:
            if not first:
                # Steps count over the model's life; the bar counts this run's.
                first.append(progress.step - 1 if progress.step > progress.total else 0)
            state = "" if progress.loss is None else f"loss {progress.loss:.3f}"
            if progress.lr is not None:
                state += f"  lr {progress.lr:.1e}"
            bar.update(task, completed=progress.step - first[0], state=state)

        yield advance
        bar.update(task, completed=total)


@contextlib.contextmanager
def weights_bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar over a file's weights; yields the callback that moves it."""
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), disable=quiet or not is_terminal()) as bar:
        task = bar.add_task(what, total=None, state="")

        def advance(done: int, total: int) -> None:
            bar.update(
                task, completed=done, total=total, state=f"{done / 1e6:,.1f}/{total / 1e6:,.1f} M weights"
            )

        yield advance


@contextlib.contextmanager
def load_bar(quiet: bool) -> Iterator[Callable[[LoadProgress], None]]:
    """A bar over a source of texts; yields the callback that moves it."""
    columns = (TextColumn("loading"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), disable=quiet or not is_terminal()) as bar:
        task = bar.add_task("load", total=1.0, state="")

        def advance(progress: LoadProgress) -> None:
            bar.update(task, completed=progress.fraction or 0.0, state=f"{progress.tokens:,} tokens")

        yield advance
