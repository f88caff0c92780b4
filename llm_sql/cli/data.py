"""dataset: what a model is trained and evaluated on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm_sql.cli.common import (
    JsonOption,
    ModelArgument,
    UrlOption,
    print_json,
    print_table,
    remark,
    telling_what_is_kept,
)
from llm_sql.cli.pairs import dataset_pairs, recall, splits
from llm_sql.cli.tokenizer import InputOption, LinesOption, QueryOption
from llm_sql.cli.tokenizer import register as register_tokenizer
from llm_sql.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from llm_sql.corpus import LoadOptions


def register(app: typer.Typer) -> None:
    register_tokenizer(app)
    dataset = typer.Typer(
        help="A model's training and held-out rows.", no_args_is_help=True, rich_markup_mode=None
    )
    dataset.command("fill")(dataset_fill)
    dataset.command("pairs")(dataset_pairs)
    dataset.command("show")(dataset_show)
    app.add_typer(dataset, name="dataset")
    app.command()(recall)


def dataset_fill(
    model: ModelArgument,
    query: QueryOption = None,
    inputs: InputOption = None,
    lines: LinesOption = False,
    one_per_row: Annotated[
        bool,
        typer.Option(
            "--one-per-row",
            help="Each document is a row of its own, in the source's order, between the tokens that begin and"
            " end it, cut to --block-size. Otherwise documents are joined, and cut into rows.",
        ),
    ] = False,
    keep_order: Annotated[
        bool,
        typer.Option(
            "--keep-order",
            "--keep-duplicates",
            help="Keep a query's order, and documents that occur again; those of files with --one-per-row.",
        ),
    ] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Read the query row by row, as files are read: for results of any size."
        ),
    ] = False,
    tokenizer: Annotated[
        Literal["own", "tiktoken"],
        typer.Option("--tokenizer", help="For what is tokenized here; both give the same tokens."),
    ] = "own",
    block_size: Annotated[
        int | None, typer.Option("--block-size", min=1, help="Tokens per row; default: the model's context.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option("--stride", min=1, help="Tokens between row starts; default: --block-size.")
    ] = None,
    validation: Annotated[
        float, typer.Option("--validation", min=0, max=0.9, help="Fraction of the text to hold out.")
    ] = 0.1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of what is held out.")] = 0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start over instead of resuming an interrupted load.")
    ] = False,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Tokenize files or a query's texts into a model's rows.

    Some rows are for training, some are held out.

    Files, and a query with --stream or --one-per-row, are tokenized here and sent in pieces; to resume an
    interrupted load, run the same command again. The end of every file is held out, or a fraction of the
    lines and rows, all copies of a document together. Other queries run inside the database; without
    --block-size each of their documents is a row, drawn in a seeded order.

    Example: llm-sql dataset fill names -i names.txt --lines --one-per-row --keep-order --validation 0
    """
    from llm_sql.cli.database import open_engine
    from llm_sql.cli.documents import check_one_source

    check_one_source(query, inputs)
    if one_per_row and stride is not None:
        raise UsageError("--stride is for documents that are joined; with --one-per-row each is one row")
    if lines and not inputs:
        raise UsageError("--lines is for files (--input); a query's rows are documents already")
    engine = open_engine(url)
    if query is None or stream or one_per_row:
        options = _load_options(engine, model, block_size, stride, validation, seed, tokenizer)
        _load(engine, query, inputs, lines, one_per_row, keep_order, restart, options, model, json_)
    else:
        with telling_what_is_kept(f"the data set of {model} is as it was"):
            _fill_inside(
                engine, model, query, keep_order,
                {"block_size": block_size, "stride": stride, "validation": validation, "seed": seed},
            )  # fmt: skip
    rows = splits(engine, model)
    print_json(rows) if json_ else print_table(rows)


def _fill_inside(engine: Engine, model: str, query: str, keep_order: bool, options: dict[str, Any]) -> None:
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from llm_sql import functions
    from llm_sql.keywords import not_none

    row = functions.fill_dataset(model, query, keep_order=keep_order, **not_none(options))
    with Session(engine) as session, session.begin():
        session.execute(select(row.c.train_rows))


def _load(
    engine: Engine,
    query: str | None,
    inputs: list[str] | None,
    lines: bool,
    one_per_row: bool,
    keep_order: bool,
    restart: bool,
    options: LoadOptions,
    model: str,
    json_: bool,
) -> None:
    """From here, in pieces."""
    from dataclasses import replace

    from llm_sql.cli.progress import load_bar
    from llm_sql.corpus import FileSource, QuerySource, find_files, load

    source = (
        FileSource(find_files(inputs), lines=lines, whole=one_per_row)
        if inputs
        else QuerySource(engine, str(query), in_order=one_per_row or keep_order)
    )
    options = replace(options, one_per_row=one_per_row, duplicates=keep_order or not one_per_row)
    kept = (
        "what was sent until the last commit is kept; run the same command again to go on (--restart: from"
        " the beginning)"
        if source.resumable
        else "the load is not complete, and begins anew when it is run again"
    )
    with telling_what_is_kept(kept), load_bar(json_) as advance:
        done = load(engine, model, source, options, restart=restart, progress=advance)
    if done.cut:
        remark(f"note: {done.cut:,} documents were longer than a row of {options.block_size} tokens, and cut")
    if done.repeated:
        remark(
            f"note: {done.repeated:,} documents that occur again were left out (--keep-duplicates keeps them)"
        )


def _load_options(
    engine: Engine,
    model: str,
    block_size: int | None,
    stride: int | None,
    validation: float,
    seed: int,
    tokenizer: str,
) -> LoadOptions:
    from sqlalchemy import text
    from sqlalchemy.orm import Session

    from llm_sql.corpus import LoadOptions

    with Session(engine) as session:
        # What is sent in pieces is looked at here: it would be rows that cannot be trained on.
        decoder = text("SELECT public.llm_require_decoder(public.llm_config(:model), 'dataset fill', :hint)")
        session.execute(decoder, {"model": model, "hint": "llm-sql dataset pairs fills an encoder's data."})
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


def dataset_show(model: ModelArgument, url: UrlOption = None, json_: JsonOption = False) -> None:
    """Show the number of rows and tokens per split."""
    from llm_sql.cli.database import open_engine

    rows = splits(open_engine(url), model)
    print_json(rows) if json_ else print_table(rows)
