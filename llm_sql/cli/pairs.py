"""dataset pairs, recall: what an encoder is trained on, and how well it finds it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from llm_sql.cli.common import (
    JsonOption,
    ModelArgument,
    ModelOption,
    UrlOption,
    print_json,
    print_table,
    say,
    telling_what_is_kept,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine


def dataset_pairs(
    model: ModelArgument,
    query: Annotated[
        str,
        typer.Option(
            "--query", "-q", help="SQL whose columns hold anchor, positive and, if there are more, negatives."
        ),
    ],
    split: Annotated[str, typer.Option("--split", help="Whose rows are replaced.")] = "train",
    validation: Annotated[
        float, typer.Option("--validation", min=0, max=0.9, help="Fraction of the pairs to hold out.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of what is held out.")] = 0,
    anchor_prompt: Annotated[
        str | None, typer.Option("--anchor-prompt", help="Name of the prompt before anchors.")
    ] = None,
    positive_prompt: Annotated[
        str | None, typer.Option("--positive-prompt", help="Name of the prompt before the other texts.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Tokens per text; default: the model's.")
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Tokenize pairs of texts, which an encoder is trained on.

    Example: llm-sql dataset pairs minilm -q "SELECT question, answer FROM faq" --validation 0.1
    """
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from llm_sql import functions
    from llm_sql.cli.database import open_engine
    from llm_sql.keywords import not_none

    prompts = {"anchor_prompt": anchor_prompt, "positive_prompt": positive_prompt, "max_tokens": max_tokens}
    row = functions.fill_pairs(model, query, split, validation, seed, **not_none(prompts))
    engine = open_engine(url)
    with telling_what_is_kept(f"the data set of {model} is as it was"), Session(engine) as session:
        session.execute(select(row.c.pairs))
        session.commit()
    rows = splits(engine, model)
    print_json(rows) if json_ else print_table(rows)


def recall(
    model: ModelOption = None,
    split: Annotated[str, typer.Option("--split", help="train, validation, ...")] = "validation",
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="How many of the nearest count.")] = 10,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """How often an encoder finds an anchor's positive among the nearest.

    Example: llm-sql recall -m minilm -k 10
    """
    from llm_sql.cli.database import open_session
    from llm_sql.cli.models import default_model
    from llm_sql.model import LanguageModel

    with telling_what_is_kept("evaluating changes nothing in the database"), open_session(url) as session:
        name = default_model(session, model)
        result = LanguageModel(session, name).recall(split, k)
    if json_:
        print_json({"model": name, "split": split, "k": k, **asdict(result)})
    else:
        say(
            f"{name}, {split}: of {result.pairs:,} pairs {result.recall:.1%} have their positive among the"
            f" {k} nearest of {result.candidates:,}"
        )


def splits(engine: Engine, model: str) -> list[dict[str, object]]:
    """The number of rows and tokens per split."""
    from sqlalchemy import text

    query = text(
        "SELECT split, count(*) AS rows, sum(cardinality(tokens))::bigint AS tokens"
        " FROM public.llm_dataset WHERE model = :model GROUP BY split ORDER BY split"
    )
    with engine.connect() as connection:
        connection.execute(text("SELECT public.llm_config(:model)"), {"model": model})
        return [dict(row) for row in connection.execute(query, {"model": model}).mappings()]
