"""embed: vectors of texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from llm_sql.cli.common import JsonOption, ModelOption, UrlOption, print_json, say, telling_what_is_kept
from llm_sql.errors import UsageError


def register(app: typer.Typer) -> None:
    app.command()(embed)


def embed(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to embed.")] = None,
    model: ModelOption = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Embed the lines of this file; - reads standard input."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Name of the model's prompt to put before each.")
    ] = None,
    npy: Annotated[
        Path | None, typer.Option("--npy", help="Write a NumPy array [n, d] to this file instead.")
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Embeddings of texts, one a line, as pgvector reads them.

    Example: llm-sql embed "how do I read JSON?" -m minilm
    """
    from llm_sql.cli.database import open_session
    from llm_sql.cli.models import default_model
    from llm_sql.model import LanguageModel

    if npy is not None and json_:
        raise UsageError("give either --npy or --json")
    wanted = list(texts or []) + (_lines(file) if file is not None else [])
    if not wanted and file is None:
        raise UsageError("nothing to embed", hint='llm-sql embed "a text", or --file FILE')
    with telling_what_is_kept("embedding changes nothing in the database"), open_session(url) as session:
        name = default_model(session, model)
        vectors = LanguageModel(session, name).embed(wanted, prompt=prompt)
    if npy is not None:
        import numpy as np

        try:
            with npy.open("wb") as out:
                np.save(out, vectors)
        except OSError as error:
            raise UsageError(f"cannot write {npy}: {error.strerror}") from error
        say(f"{npy}: {vectors.shape[0]:,} embeddings of width {vectors.shape[1]}")
    elif json_:
        print_json({"model": name, "prompt": prompt, "embeddings": vectors.tolist()})
    else:
        for vector in vectors:
            # As short as float32 allows, unlike its doubles.
            say("[" + ",".join(map(str, vector)) + "]")


def _lines(path: Path) -> list[str]:
    """The file's lines. Only line feeds, with or without a carriage return, end one."""
    try:
        read = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        lines = read.decode("utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: byte {error.start}") from error
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
