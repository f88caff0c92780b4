"""tokenizer load and train: byte pair encoding for a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from llm_sql import functions
from llm_sql.cli.common import JsonOption, ModelArgument, UrlOption, open_engine, out, print_json
from llm_sql.tokenizer_files import load, read_files


def register(tokenizer: typer.Typer) -> None:
    tokenizer.command("load")(tokenizer_load)
    tokenizer.command("train")(tokenizer_train)


def tokenizer_load(
    model: ModelArgument,
    vocab: Annotated[
        Path, typer.Argument(help="vocab.json, encoder.json, a .tiktoken file, or a directory.")
    ],
    merges: Annotated[
        Path | None, typer.Argument(help="merges.txt or vocab.bpe; other formats need none.")
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Load a BPE tokenizer for a model from files here, not on the server.

    From a directory in the Hugging Face hub's layout, all files that describe the tokenizer are read.
    """
    files = read_files(vocab, merges)
    with Session(open_engine(url)) as session, session.begin():
        size = load(session, model, files)
    _report(model, size, json_)


def tokenizer_train(
    model: ModelArgument,
    query: Annotated[str, typer.Option("--query", "-q", help="SQL whose first column holds the text.")],
    vocab: Annotated[
        int, typer.Option("--vocab", min=257, help="Vocabulary size, including the end-of-text token.")
    ],
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a BPE tokenizer on a query's texts, inside the database."""
    with Session(open_engine(url)) as session, session.begin():
        size = session.scalar(select(functions.train_bpe(model, query, vocab)))
    _report(model, size, json_)


def _report(model: str, size: int | None, as_json: bool) -> None:
    if as_json:
        print_json({"model": model, "vocab": size})
    else:
        out.print(f"{model}: {size} tokens", markup=False)
