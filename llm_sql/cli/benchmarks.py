"""bench: how fast this machine is, and how others are on it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llm_sql.cli.common import JsonOption, UrlOption, console, format_value, print_json


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to measure: machine, kernels, train, sessions, storage, memory, recompute, generate,"
            " tokenizer, layers, log, shared, pooler, embed, or all."
            " Default: machine, kernels and train with small shapes, which takes a minute.",
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Interleaved repetitions; their median is reported.")
    ] = 5,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="Threads per engine; 0: as many as there are cores.")
    ] = 0,
    quick: Annotated[
        bool | None,
        typer.Option(
            "--quick/--full",
            help="Small shapes only, or large ones too; --quick is the default without sections.",
        ),
    ] = None,
    url: UrlOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure this machine, beside PyTorch and other engines.

    They take part where they are installed: PyTorch, NumPy, transformers, llama.cpp, CTranslate2,
    sentence-transformers, onnxruntime.
    """
    from llm_sql import bench
    from llm_sql.cli.database import open_engine
    from llm_sql.kernels import cpu_count

    names = bench.parse_sections(sections or [])
    rows: list[dict[str, Any]] = []
    try:
        with console(stderr=True).status("measuring ...") as status:
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
    from rich.console import Console
    from rich.table import Table

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
    out = console()
    # Wider than a narrow terminal rather than cut.
    needed = out.measure(table, options=out.options.update(max_width=10_000)).maximum
    Console(highlight=False, width=max(out.width, needed)).print(table)
