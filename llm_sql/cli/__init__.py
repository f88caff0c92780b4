"""The command line `llm-sql`: one module per subject, thin over the classes that do the work.

Modules import at their top only what --help needs; a command imports the rest when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 server or database unreachable, 4 extension or schema
missing, 5 the database refused a statement, 130 interrupted. A user's mistake never shows a traceback;
LLM_SQL_DEBUG=1 shows it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

import typer

from llm_sql.cli import (
    benchmarks,
    chat,
    completion,
    data,
    doctor,
    embedding,
    models,
    server,
    training,
    visualize,
    weights,
)
from llm_sql.cli.common import fail, remark, show_notices
from llm_sql.errors import EXIT_INTERRUPTED, LLMSQLError

app = typer.Typer(
    name="llm-sql",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text: as readable in a pipe, a log and a narrow terminal.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


for module in (
    server,
    doctor,
    models,
    chat,
    embedding,
    data,
    training,
    benchmarks,
    weights,
    completion,
    visualize,
):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        import llm_sql

        typer.echo(f"llm-sql {llm_sql.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """GPT models that live inside PostgreSQL: create, train, evaluate, generate.

    Without --url and DATABASE_URL an embedded PostgreSQL is used; it is started and provisioned when needed.
    `llm-sql demo` shows all of it in a minute. `llm-sql COMMAND --help` describes a command.
    """


def main() -> None:
    """Entry point of the console script."""
    # A terminal that closes, or kill: end as after an error, so that the embedded server is let go.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    show_notices()
    try:
        app(prog_name="llm-sql")
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer ends so after Ctrl-C, and says nothing.
        if isinstance(end, SystemExit) and end.code != EXIT_INTERRUPTED:
            raise
        remark("interrupted: what was committed is kept", "yellow")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        fail(known)


def _known(error: Exception) -> LLMSQLError | None:
    """The error to show; None for one that is our own mistake."""
    if isinstance(error, LLMSQLError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return LLMSQLError(f"cannot write{f' {error.filename}' if error.filename else ''}: {error.strerror}")
    if "psycopg" in sys.modules or "sqlalchemy" in sys.modules:
        import psycopg
        import sqlalchemy.exc

        from llm_sql.refusal import as_llm_sql_error

        if isinstance(error, (psycopg.Error, sqlalchemy.exc.SQLAlchemyError)):
            return as_llm_sql_error(error)
    return None
