"""import, export, convert, checkpoint: weights between files and models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import text
from sqlalchemy.orm import Session

from llm_sql import hub, tokenizer_files, weights
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
from llm_sql.errors import UsageError
from llm_sql.model import LanguageModel

ModelName = Annotated[str, typer.Option("--model", "-m", help="Name of the model.")]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="safetensors, npz or gzip; default: according to the file's suffix."),
]


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command("export")(export)
    app.command()(convert)
    checkpoint = typer.Typer(help="Checkpoints in the server's directory.", no_args_is_help=True)
    checkpoint.command("save")(checkpoint_save)
    checkpoint.command("load")(checkpoint_load)
    checkpoint.command("list")(checkpoint_list)
    app.add_typer(checkpoint, name="checkpoint")


@contextlib.contextmanager
def weights_bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar over a file's weights; yields the callback that moves it."""
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=quiet) as bar:
        task = bar.add_task(what, total=None, state="")

        def advance(done: int, total: int) -> None:
            bar.update(
                task, completed=done, total=total, state=f"{done / 1e6:,.1f}/{total / 1e6:,.1f} M weights"
            )

        yield advance


def _report(json_: bool, model: str | None, path: str, count: int) -> None:
    if json_:
        print_json({"model": model, "path": path, "weights": count})
    else:
        out.print(f"{model or path}: {count:,} weights" + (f", {path}" if model else ""), markup=False)


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A weight file, a directory with config.json and model.safetensors, or hf:NAME to download.",
        ),
    ],
    model: ModelName,
    megatron_version: Annotated[
        float | None,
        typer.Option("--megatron-version", help="Checkpoint version of a Megatron-LM file: 1.0, 2.0, ..."),
    ] = None,
    tokenizer: Annotated[
        bool, typer.Option("--tokenizer/--no-tokenizer", help="Also load the directory's tokenizer.")
    ] = True,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Replace a model's weights with those of a file here, not on the server.

    A directory's config.json registers the model, and its tokenizer (vocab.json and merges.txt, or
    tokenizer.json) becomes the model's.
    """
    path = hub.download(source.removeprefix("hf:")) if source.startswith("hf:") else Path(source)
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    columns = hub.read_config(path) if path.is_dir() else None
    files = tokenizer_files.read_directory(path) if tokenizer and path.is_dir() else None
    n_tokens = None
    with Session(open_engine(url)) as session, session.begin():
        if columns is not None:
            hub.ensure_config(session.connection(), model, columns)
        if files is not None:
            n_tokens = tokenizer_files.load(session, model, files)
        with weights_bar("importing", json_) as advance:
            count = LanguageModel(session, model).import_weights(
                path, tokenizer=False, megatron_version=megatron_version, progress=advance
            )
    if json_:
        print_json({"model": model, "path": str(path), "weights": count, "tokens": n_tokens})
        return
    _report(json_, model, str(path), count)
    if files is not None:
        out.print(f"{model}: {n_tokens:,} tokens, {' and '.join(files.names)}", markup=False)
    elif path.is_dir() and tokenizer:
        out.print(f"{model}: no tokenizer in {path}; llm-sql tokenizer load", markup=False)


def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    model: ModelName,
    format_: FormatOption = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a model's weights to a file here, with Hugging Face's tensor names."""
    engine = open_engine(url).execution_options(isolation_level="REPEATABLE READ")
    with Session(engine) as session, weights_bar("exporting", json_) as advance:
        count = LanguageModel(session, model).export_weights(target, format=format_, progress=advance)
    _report(json_, model, str(target), count)


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="FROM", help="A weight file, or a directory in the hub's layout.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TO", help="File to write.")],
    format_: FormatOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a weight file in another format, as float32; needs no database."""
    with weights_bar("converting", json_) as advance:
        count = weights.convert(source, target, format=format_, progress=advance)
    _report(json_, None, str(target), count)


def checkpoint_save(
    model: ModelArgument,
    note: Annotated[str | None, typer.Option("--note", help="A note to store with the checkpoint.")] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Keep only the N newest checkpoints.")
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Save weights, optimizer state, step, configuration and tokenizer on the server."""
    with Session(open_engine(url)) as session, session.begin():
        id_ = LanguageModel(session, model).save_checkpoint(note, keep=keep)
    if json_:
        print_json({"model": model, "id": id_})
    else:
        out.print(f"{model}: checkpoint {id_}", markup=False)


def checkpoint_load(
    model: ModelArgument,
    id_: Annotated[int, typer.Argument(metavar="ID")],
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Restore a model to what it was when a checkpoint was saved."""
    with Session(open_engine(url)) as session, session.begin():
        step = LanguageModel(session, model).load_checkpoint(id_)
    if json_:
        print_json({"model": model, "id": id_, "step": step})
    else:
        out.print(f"{model}: step {step}, from checkpoint {id_}", markup=False)


def checkpoint_list(
    model: Annotated[str | None, typer.Argument(help="List only this model's.")] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """List the checkpoints."""
    query = text(
        "SELECT id, model, step, note, created_at, bytes FROM public.llm_checkpoint"
        " WHERE CAST(:model AS text) IS NULL OR model = :model ORDER BY id"
    )
    with Session(open_engine(url)) as session:
        rows = [dict(row) for row in session.execute(query, {"model": model}).mappings()]
    print_json(rows) if json_ else print_table(rows)
