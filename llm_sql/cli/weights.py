"""import, export, convert, checkpoint: weights between files and models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_sql.cli.common import (
    JsonOption,
    ModelArgument,
    SettingOption,
    UrlOption,
    named_values,
    print_json,
    print_table,
    say,
    telling_what_is_kept,
)
from llm_sql.cli.completion import complete_models

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="Name of the model.", autocompletion=complete_models)
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="safetensors, npz or gzip; default: according to the file's suffix."),
]


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command("export")(export)
    app.command()(convert)
    checkpoint = typer.Typer(
        help="Checkpoints in the server's directory.", no_args_is_help=True, rich_markup_mode=None
    )
    checkpoint.command("save")(checkpoint_save)
    checkpoint.command("load")(checkpoint_load)
    checkpoint.command("list")(checkpoint_list)
    app.add_typer(checkpoint, name="checkpoint")


def _report(json_: bool, model: str | None, path: str, count: int) -> None:
    if json_:
        print_json({"model": model, "path": path, "weights": count})
    else:
        say(f"{model or path}: {count:,} weights" + (f", {path}" if model else ""))


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A weight file, a GGUF file, a directory with config.json and model.safetensors or with a "
            "GGUF file, package:NAME of an installed Python package, or hf:NAME to download.",
        ),
    ],
    model: ModelName,
    megatron_version: Annotated[
        float | None,
        typer.Option("--megatron-version", help="Checkpoint version of a Megatron-LM file: 1.0, 2.0, ..."),
    ] = None,
    tokenizer: Annotated[
        bool, typer.Option("--tokenizer/--no-tokenizer", help="Also load the tokenizer that comes with it.")
    ] = True,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="NAME=TEXT", help="A prompt of a sentence encoder; may be repeated."
        ),
    ] = None,
    settings: SettingOption = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Replace a model's weights by those of a file or directory.

    The file is here, not on the server. A directory's config.json registers the model, and its tokenizer
    (vocab.json and merges.txt, tokenizer.json, or vocab.txt) becomes the model's. Decoders: GPT-2, Llama,
    SmolLM2, Mistral, Qwen2, Qwen3, GPT-NeoX, OPT. Sentence encoders: BERT's, with what sentence-transformers'
    modules.json asks for. A GGUF file (llama.cpp's) holds all of this; it takes the library gguf:
    pip install "llm-sql[gguf]".

    Example: llm-sql import hf:intfloat/e5-small-v2 --model e5 --prompt "query=query: "
    """
    from llm_sql import importing
    from llm_sql.cli.database import open_session
    from llm_sql.cli.progress import weights_bar

    with telling_what_is_kept("nothing was imported; files of the hub stay in its cache"):
        found = importing.read(source, tokenizer=tokenizer, settings=named_values(prompts, settings))
    path = str(found.path)
    with (
        telling_what_is_kept(f"nothing was imported: {model} is as it was"),
        open_session(url) as session,
        weights_bar("importing", json_) as advance,
    ):
        imported = importing.store(
            session.connection(), model, found, megatron_version=megatron_version, progress=advance
        )
    if json_:
        print_json({"model": model, "path": path, "weights": imported.weights, "tokens": imported.tokens})
        return
    _report(json_, model, path, imported.weights)
    if found.tokenizer is not None:
        say(f"{model}: {imported.tokens:,} tokens, {' and '.join(found.tokenizer.names)}")
    elif found.columns is not None and tokenizer:
        say(f"{model}: no tokenizer in {path}; llm-sql tokenizer load")


def export(
    target: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="File to write, or a new directory in Hugging Face's layout."),
    ],
    model: ModelName,
    format_: FormatOption = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a model's weights to a file.

    The file is here, not on the server; tensors have Hugging Face's names. A name without a suffix is a new
    directory, from which transformers loads a decoder, and sentence-transformers a sentence encoder with its
    modules and tokenizer.
    """
    from sqlalchemy.orm import Session

    from llm_sql.cli.database import open_engine
    from llm_sql.cli.progress import weights_bar
    from llm_sql.model import LanguageModel

    engine = open_engine(url).execution_options(isolation_level="REPEATABLE READ")
    with (
        telling_what_is_kept(f"{target} was not written"),
        Session(engine) as session,
        weights_bar("exporting", json_) as advance,
    ):
        count = LanguageModel(session, model).export_weights(target, format=format_, progress=advance)
    _report(json_, model, str(target), count)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="A weight file, a GGUF file, a directory in the hub's layout, package:NAME, or hf:NAME to "
            "download.",
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="TO", help="File to write.")],
    format_: FormatOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a weight file in another format; needs no database.

    Tensors are written as float32, under their names.
    """
    from llm_sql import importing, weights
    from llm_sql.cli.progress import weights_bar

    with telling_what_is_kept(f"{target} was not written"):
        path = importing.find(source)
        with weights_bar("converting", json_) as advance:
            count = weights.convert(path, target, format=format_, progress=advance)
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
    """Save all there is to a model on the server.

    Weights, optimizer state, step, configuration and tokenizer, in pg_llm.checkpoint_dir.
    """
    from llm_sql.cli.database import open_session
    from llm_sql.model import LanguageModel

    with open_session(url) as session:
        id_ = LanguageModel(session, model).save_checkpoint(note, keep=keep)
    if json_:
        print_json({"model": model, "id": id_})
    else:
        say(f"{model}: checkpoint {id_}")


def checkpoint_load(
    model: ModelArgument,
    id_: Annotated[int, typer.Argument(metavar="ID")],
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Restore a model to what it was when a checkpoint was saved."""
    from llm_sql.cli.database import open_session
    from llm_sql.model import LanguageModel

    with open_session(url) as session:
        step = LanguageModel(session, model).load_checkpoint(id_)
    if json_:
        print_json({"model": model, "id": id_, "step": step})
    else:
        say(f"{model}: step {step}, from checkpoint {id_}")


def checkpoint_list(
    model: Annotated[str | None, typer.Argument(help="List only this model's.")] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """List the checkpoints."""
    from sqlalchemy import text

    from llm_sql.cli.database import open_session

    query = text(
        "SELECT id, model, step, note, created_at, bytes FROM public.llm_checkpoint"
        " WHERE CAST(:model AS text) IS NULL OR model = :model ORDER BY id"
    )
    with open_session(url) as session:
        rows = [dict(row) for row in session.execute(query, {"model": model}).mappings()]
    print_json(rows) if json_ else print_table(rows)
