"""create, generate, evaluate: models and what they say."""

from __future__ import annotations

import itertools
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_sql.cli.common import (
    JsonOption,
    ModelArgument,
    ModelOption,
    SettingOption,
    UrlOption,
    named_values,
    print_json,
    say,
    telling_what_is_kept,
)
from llm_sql.cli.options import options_of
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.models.arguments import SAMPLING, without

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from llm_sql.client import StreamEvent


def register(app: typer.Typer) -> None:
    app.command()(create)
    app.command()(rename)
    app.command()(generate)
    app.command()(evaluate)


# What create makes when nothing is said of the architecture: a GPT-2 that trains in minutes on a CPU.
SMALL = {"n_layer": 4, "n_head": 4, "d_model": 128, "n_positions": 128}
FLAGS = {
    "n_layer": "--layers",
    "n_head": "--heads",
    "d_model": "--width",
    "n_positions": "--context",
    "vocab": "--vocab",
    "arch": "--arch",
}


def default_model(session: Session, model: str | None) -> str:
    """The named model, else what the database takes by default."""
    from sqlalchemy import select

    from llm_sql import functions

    return model or str(session.scalar(select(functions.default_model())))


def create(
    model: ModelArgument,
    n_layer: Annotated[int | None, typer.Option("--layers", min=1, help="Number of blocks.")] = None,
    n_head: Annotated[
        int | None, typer.Option("--heads", min=1, help="Number of attention heads; must divide --width.")
    ] = None,
    d_model: Annotated[
        int | None, typer.Option("--width", min=1, help="Size of the residual stream (d_model).")
    ] = None,
    n_positions: Annotated[
        int | None, typer.Option("--context", min=1, help="Longest sequence, in tokens.")
    ] = None,
    vocab: Annotated[
        int | None,
        typer.Option("--vocab", min=1, help="Vocabulary size; default: that of the model's tokenizer."),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option("--arch", help="gpt2, gpt3, microgpt, bert, llama, neox, opt, or one of llm_arch."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the initial weights.")] = 0,
    settings: SettingOption = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Register a model and initialise its weights.

    Without --arch it is a small GPT-2: 4 layers, 4 heads, width 128, context 128, for the model's tokenizer.
    With --arch, sizes that are not given are the architecture's: microgpt has 1 layer, 4 heads, width 16,
    context 16; gpt2 and gpt3 have 12 layers, 12 heads, width 768.
    A name that llm_model_config already has without weights, such as gpt2-small, takes its sizes from there.

    Example: llm-sql tokenizer chars names -i names.txt --lines; llm-sql create names --arch microgpt
    """
    from llm_sql.cli.creating import create_model

    sizes = {
        "n_layer": n_layer,
        "n_head": n_head,
        "d_model": d_model,
        "n_positions": n_positions,
        "vocab": vocab,
    }
    given = {name: n for name, n in sizes.items() if n is not None}
    created = create_model(url, model, arch, given, seed, named_values(None, settings))
    if json_:
        print_json(created)
    else:
        say(f"{model}: {created['parameters']:,} parameters, vocabulary {created['vocab']}")


def rename(
    model: ModelArgument,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="The new name.")],
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Rename a model, with all that belongs to it."""
    from llm_sql.cli.database import open_session
    from llm_sql.model import LanguageModel

    with open_session(url) as session:
        LanguageModel(session, model).rename(new_name)
    print_json({"model": new_name}) if json_ else say(f"{model} is now {new_name}")


@options_of(without(SAMPLING, "model"))
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads from standard input.")] = "",
    model: ModelOption = None,
    url: UrlOption = None,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Continue a text; tokens appear as they are generated.

    Example: llm-sql generate "pg_" -m catalog-gpt -n 40 -t 0.8 --seed 1
    """
    from llm_sql.cli.database import open_session
    from llm_sql.model import LanguageModel

    if prompt == "-":
        prompt = sys.stdin.read()
    # For people the prompt stands before the text, unless it is not wanted.
    echo = options.pop("echo")
    pieces: list[StreamEvent] = []
    with (
        telling_what_is_kept(
            lambda: f"after {len(pieces)} tokens; generating changes nothing in the database"
        ),
        open_session(url) as session,
    ):
        name = default_model(session, model)
        events = LanguageModel(session, name).stream(prompt, **options)
        first = next(events, None)  # an error comes before any output
        if not json_ and echo is not False:
            say(prompt, end=False)
        for event in itertools.chain(() if first is None else (first,), events):
            pieces.append(event)
            if not json_:
                say(event.token, end=False)
                sys.stdout.flush()
    if json_:
        text = (prompt if echo else "") + (pieces[-1].text if pieces else "")
        ids = [event.token_id for event in pieces]
        print_json({"model": name, "prompt": prompt, "text": text, "token_ids": ids})
    else:
        say()


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
    """Loss and perplexity on held-out rows or other texts.

    Example: llm-sql evaluate -m catalog-gpt --text "to_char: convert int4 to text"
    """
    from llm_sql.cli.database import open_session
    from llm_sql.model import LanguageModel

    if text_ is not None and query is not None:
        raise UsageError("give either --text or --query")
    if log and (text_ is not None or query is not None):
        raise UsageError("--log stores the loss of a split", hint="Omit --text and --query.")
    with telling_what_is_kept("evaluating changes nothing in the database"), open_session(url) as session:
        name = default_model(session, model)
        lm = LanguageModel(session, name)
        if text_ is not None:
            perplexity = lm.perplexity(text_, stride=stride)
            if json_:
                print_json({"model": name, "perplexity": perplexity})
            else:
                say(f"{name}: perplexity {perplexity:.4g}")
            return
        result = lm.evaluate(split, stride=stride, query=query, log=log)
        if log:
            session.commit()
    if result.tokens == 0:
        raise LLMSQLError(
            f'model "{name}" has no rows in split "{split}"',
            hint=f"llm-sql dataset show {name} shows its splits, llm-sql dataset fill makes rows",
        )
    if json_:
        print_json({"model": name, "split": None if query else split, **asdict(result)})
    else:
        say(
            f"{name}, {'query' if query else split}: {result.tokens:,} tokens, "
            f"{result.loss:.4f} nats per token, perplexity {result.perplexity:.4g}"
        )
