"""visualize: the loss curve, and the graph of a recorded pass."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llm_sql import visualize
from llm_sql.cli.common import JsonOption, ModelArgument, UrlOption, open_engine, out, print_json, print_table


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Loss curves and recorded passes.", no_args_is_help=True)
    group.command("loss")(loss)
    group.command("tape")(tape)
    app.add_typer(group, name="visualize")


def loss(
    model: ModelArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a plot: .png, .svg or .pdf.")
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Plot the loss over the model's steps, in the terminal or to a file."""
    with open_engine(url).connect() as connection:
        rows = visualize.read_log(connection, model)
    if output is not None:
        visualize.plot(rows, output, f"{model}, {len(rows)} steps")
    if json_:
        print_json([asdict(row) for row in rows])
    elif output is not None:
        out.print(f"{output}: {len(rows)} steps", markup=False)
    else:
        out.print(f"{model}: loss (nats per token), steps {rows[0].step} to {rows[-1].step}", markup=False)
        for line in visualize.chart([row.loss for row in rows]):
            out.print(line, markup=False)


def tape(
    model: ModelArgument,
    dot: Annotated[bool, typer.Option("--dot", help="Print the graph in Graphviz's DOT language.")] = False,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Show the ops of the model's last recorded pass, with the norms of their outputs."""
    with open_engine(url).connect() as connection:
        rows = visualize.read_pass(connection, model)
    if dot:
        typer.echo(visualize.dot(rows))
    elif json_:
        print_json([asdict(row) for row in rows])
    else:
        print_table([asdict(row) for row in rows], title=f"{model}: {len(rows)} ops")
