"""doctor: what llm-sql needs, what it found, what to do."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict

import typer

from llm_sql.cli.common import JsonOption, UrlOption, print_json, say
from llm_sql.errors import EXIT_FAILURE

COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(url: UrlOption = None, json_: JsonOption = False) -> None:
    """Check the installation, and say what to do about problems.

    Python, compiler, disk, server, extension, settings, schema. Exit code 1 when something fails.
    """
    from llm_sql.cli.checks import examine

    plain = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    checks = []
    for check in examine(url):
        checks.append(check)
        if not json_:
            typer.secho(f"{check.status:7}", nl=False, fg=None if plain else COLORS[check.status])
            say(f" {check.name}: {check.found}")
            if check.status != "ok" and check.hint:
                say(f"        {check.hint}")
    failed = any(check.status == "failed" for check in checks)
    if json_:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    if failed:
        raise typer.Exit(EXIT_FAILURE)
