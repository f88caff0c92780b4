"""train, demo, bench: work that takes a while, with its progress."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.orm import Session

from llm_sql.cli.common import (
    JsonOption,
    ModelArgument,
    UrlOption,
    err,
    format_value,
    open_engine,
    out,
    print_json,
)
from llm_sql.cli.options import options_of
from llm_sql.cli.progress import progress_bar
from llm_sql.corpus import FileSource, find_files
from llm_sql.errors import UsageError
from llm_sql.model import LanguageModel
from llm_sql.models.arguments import HYPERPARAMETERS, LISTS, without

Option = typer.Option


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(finetune)
    app.command()(demo)
    app.command()(bench)


@options_of(without(HYPERPARAMETERS, "log_every"))
def train(
    model: ModelArgument,
    n_steps: Annotated[int, Option("--steps", "-n", min=1)] = 1000,
    commit_every: Annotated[
        int, Option("--commit-every", min=0, help="Steps between commits; 0: one transaction.")
    ] = 100,
    url: UrlOption = None,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Train a model on its data set. After Ctrl-C, committed steps are kept."""
    engine = open_engine(url)
    with Session(engine) as session:
        lm = LanguageModel(session, model)
        with progress_bar(n_steps, quiet=json_) as advance:
            run_id = lm.train(
                n_steps,
                commit_every=commit_every or None,
                progress=advance,
                log_every=0,
                **options,
            )
        session.commit()
        summary = dict(
            session.execute(
                text(
                    "SELECT run_id, count(*) AS steps, max(step) AS step, sum(tokens)::bigint AS tokens,"
                    " sum(seconds) AS seconds, (array_agg(loss ORDER BY step))[1] AS first_loss,"
                    " (array_agg(loss ORDER BY step DESC))[1] AS last_loss"
                    " FROM public.llm_train_log WHERE run_id = :run GROUP BY run_id"
                ),
                {"run": run_id},
            )
            .mappings()
            .one()
        )
    if json_:
        print_json({"model": model, **summary})
    else:
        out.print(
            f"{model}: run {run_id}, {summary['steps']} steps in {summary['seconds']:.1f} s, "
            f"loss {summary['first_loss']:.4f} -> {summary['last_loss']:.4f} nats per token",
            markup=False,
        )


