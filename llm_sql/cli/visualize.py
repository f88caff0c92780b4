"""visualize: pictures of what the relations hold, in the terminal or in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_sql.cli.common import JsonOption, ModelArgument, UrlOption, print_json, say
from llm_sql.errors import UsageError
from llm_sql.printable import title

if TYPE_CHECKING:
    from sqlalchemy import Connection


class SchemaPart(str, Enum):
    models = "models"
    training = "training"
    tape = "tape"


class GraphFormat(str, Enum):
    text = "text"
    dot = "dot"
    mermaid = "mermaid"


StillOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write a picture: .png, .svg or .pdf.")
]
FormatOption = Annotated[
    GraphFormat | None,
    typer.Option("--format", "-f", help="How to print it: text (default), dot (Graphviz) or mermaid."),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Pictures of training, passes, architectures and the schema.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("training")(training)
    group.command("loss", hidden=True, help="The same as `training`.")(training)
    group.command("gradient-flow")(gradient_flow)
    group.command("attention")(attention)
    group.command("graph")(graph)
    group.command("schema")(schema)
    group.command("tape")(tape)
    group.command("all")(all_)
    app.add_typer(group, name="visualize")


@contextmanager
def reading(url: str | None) -> Iterator[Connection]:
    """A transaction that writes nothing, and sees one state of the database."""
    from llm_sql.cli.database import open_engine

    with open_engine(url).connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection


def show(lines: Sequence[str]) -> None:
    say("\n".join(lines))


def check_printed(format_: GraphFormat | None, output: Path | None, json_: bool) -> None:
    """One of printing, a picture and JSON."""
    if output is not None and format_ is not None:
        raise UsageError(
            "--format says how it is printed, and --output writes a picture", hint="Give one of them."
        )
    if json_ and output is None and format_ is not None:
        raise UsageError("--json is a format of its own", hint="Omit --format.")


def wrote(path: Path, what: str, json_: bool) -> None:
    if json_:
        print_json({"file": str(path), "bytes": path.stat().st_size, "shows": what})
    else:
        say(f"{path}: {what}")


def training(
    model: ModelArgument,
    output: StillOption = None,
    smoothing: Annotated[
        float, typer.Option("--smoothing", min=0.0, max=0.9999, help="Weight of the moving average.")
    ] = 0.9,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Loss, learning rate and gradient norm over the steps.

    The loss raw, smoothed and held-out; the norm with what was clipped.
    Smoothed: an exponential moving average with bias correction. Held-out: what llm_log_evaluation stored.
    """
    from llm_sql.visualize import files, read, training

    if output is not None:
        files.check_target(output, training.FORMATS, "a chart of training")
    with reading(url) as connection:
        history = read.read_history(connection, model)
    if output is not None:
        training.draw(history, output, smoothing)
        wrote(output, f"{len(history.steps):,} steps", json_)
    elif json_:
        print_json(training.as_json(history, smoothing))
    else:
        show(training.lines(history, smoothing))


