"""Shell completion: the script for a shell, and names of models."""

from __future__ import annotations

import os
import re
import threading
from typing import Annotated, Literal

import typer

SECONDS = 0.7


def register(app: typer.Typer) -> None:
    app.command()(completion)


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")
    ],
) -> None:
    """Print the script that completes commands in a shell.

    It completes commands, options and models' names.

    For bash: eval "$(llm-sql completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc, after compinit;
    for fish: llm-sql completion fish > ~/.config/fish/completions/llm-sql.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="llm-sql", complete_var="_LLM_SQL_COMPLETE", shell=shell))


def complete_models(ctx: typer.Context, incomplete: str) -> list[str]:
    """The models whose names begin so, where a database answers at once; else none, and never an error."""
    found: list[str] = []
    url = ctx.params.get("url") or os.environ.get("DATABASE_URL")
    asking = threading.Thread(target=_ask, args=(url, incomplete, found), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return sorted(found)


def _ask(url: str | None, incomplete: str, found: list[str]) -> None:
    try:
        import psycopg

        # As libpq wants it; SQLAlchemy's way with URLs would take longer than the answer.
        address = re.sub(r"^postgres(ql)?\+\w+:", "postgresql:", url) if url else _running()
        if address is None:
            return
        with psycopg.connect(address, connect_timeout=2, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT model FROM public.llm_model_config WHERE pg_catalog.starts_with(model, %s)",
                (incomplete,),
            ).fetchall()
        found += [model for (model,) in rows]
    except Exception:
        return


def _running() -> str | None:
    """The embedded server's URL if it runs; a Tab starts none."""
    from llm_sql.server import EmbeddedServer

    server = EmbeddedServer()
    return server.url() if server.running else None