@options_of(without(LISTS["finetuning"], "log_every"))
def finetune(
    model: ModelArgument,
    query: Annotated[
        str | None, Option("--query", "-q", help="SQL whose first column holds the documents.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        Option("--input", "-i", help="File or quoted glob, each file a document; may be repeated."),
    ] = None,
    lines: Annotated[bool, Option("--lines", help="Each line of a file is a document.")] = False,
    n_steps: Annotated[int, Option("--steps", "-n", min=1)] = 100,
    name: Annotated[str | None, Option("--name", help="Name of the copy; default: MODEL-finetuned.")] = None,
    block_size: Annotated[int | None, Option("--block-size", min=1, help="Tokens per row.")] = None,
    validation: Annotated[float, Option("--validation", help="Fraction of the text to hold out.")] = 0.1,
    url: UrlOption = None,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Train a copy of a model on other texts; print its perplexity on held-out text before and after."""
    if (query is None) == (not inputs):
        raise UsageError("give either --query or --input")
    with Session(open_engine(url)) as session, session.begin():
        if inputs:
            query = send_documents(session, find_files(inputs), lines)
        with progress_bar(n_steps, quiet=json_) as advance:
            result = LanguageModel(session, model).finetune(
                str(query),
                n_steps,
                progress=advance,
                new_name=name,
                block_size=block_size,
                validation=validation,
                log_every=0,
                **options,
            )
    if json_:
        print_json(asdict(result))
    else:
        out.print(
            f"{result.model}: perplexity {result.perplexity_before:.4g} -> {result.perplexity_after:.4g} "
            "on held-out text",
            markup=False,
        )


def send_documents(session: Session, files: list[Path], lines: bool = False) -> str:
    """The files, or their lines, as a temporary table of the session, and the query that reads it."""
    source = FileSource(files, lines=lines)
    source.check()
    session.execute(text("CREATE TEMP TABLE llm_sql_documents (document text) ON COMMIT DROP"))
    insert = text("INSERT INTO pg_temp.llm_sql_documents VALUES (:document)")
    documents = (
        (piece.text for piece in source.pieces(None, 0.0))
        if lines
        else (path.read_text(encoding="utf-8-sig") for path in files)
    )
    for document in documents:
        session.execute(insert, {"document": document})
    return "SELECT document FROM pg_temp.llm_sql_documents"


def demo(
    model: Annotated[
        str, Option("--model", "-m", help="Name of the model; an existing model of this name is replaced.")
    ] = "catalog-gpt",
    seconds: Annotated[float, Option("--seconds", min=1, help="How long to train, approximately.")] = 45,
    steps: Annotated[int | None, Option("--steps", min=1, help="Train exactly N steps instead.")] = None,
    seed: Annotated[int, Option("--seed")] = 0,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a small GPT on the database's own catalog and generate text."""
    from llm_sql.cli.demo import run_demo

    result = run_demo(open_engine(url), model, seconds=seconds, steps=steps, seed=seed, quiet=json_)
    if json_:
        print_json(result)


def bench(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to measure: machine, kernels, train, sessions, storage, memory, generate, tokenizer,"
            " layers, or all. Default: machine, kernels and train with small shapes, which takes a minute.",
        ),
    ] = None,
    repeats: Annotated[
        int, Option("--repeats", min=1, help="Interleaved repetitions; their median is reported.")
    ] = 5,
    threads: Annotated[
        int, Option("--threads", min=0, help="Threads per engine; 0: as many as there are cores.")
    ] = 0,
    quick: Annotated[
        bool | None,
        Option(
            "--quick/--full",
            help="Small shapes only, or large ones too; --quick is the default without sections.",
        ),
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure this machine, and compare with PyTorch, NumPy and other engines where they are installed."""
    from llm_sql import bench
    from llm_sql.kernels import cpu_count

    names = bench.parse_sections(sections or [])
    rows: list[dict[str, Any]] = []
    try:
        with err.status("measuring ...") as status:
            for row in bench.run_bench(
                lambda: open_engine(url), names, threads=threads or cpu_count(), repeats=repeats,
                quick=not sections if quick is None else quick,
            ):  # fmt: skip
                rows.append(row.as_dict())
                status.update(f"{row.section}: {row.what}")
    finally:
        # What was measured before an error or Ctrl-C is shown all the same.
        if json_:
            print_json(rows)
        elif rows:
            print_bench(rows, repeats)


def print_bench(rows: list[dict[str, Any]], repeats: int) -> None:
    """The bench's table: a rule between sections, columns that have a figure, blanks without meaning."""
    from llm_sql.bench.report import ENGINES

    headings = {"section": "", "what": "", "threads": "threads", "unit": "unit", "llm_sql": "llm-sql"}
    optional = {**ENGINES, "c_loop": "loop in C", "ratio": "to best", "of_peak": "of peak"}
    optional["of_roofline"] = "of roofline"
    headings |= {k: v for k, v in optional.items() if any(row[k] is not None for row in rows)} | {"note": ""}
    table = Table(title=f"median of {repeats} interleaved repetitions", header_style="bold")
    for name, heading in headings.items():
        left = name in ("section", "what", "unit", "note")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    previous = None
    for row in rows:
        if previous is not None and row["section"] != previous:
            table.add_section()
        shown = dict(row, section="" if row["section"] == previous else row["section"])
        previous = row["section"]
        table.add_row(*("" if shown[name] is None else format_value(shown[name]) for name in headings))
    # Wider than a narrow terminal rather than cut.
    needed = out.measure(table, options=out.options.update(max_width=10_000)).maximum
    Console(highlight=False, width=max(out.width, needed)).print(table)
