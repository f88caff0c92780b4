"""create, generate, evaluate: models and what they say."""

from __future__ import annotations

import itertools
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from llm_sql import functions
from llm_sql.cli.common import JsonOption, ModelArgument, ModelOption, UrlOption, open_engine, out, print_json
from llm_sql.cli.options import options_of
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.model import LanguageModel
from llm_sql.models import MODELS
from llm_sql.models.arguments import SAMPLING, without


def register(app: typer.Typer) -> None:
    app.command()(create)
    app.command()(rename)
    app.command()(generate)
    app.command()(evaluate)


SMALL = {"n_layer": 4, "n_head": 4, "d_model": 128, "n_positions": 128}
MICROGPT = next(row for row in MODELS if row["model"] == "microgpt")


def default_model(session: Session, model: str | None) -> str:
    """The named model, else what the database takes by default."""
    return model or str(session.scalar(select(functions.default_model())))


def create(
    model: ModelArgument,
    n_layer: Annotated[
        int | None, typer.Option("--layers", min=1, help="Number of blocks; default 4.")
    ] = None,
    n_head: Annotated[
        int | None,
        typer.Option("--heads", min=1, help="Number of attention heads; must divide --width; default 4."),
    ] = None,
    d_model: Annotated[
        int | None, typer.Option("--width", min=1, help="Size of the residual stream (d_model); default 128.")
    ] = None,
    n_positions: Annotated[
        int | None, typer.Option("--context", min=1, help="Longest sequence, in tokens; default 128.")
    ] = None,
    vocab: Annotated[
        int | None,
        typer.Option("--vocab", min=1, help="Vocabulary size; default: that of the model's tokenizer."),
    ] = None,
    arch: Annotated[
        str, typer.Option("--arch", help="gpt2, gpt3, microgpt, or one registered in llm_arch.")
    ] = "gpt2",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the initial weights.")] = 0,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Register a model and initialise its weights.

    The defaults of microgpt differ: 1 layer, 4 heads, width 16, context 16.
    """
    default = MICROGPT if arch == "microgpt" else SMALL
    n_layer, n_head = n_layer or default["n_layer"], n_head or default["n_head"]
    d_model, n_positions = d_model or default["d_model"], n_positions or default["n_positions"]
    if d_model % n_head:
        raise UsageError(f"--heads {n_head} does not divide --width {d_model}")
    with Session(open_engine(url)) as session, session.begin():
        if vocab is None:
            vocab = session.scalar(
                text("SELECT max(token_id) + 1 FROM public.llm_bpe_vocab WHERE model = :model"),
                {"model": model},
            )
        if vocab is None:
            raise UsageError(
                f'model "{model}" has no tokenizer, so --vocab is needed',
                hint=f"or first: llm-sql tokenizer chars {model} --query 'SELECT ...'",
            )
        count = session.scalars(
            select(functions.create_model(model, arch, n_layer, n_head, d_model, n_positions, vocab, seed))
        ).one()
    if json_:
        print_json({"model": model, "arch": arch, "vocab": vocab, "parameters": count})
    else:
        out.print(f"{model}: {count:,} parameters, vocabulary {vocab}", markup=False)


def rename(
    model: ModelArgument,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="The new name.")],
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Rename a model, with all that belongs to it."""
    with Session(open_engine(url)) as session, session.begin():
        LanguageModel(session, model).rename(new_name)
    print_json({"model": new_name}) if json_ else out.print(f"{model} is now {new_name}", markup=False)


@options_of(without(SAMPLING, "model", "echo"))
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads from standard input.")] = "",
    model: ModelOption = None,
    url: UrlOption = None,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Continue a text; tokens appear as the database generates them."""
    if prompt == "-":
        prompt = sys.stdin.read()
    with Session(open_engine(url)) as session:
        name = default_model(session, model)
        events = LanguageModel(session, name).stream(prompt, **options)
        pieces = []
        first = next(events, None)  # an error comes before any output
        if not json_:
            typer.echo(prompt, nl=False)
        for event in itertools.chain(() if first is None else (first,), events):
            pieces.append(event)
            if not json_:
                typer.echo(event.token, nl=False)
                sys.stdout.flush()
    if json_:
        text_ = pieces[-1].text if pieces else ""
        print_json(
            {
                "model": name,
                "prompt": prompt,
                "text": text_,
                "token_ids": [event.token_id for event in pieces],
            }
        )
    else:
        typer.echo()


def evaluate(
    model: ModelOption = None,
    split: Annotated[str, typer.Option("--split", help="train, validation, ...")] = "validation",
    text_: Annotated[str | None, typer.Option("--text", help="Score this text instead.")] = None,
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", help="SQL whose first column holds documents to score instead."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option("--stride", min=1, help="Score in overlapping windows that start N tokens apart."),
    ] = None,
    log: Annotated[
        bool,
        typer.Option("--log", help="Store the loss of the split in llm_eval_log, for charts of training."),
    ] = False,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Loss and perplexity of a model on its held-out rows, on a query's documents, or on a text."""
    if log and (text_ is not None or query is not None):
        raise UsageError("--log stores the loss of a split", hint="Omit --text and --query.")
    with Session(open_engine(url)) as session:
        name = default_model(session, model)
        lm = LanguageModel(session, name)
        if text_ is not None:
            perplexity = lm.perplexity(text_, stride=stride)
            if json_:
                print_json({"model": name, "perplexity": perplexity})
            else:
                out.print(f"{name}: perplexity {perplexity:.4g}", markup=False)
            return
        result = lm.evaluate(split, stride=stride, query=query, log=log)
        if log:
            session.commit()
    if result.tokens == 0:
        raise LLMSQLError(f'model "{name}" has no rows in split "{split}"')
    if json_:
        print_json({"model": name, "split": None if query else split, **asdict(result)})
    else:
        out.print(
            f"{name}, {'query' if query else split}: {result.tokens:,} tokens, "
            f"{result.loss:.4f} nats per token, perplexity {result.perplexity:.4g}",
            markup=False,
        )
