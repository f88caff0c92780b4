"""up, down, url, psql, provision: the server and the schema."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import asdict
from typing import Annotated

import typer

from llm_sql import provision
from llm_sql.cli import common
from llm_sql.cli.common import JsonOption, UrlOption, err, out, print_json
from llm_sql.errors import EXIT_NOT_PROVISIONED, LLMSQLError, UsageError
from llm_sql.server import EmbeddedServer, Installation, ensure
from llm_sql.url import libpq_url, normalize_url


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command("url")(show_url)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)
    app.command("provision")(provision_database)


def _refuse_other_server(command: str) -> None:
    if os.environ.get("DATABASE_URL"):
        raise UsageError(
            f"llm-sql {command} is for the embedded server, but DATABASE_URL names another one",
            hint="unset DATABASE_URL",
        )


def up(json_: JsonOption = False) -> None:
    """Start the embedded server and keep it running; provision its database and repair what is missing."""
    _refuse_other_server("up")
    url = ensure(keep=True)
    report = common.run_upgrade(normalize_url(url))
    for what in report.mended:
        err.print(f"mended: {what}", style="dim", markup=False, soft_wrap=True)
    common.show_left(report)
    if json_:
        print_json({"url": url, "home": str(EmbeddedServer().home)})
    else:
        out.print(f"running until `llm-sql down`: {url}", markup=False)


def down(json_: JsonOption = False) -> None:
    """Stop the embedded server, even if others use it. Committed work is kept."""
    _refuse_other_server("down")
    stopped = EmbeddedServer().stop()
    if json_:
        print_json({"stopped": stopped})
    else:
        out.print("stopped" if stopped else "the server was not running")


def show_url() -> None:
    """Print the database's URL. The embedded server is started and kept running, so that the URL works."""
    given = os.environ.get("DATABASE_URL")
    if given:
        try:
            typer.echo(
                normalize_url(given).set(drivername="postgresql").render_as_string(hide_password=False)
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        return
    running_before = EmbeddedServer().kept
    typer.echo(ensure(keep=True))
    if not running_before:
        err.print("the embedded server now runs until `llm-sql down`", style="dim")


def psql(context: typer.Context, url: UrlOption = None) -> None:
    """Open psql on the database; further arguments go to psql (llm-sql psql -c 'SELECT 1')."""
    engine = common.open_engine(url)
    engine.dispose()
    program = Installation.bundled().program("psql")
    found = str(program) if program.exists() else shutil.which("psql")
    if found is None:
        raise LLMSQLError("psql was not found", hint="install PostgreSQL's client programs")
    # Ctrl-C belongs to psql, where it cancels the statement. (A handler, unlike SIG_IGN, is not inherited.)
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.call([found, libpq_url(engine.url), *context.args])
    finally:
        signal.signal(signal.SIGINT, previous)
    raise typer.Exit(code)


def provision_database(
    url: UrlOption = None,
    revision: Annotated[str, typer.Option(help="Revision to upgrade to.")] = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it.")] = False,
    json_: JsonOption = False,
) -> None:
    """Bring the database to the newest revision (`alembic upgrade head`) and repair what is missing."""
    if sql:
        typer.echo(provision.offline_script(), nl=False)
        return
    place = common.target(url)
    common.wait_for(place.url)
    report = common.run_upgrade(place.url, revision)
    if json_:
        print_json({"database": place.url.database, **asdict(report)})
    else:
        for what in report.mended:
            out.print(f"mended: {what}", markup=False)
        common.show_left(report)
    if report.left:
        raise typer.Exit(EXIT_NOT_PROVISIONED)
    if not json_:
        out.print(f"{place.url.database} is provisioned (revision {report.revision})", markup=False)
