"""The command line `llm-sql`: one module per subject, thin over the classes that do the work.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 server or database unreachable, 4 extension or schema
missing, 5 the database refused a statement, 130 interrupted. A user's mistake never shows a traceback;
LLM_SQL_DEBUG=1 shows it.
"""

from __future__ import annotations

import os
import signal
import sys

import psycopg
import sqlalchemy.exc
import typer

from llm_sql import __version__
from llm_sql.cli import data, doctor, models, server, training, visualize, weights
from llm_sql.cli.common import fail, show_notices
from llm_sql.errors import EXIT_INTERRUPTED, LLMSQLError
from llm_sql.refusal import as_llm_sql_error

app = typer.Typer(
    name="llm-sql",
    help="GPT models that live inside PostgreSQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (server, doctor, models, data, training, weights, visualize):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llm-sql {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """GPT models that live inside PostgreSQL: create, train, evaluate, generate.

    Without --url and DATABASE_URL an embedded PostgreSQL is used; it is started and provisioned when needed.
    """


def main() -> None:
    """Entry point of the console script."""
    # A terminal that closes, or kill: end as after an error, so that the embedded server is let go.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    show_notices()
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except LLMSQLError as error:
        fail(error)
    except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        fail(as_llm_sql_error(error))
