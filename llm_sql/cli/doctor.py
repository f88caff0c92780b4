"""doctor: what llm-sql needs, what it found, what to do."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.markup import escape

from llm_sql.cli.checks import examine
from llm_sql.cli.common import JsonOption, UrlOption, out, print_json
from llm_sql.errors import EXIT_FAILURE

MARKS = {
    "ok": "[green]ok[/green]     ",
    "warning": "[yellow]warning[/yellow]",
    "failed": "[red]failed[/red] ",
}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(url: UrlOption = None, json_: JsonOption = False) -> None:
    """Check Python, compiler, disk, server, extension, settings and schema. Exit code 1 when something
    fails.
    """
    checks = []
    for check in examine(url):
        checks.append(check)
        if not json_:
            out.print(f"{MARKS[check.status]} [bold]{check.name}[/bold]: {escape(check.found)}")
            if check.status != "ok" and check.hint:
                out.print(f"        {escape(check.hint)}")
    failed = any(check.status == "failed" for check in checks)
    if json_:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    if failed:
        raise typer.Exit(EXIT_FAILURE)
