"""up, down, url, psql, provision: the server and the schema."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import asdict
from typing import Annotated

import typer

from llm_sql.cli.common import JsonOption, UrlOption, print_json, remark, say, telling_what_is_kept
from llm_sql.errors import EXIT_NOT_PROVISIONED, LLMSQLError, UsageError


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
    """Start the embedded server and keep it running.

    Its database is provisioned, and what is missing there is repaired.
    """
    from llm_sql.cli import database
    from llm_sql.server import EmbeddedServer, ensure
    from llm_sql.url import normalize_url

    _refuse_other_server("up")
    url = ensure(keep=True)
    report = database.run_upgrade(normalize_url(url))
    for what in report.mended:
        remark(f"mended: {what}")
    database.show_left(report)
    if json_:
        print_json({"url": url, "home": str(EmbeddedServer().home)})
    else:
        say(f"running until `llm-sql down`: {url}")


def down(json_: JsonOption = False) -> None:
    """Stop the embedded server, even if others use it. Committed work is kept."""
    from llm_sql.server import EmbeddedServer

    _refuse_other_server("down")
    stopped = EmbeddedServer().stop()
    if json_:
        print_json({"stopped": stopped})
    else:
        say("stopped" if stopped else "the server was not running")


def show_url(url: UrlOption = None, json_: JsonOption = False) -> None:
    """Print the database's URL.

    The embedded server is started and kept running, so that the URL works.
    """
    if url:
        from llm_sql.url import normalize_url

        try:
            found = normalize_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        except ValueError as error:
            raise UsageError(str(error)) from error
    else:
        from llm_sql.server import EmbeddedServer, ensure

        kept_before = EmbeddedServer().kept
        found = ensure(keep=True)
        if not kept_before:
            remark("the embedded server now runs until `llm-sql down`")
    print_json({"url": found}) if json_ else say(found)


def psql(context: typer.Context, url: UrlOption = None) -> None:
    """Open psql on the database: llm-sql psql -c 'SELECT 1'.

    Further arguments go to psql. A database that is not provisioned is opened, too; the embedded server's is
    provisioned first.
    """
    from llm_sql.cli.database import open_engine
    from llm_sql.server import Installation
    from llm_sql.url import libpq_url

    engine = open_engine(url, provisioned=False)
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
    """Install the schema, or bring it to the newest revision.

    As `alembic upgrade head`; what is missing of the newest revision is repaired, too.
    """
    if sql:
        from llm_sql.provision import offline_script

        script = offline_script()
        print_json({"sql": script}) if json_ else say(script, end=False)
        return
    from llm_sql.cli import database

    place = database.target(url)
    database.wait_for(place.url)
    with telling_what_is_kept("revisions that were complete are kept; run the same command again to go on"):
        report = database.run_upgrade(place.url, revision)
    if json_:
        print_json({"database": place.url.database, **asdict(report)})
    else:
        for what in report.mended:
            say(f"mended: {what}")
        database.show_left(report)
    if report.left:
        raise typer.Exit(EXIT_NOT_PROVISIONED)
    if not json_:
        say(f"{place.url.database} is provisioned (revision {report.revision})")