def gradient_flow(
    model: ModelArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the animation: .gif.")] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """A model's last recorded training step, stage by stage.

    Which relation is at work in each, and the norms per layer.
    The last step of every training call is recorded (settings pg_llm.record, pg_llm.tape_keep).
    """
    from llm_sql.visualize import files, flow, read

    if output is not None:
        files.check_target(output, flow.FORMATS, "an animation")
    with reading(url) as connection:
        step = read.read_step(connection, model)
    if output is not None:
        flow.draw(step, output)
        wrote(output, f"step {step.step:,} in {len(flow.frames(step))} frames", json_)
    elif json_:
        print_json(asdict(step))
    else:
        show(flow.lines(step))


def attention(
    model: ModelArgument,
    text_: Annotated[str, typer.Argument(metavar="TEXT", help="The text to read.")],
    layer: Annotated[int | None, typer.Option("--layer", help="Only this layer, from 0.")] = None,
    head: Annotated[int | None, typer.Option("--head", help="Only this head, from 0.")] = None,
    output: StillOption = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Attention weights of a text.

    How much every token attends to those before it.
    A file shows every layer and head unless one is chosen; the terminal one: by default the last layer's
    first.
    """
    from llm_sql.visualize import attention, files

    if output is not None:
        files.check_target(output, attention.FORMATS, "an attention map")
    with reading(url) as connection:
        if output is None and not json_:
            layer = attention.last_layer(connection, model) if layer is None else layer
            head = 0 if head is None else head
        most = None if output is None else attention.MOST_MAPS
        found = attention.read_attention(connection, model, text_, layer, head, most=most)
    if output is not None:
        attention.draw(found, output)
        wrote(output, f"{len(found.maps)} maps of {len(found.tokens)} tokens", json_)
    elif json_:
        print_json(attention.as_json(found))
    else:
        show(attention.lines(found))


def graph(
    name: Annotated[str, typer.Argument(metavar="ARCH_OR_MODEL", help="gpt2, microgpt, ... or a model.")],
    format_: FormatOption = None,
    output: StillOption = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """The graph of an architecture or of a model.

    Of a model with the shapes of its tensors.
    """
    from llm_sql.visualize import files, graph, graph_picture

    check_printed(format_, output, json_)
    if output is not None:
        files.check_target(output, graph_picture.FORMATS, "a graph")
    with reading(url) as connection:
        found = graph.read_graph(connection, name)
    if output is not None:
        graph_picture.draw(found, output)
        wrote(output, found.title, json_)
    elif json_:
        print_json(graph.as_json(found))
    elif format_ in (None, GraphFormat.text):
        show(graph.lines(found))
    else:
        say((graph.dot if format_ is GraphFormat.dot else graph.mermaid)(found).rstrip("\n"))


def schema(
    format_: FormatOption = None,
    part: Annotated[
        SchemaPart | None, typer.Option("--part", help="Only these tables, of a Mermaid diagram.")
    ] = None,
    output: StillOption = None,
    json_: JsonOption = False,
) -> None:
    """The relations and how they are linked; needs no database.

    From the declared schema.
    """
    from llm_sql.visualize import schema

    check_printed(format_, output, json_)
    if part is not None and format_ is not GraphFormat.mermaid:
        raise UsageError("--part is for a Mermaid diagram", hint="--format mermaid")
    if output is not None:
        schema.draw(output)
        wrote(output, f"{len(schema.tables())} tables", json_)
    elif json_:
        print_json(schema.as_json())
    elif format_ is GraphFormat.mermaid:
        say(schema.mermaid(part.value if part else None).rstrip("\n"))
    elif format_ is GraphFormat.dot:
        raise UsageError("the schema is not written in dot", hint="--format mermaid, or -o schema.svg")
    else:
        show(schema.lines())


def tape(
    model: ModelArgument,
    dot: Annotated[bool, typer.Option("--dot", help="Print the graph in Graphviz's DOT language.")] = False,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """The ops of a model's last recorded pass.

    What they read, and the norms of what they put out.
    """
    from llm_sql.visualize import read, tape

    with reading(url) as connection:
        recorded = read.read_pass(connection, model)
    if dot:
        say(tape.dot(recorded))
    elif json_:
        print_json([asdict(op) for op in recorded.ops])
    else:
        show(tape.lines(recorded, f"{title(model)}: {len(recorded.ops)} ops"))


def all_(
    model: ModelArgument,
    folder: Annotated[Path, typer.Option("--folder", help="Where to write; made if it is not there.")],
    text_: Annotated[
        str | None,
        typer.Option("--text", help="What to show attention for; default: a row of the model's data."),
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """All pictures of a model in one folder, under fixed names."""
    from llm_sql.visualize import attention, files, flow, graph, graph_picture, read, schema, training

    files.require_matplotlib()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", hint="Name a folder; it is made if it is not there.")
    with reading(url) as connection:
        history = read.read_history(connection, model)
        step = read.read_step(connection, model)
        sample = attention.sample_text(connection, model) if text_ is None else text_
        layer = attention.chosen_layer(connection, model)
        maps = attention.read_attention(connection, model, sample, layer, most=attention.MOST_MAPS)
        architecture = graph.read_graph(connection, model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(folder, error) from error
    training.draw(history, folder / "training_metrics.png")
    flow.draw(step, folder / "gradient_flow.gif")
    attention.draw(maps, folder / "attention.png")
    graph_picture.draw(architecture, folder / "graph.svg")
    schema.draw(folder / "schema.svg")
    names = ("training_metrics.png", "gradient_flow.gif", "attention.png", "graph.svg", "schema.svg")
    files_ = [{"file": str(folder / name), "bytes": (folder / name).stat().st_size} for name in names]
    if json_:
        print_json(files_)
    else:
        show([f"{file['file']}: {file['bytes']:,} bytes" for file in files_])
