"""tokenizer and dataset: what a model reads."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import text
from sqlalchemy.orm import Session

from llm_sql.cli import tokenizer as bpe
from llm_sql.cli.common import JsonOption, ModelArgument, UrlOption, open_engine, out, print_json, print_table

QueryOption = Annotated[str, typer.Option("--query", "-q", help="SQL whose first column is the text.")]


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
    """Build a character tokenizer from the characters that the query's texts hold."""
    with Session(open_engine(url)) as session, session.begin():
        build = text("SELECT public.llm_build_char_tokenizer(:model, :query)")
        vocab = session.scalars(build, {"model": model, "query": query}).one()
    if json_:
        print_json({"model": model, "vocab": vocab})
    else:
        out.print(f"{model}: {vocab} tokens, one per character and one for begin/end", markup=False)


def tokenizer_encode(
    model: ModelArgument, text_: Annotated[str, typer.Argument(metavar="TEXT")], url: UrlOption = None
) -> None:
    """Print a text's token ids as JSON."""
    with Session(open_engine(url)) as session:
        tokens = session.scalar(
            text("SELECT public.llm_encode(:text, :model)"), {"text": text_, "model": model}
        )
    print_json(tokens)


def tokenizer_decode(
    model: ModelArgument, tokens: Annotated[list[int], typer.Argument()], url: UrlOption = None
) -> None:
    """Print the text of token ids."""
    with Session(open_engine(url)) as session:
        query = text("SELECT public.llm_decode(CAST(:tokens AS int[]), :model)")
        typer.echo(session.scalar(query, {"tokens": tokens, "model": model}))


def dataset_fill(
    model: ModelArgument,
    query: QueryOption,
    block_size: Annotated[int | None, typer.Option("--block-size", min=1, help="Tokens per row.")] = None,
    stride: Annotated[int | None, typer.Option("--stride", min=1, help="Tokens between row starts.")] = None,
    validation: Annotated[
        float, typer.Option("--validation", min=0, max=0.9, help="Share of held-out text.")
    ] = 0.1,
    seed: Annotated[int, typer.Option("--seed", help="Which documents are held out.")] = 0,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Tokenize a query's texts into the model's training and held-out rows."""
    with Session(open_engine(url)) as session, session.begin():
        session.execute(
            text(
                "SELECT public.llm_fill_dataset(model => :model, query => :query,"
                " block_size => CAST(:block_size AS integer), stride => CAST(:stride AS integer),"
                " validation => CAST(:validation AS double precision), seed => CAST(:seed AS bigint))"
            ),
            {
                "model": model,
                "query": query,
                "block_size": block_size,
                "stride": stride,
                "validation": validation,
                "seed": seed,
            },
        )
        rows = _splits(session, model)
    print_json(rows) if json_ else print_table(rows)


def dataset_show(model: ModelArgument, url: UrlOption = None, json_: JsonOption = False) -> None:
    """Rows and tokens per split."""
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
