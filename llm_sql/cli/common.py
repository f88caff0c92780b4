"""What the commands share: options, output for people and for programs.

Light: what opens a database, draws or computes is imported by the command that needs it, so that --help and
shell completion answer at once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from llm_sql.cli.completion import complete_models
from llm_sql.errors import EXIT_INTERRUPTED, LLMSQLError, LLMSQLWarning, StatementRefusedError, UsageError
from llm_sql.printable import harmless

if TYPE_CHECKING:
    from rich.console import Console

    out: Console
    err: Console

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="DATABASE_URL", show_envvar=False,
        help="URL of the database; default: DATABASE_URL, else the embedded server's.",
    ),
]  # fmt: skip
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", autocompletion=complete_models,
        help="Name of the model; default: the database's default model.",
    ),
]  # fmt: skip
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Name of the model.", autocompletion=complete_models)
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option("--setting", metavar="NAME=VALUE", help="A setting of the architecture; may be repeated."),
]


@cache
def console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, stderr=stderr, soft_wrap=not stderr)


def say(message: object = "", *, end: bool = True) -> None:
    """A line for people on stdout. In a terminal nothing that a name or a model's text holds takes effect."""
    shown = str(message)
    typer.echo(harmless(shown) if sys.stdout.isatty() else shown, nl=end, color=True)


def remark(message: str, color: str | None = None, *, bold: bool = False) -> None:
    """A line beside the result, on stderr; coloured where that can be seen and is not unwanted (NO_COLOR)."""
    plain = bool(os.environ.get("NO_COLOR")) or not sys.stderr.isatty()
    shown = harmless(message)
    typer.secho(shown, err=True, fg=None if plain else color, bold=None if plain or not bold else True)


class CancelledError(LLMSQLError):
    """Ctrl-C, and what has become of the work."""

    exit_code = EXIT_INTERRUPTED


@contextlib.contextmanager
def telling_what_is_kept(kept: str | Callable[[], str]) -> Iterator[None]:
    """After Ctrl-C within, a sentence on what of the work is kept."""
    try:
        yield
    except KeyboardInterrupt:
        try:
            message = kept if isinstance(kept, str) else kept()
        except Exception:  # the database may be gone
            message = "what was committed is kept"
        raise CancelledError(message) from None


def fail(error: LLMSQLError) -> NoReturn:
    """Print the error and its hint to stderr and end with its exit code."""
    if os.environ.get("LLM_SQL_DEBUG"):
        traceback.print_exception(error)
    sqlstate = f" [{error.sqlstate}]" if isinstance(error, StatementRefusedError) and error.sqlstate else ""
    if isinstance(error, CancelledError):
        remark(f"interrupted: {error.message}", "yellow")
    else:
        remark(f"error: {error.message}{sqlstate}", "red")
    if error.hint:
        remark(f"hint: {error.hint}")
    sys.exit(error.exit_code)


def show_notices() -> None:
    """Show this package's warnings as sentences on stderr."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if issubclass(category, LLMSQLWarning):
            remark(f"note: {message}", "yellow")
        else:
            others(message, category, *where, **options)

    warnings.showwarning = show
    warnings.simplefilter("always", LLMSQLWarning)


def program() -> str:
    """How the user starts this program: by its name where the shell finds it, else by its path."""
    own = Path(sys.executable).with_name("llm-sql")
    found = shutil.which("llm-sql")
    if not own.exists() or (found is not None and Path(found).resolve() == own.resolve()):
        return "llm-sql"
    try:
        return str(own.relative_to(Path.cwd()))
    except ValueError:
        return str(own)


def print_json(value: object) -> None:
    """The value as JSON, which has no word for numbers that are not finite: they are null."""
    try:
        shown = json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        shown = json.dumps(_finite(value), ensure_ascii=False, default=str, allow_nan=False)
    sys.stdout.write(shown + "\n")


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """Rows of the same keys as a table; numbers to the right."""
    from rich.table import Table

    if not rows:
        say("nothing")
        return
    table = Table(title=title, header_style="bold")
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, (int, float)) else "left")
    for row in rows:
        table.add_row(*("" if value is None else format_value(value) for value in row.values()))
    console().print(table)


def format_value(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else harmless(str(value))


def named_values(prompts: list[str] | None, settings: list[str] | None) -> dict[str, Any]:
    """The values of --prompt and --setting, each NAME=VALUE."""
    found: dict[str, Any] = {}
    for flag, given in (("--setting", settings), ("--prompt", prompts)):
        for pair in given or []:
            name, equals, value = pair.partition("=")
            if not (name and equals):
                raise UsageError(f"{flag} {pair}: it is NAME=VALUE")
            if flag == "--prompt":
                found.setdefault("prompts", {})[name] = value
            else:
                try:
                    found[name] = json.loads(value)
                except ValueError:
                    found[name] = value
    return found
