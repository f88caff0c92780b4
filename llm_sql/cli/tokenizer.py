"""tokenizer: characters, byte pair encoding or WordPiece for a model, text to tokens and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_sql.cli.common import JsonOption, ModelArgument, UrlOption, print_json, say

QueryOption = Annotated[
    str | None, typer.Option("--query", "-q", help="SQL whose first column holds the texts.")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", help="File or quoted glob ('data/**/*.txt'); may be repeated."),
]
LinesOption = Annotated[
    bool,
    typer.Option("--lines", help="Each line of a file is a text of its own, without its line break."),
]


def register(app: typer.Typer) -> None:
    tokenizer = typer.Typer(help="A model's tokenizer.", no_args_is_help=True, rich_markup_mode=None)
    tokenizer.command("load")(tokenizer_load)
    tokenizer.command("train")(tokenizer_train)
    tokenizer.command("chars")(tokenizer_chars)
    tokenizer.command("encode")(tokenizer_encode)
    tokenizer.command("decode")(tokenizer_decode)
    app.add_typer(tokenizer, name="tokenizer")


def tokenizer_load(
    model: ModelArgument,
    vocab: Annotated[
        Path, typer.Argument(help="vocab.json, encoder.json, a .tiktoken file, vocab.txt, or a directory.")
    ],
    merges: Annotated[
        Path | None, typer.Argument(help="merges.txt or vocab.bpe; other formats need none.")
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Load a BPE or WordPiece tokenizer for a model from files here.

    From a directory in the Hugging Face hub's layout, all files that describe the tokenizer are read.
    """
    from llm_sql.cli.database import open_session
    from llm_sql.tokenizer_files import load, read_files

    files = read_files(vocab, merges)
    with open_session(url) as session:
        size = load(session, model, files)
    _report(model, size, json_)


def tokenizer_train(
    model: ModelArgument,
    vocab: Annotated[
        int, typer.Option("--vocab", min=257, help="Vocabulary size, including the end-of-text token.")
    ],
    query: QueryOption = None,
    inputs: InputOption = None,
    lines: LinesOption = False,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a BPE tokenizer on a query's texts or on files.

    Example: llm-sql tokenizer train notes -q "SELECT body FROM note" --vocab 2048
    """
    from sqlalchemy import select

    from llm_sql import functions
    from llm_sql.cli.documents import open_texts

    with open_texts(url, query, inputs, lines) as (session, texts):
        size = session.scalar(select(functions.train_bpe(model, texts, vocab)))
    _report(model, size, json_)


def tokenizer_chars(
    model: ModelArgument,
    query: QueryOption = None,
    inputs: InputOption = None,
    lines: LinesOption = False,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Build a character tokenizer from a query's texts or files.

    Example: llm-sql tokenizer chars names --input names.txt --lines
    """
    from sqlalchemy import select

    from llm_sql import functions
    from llm_sql.cli.documents import open_texts

    with open_texts(url, query, inputs, lines) as (session, texts):
        vocab = session.scalars(select(functions.build_char_tokenizer(model, texts))).one()
    if json_:
        print_json({"model": model, "vocab": vocab})
    else:
        say(f"{model}: {vocab} tokens, one per character and one for begin/end")


def tokenizer_encode(
    model: ModelArgument,
    text_: Annotated[str, typer.Argument(metavar="TEXT")],
    bos: Annotated[bool, typer.Option("--bos", help="Begin with the token that begins a text.")] = False,
    special: Annotated[
        bool,
        typer.Option(
            "--special/--no-special", help="Whether text that matches a special token becomes that token."
        ),
    ] = False,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Print the token ids of a text, always as a JSON array."""
    from sqlalchemy import select

    from llm_sql import functions
    from llm_sql.cli.database import open_session

    with open_session(url) as session:
        tokens = session.scalar(select(functions.encode(text_, model, special, bos)))
    print_json(tokens)


def tokenizer_decode(
    model: ModelArgument,
    tokens: Annotated[list[int], typer.Argument(help="Token ids.")],
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Print the text of the given token ids."""
    from sqlalchemy import select

    from llm_sql import functions
    from llm_sql.cli.database import open_session

    with open_session(url) as session:
        text = session.scalar(select(functions.decode(tokens, model)))
    print_json({"model": model, "text": text}) if json_ else say(text)


def _report(model: str, size: int | None, as_json: bool) -> None:
    if as_json:
        print_json({"model": model, "vocab": size})
    else:
        say(f"{model}: {size} tokens")
