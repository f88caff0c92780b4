"""tokenizer and dataset: what a model reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from llm_sql import functions
from llm_sql.cli import tokenizer as bpe
from llm_sql.cli.common import (
    JsonOption,
    ModelArgument,
    UrlOption,
    err,
    open_engine,
    out,
    print_json,
    print_table,
)
from llm_sql.corpus import FileSource, LoadOptions, LoadProgress, QuerySource, find_files, load
from llm_sql.errors import UsageError
from llm_sql.keywords import not_none

QueryOption = Annotated[str, typer.Option("--query", "-q", help="SQL whose first column holds the text.")]


def register(app: typer.Typer) -> None:
    tokenizer = typer.Typer(help="A model's tokenizer.", no_args_is_help=True)
    bpe.register(tokenizer)
    tokenizer.command("chars")(tokenizer_chars)
    tokenizer.command("encode")(tokenizer_encode)
    tokenizer.command("decode")(tokenizer_decode)
    app.add_typer(tokenizer, name="tokenizer")
    dataset = typer.Typer(help="A model's training and held-out rows.", no_args_is_help=True)
    dataset.command("fill")(dataset_fill)
    dataset.command("show")(dataset_show)
    app.add_typer(dataset, name="dataset")


def tokenizer_chars(
    model: ModelArgument, query: QueryOption, url: UrlOption = None, json_: JsonOption = False
) -> None:
    """Build a character tokenizer from the characters in the query's texts."""
    with Session(open_engine(url)) as session, session.begin():
        vocab = session.scalars(select(functions.build_char_tokenizer(model, query))).one()
    if json_:
        print_json({"model": model, "vocab": vocab})
    else:
        out.print(f"{model}: {vocab} tokens, one per character and one for begin/end", markup=False)


def tokenizer_encode(
    model: ModelArgument,
    text_: Annotated[str, typer.Argument(metavar="TEXT")],
    bos: Annotated[bool, typer.Option("--bos", help="Begin with the token that begins a text.")] = False,
    special: Annotated[
        bool,
        typer.Option(
            "--special/--no-special", help="Whether text that matches a special token becomes that token."
        ),
    ] = True,
    url: UrlOption = None,
) -> None:
    """Print the token ids of a text as JSON."""
    with Session(open_engine(url)) as session:
        tokens = session.scalar(select(functions.encode(text_, model, special, bos)))
    print_json(tokens)


def tokenizer_decode(
    model: ModelArgument, tokens: Annotated[list[int], typer.Argument()], url: UrlOption = None
) -> None:
    """Print the text of the given token ids."""
    with Session(open_engine(url)) as session:
        typer.echo(session.scalar(select(functions.decode(tokens, model))))


def dataset_fill(
    model: ModelArgument,
    query: Annotated[
        str | None, typer.Option("--query", "-q", help="SQL whose first column holds the documents.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="File or quoted glob ('data/**/*.txt'); may be repeated."),
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of a file is a document.")] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Read the query row by row, as files are read: for results of any size."
        ),
    ] = False,
    tokenizer: Annotated[
        str,
        typer.Option(
            "--tokenizer", help="own or tiktoken, for files and --stream; both give the same tokens."
        ),
    ] = "own",
    block_size: Annotated[int | None, typer.Option("--block-size", min=1, help="Tokens per row.")] = None,
    stride: Annotated[int | None, typer.Option("--stride", min=1, help="Tokens between row starts.")] = None,
    validation: Annotated[
        float, typer.Option("--validation", min=0, max=0.9, help="Fraction of the text to hold out.")
    ] = 0.1,
    seed: Annotated[int, typer.Option("--seed", help="Seed that selects the documents to hold out.")] = 0,
    keep_order: Annotated[
        bool, typer.Option("--keep-order", help="Keep the query's order and its duplicate documents.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start over instead of resuming an interrupted load.")
    ] = False,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Tokenize files or a query's texts into the model's training and held-out rows.

    Files, and a query with --stream, are tokenized here and sent in pieces. To resume an interrupted load,
    run the same command again. The end of every file is held out, or a fraction of the lines and rows.
    Other queries run inside the database.
    """
    if (query is None) == (not inputs):
        raise UsageError("give either --query or --input")
    engine = open_engine(url)
    if keep_order and (inputs or stream):
        raise UsageError("--keep-order is for queries that run inside the database; files keep their order")
    if inputs or stream:
        source = FileSource(find_files(inputs), lines=lines) if inputs else QuerySource(engine, str(query))
        how = _load_options(engine, model, block_size, stride, validation, seed, tokenizer)
        with _load_bar(json_) as advance:
            load(engine, model, source, how, restart=restart, progress=advance)
    else:
        options: dict[str, Any] = {
            "block_size": block_size,
            "stride": stride,
            "validation": validation,
            "seed": seed,
        }
        row = functions.fill_dataset(model, query, keep_order=keep_order, **not_none(options))
        with Session(engine) as session, session.begin():
            session.execute(select(row.c.train_rows))
    with Session(engine) as session:
        rows = _splits(session, model)
    print_json(rows) if json_ else print_table(rows)


def _load_options(
    engine: Engine,
    model: str,
    block_size: int | None,
    stride: int | None,
    validation: float,
    seed: int,
    tokenizer: str,
) -> LoadOptions:
    if tokenizer not in ("own", "tiktoken"):
        raise UsageError(f"--tokenizer must be own or tiktoken, not {tokenizer}")
    with Session(engine) as session:
        config = text("SELECT (public.llm_config(:model)).n_positions")
        context = session.scalars(config, {"model": model}).one()
    block_size = block_size or context
    if block_size > context:
        raise UsageError(f"--block-size {block_size} exceeds the context of {context}")
    if stride is not None and stride > block_size:
        raise UsageError(f"--stride {stride} exceeds --block-size {block_size}")
    return LoadOptions(
        block_size=block_size,
        stride=stride or block_size,
        validation=validation,
        seed=seed,
        tokenizer=tokenizer,
    )


@contextlib.contextmanager
def _load_bar(quiet: bool) -> Iterator[Callable[[LoadProgress], None]]:
    columns = (TextColumn("loading"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=quiet) as bar:
        task = bar.add_task("load", total=1.0, state="")

        def advance(progress: LoadProgress) -> None:
            bar.update(task, completed=progress.fraction or 0.0, state=f"{progress.tokens:,} tokens")

        yield advance


def dataset_show(model: ModelArgument, url: UrlOption = None, json_: JsonOption = False) -> None:
    """Show the number of rows and tokens per split."""
    with Session(open_engine(url)) as session:
        rows = _splits(session, model)
    print_json(rows) if json_ else print_table(rows)


def _splits(session: Session, model: str) -> list[dict[str, object]]:
    result = session.execute(
        text(
            "SELECT split, count(*) AS rows, sum(cardinality(tokens))::bigint AS tokens"
            " FROM public.llm_dataset WHERE model = :model GROUP BY split ORDER BY split"
        ),
        {"model": model},
    )
    return [dict(row) for row in result.mappings()]
