"""Executes the notebooks and stores them with their outputs, so that a reader on the web sees the plots.

    make notebooks          every notebook runs, as a test (tests/notebooks), and what is stored is checked
    make notebooks-store    every notebook runs, and is written back with its outputs
    .venv/bin/python .ci/notebooks.py notebooks/2_*.ipynb    only some

Each runs in a new database of DATABASE_URL's server, or of the embedded one, so that ids and lists of models
are the same every time. The kernel's working directory is notebooks/, as in Jupyter: read files of the
repository relative to it (`Path("../tests/...")`), write files to a temporary folder.

What a notebook has to be, beside running from top to bottom:

- It finds its database by `engine = connect()` (llm_sql.notebook), which points %sql to it. It creates
  models under names of its own, and drops what an earlier run left of them: it may run twice, and beside
  other notebooks in the same server.
- Text that changes from run to run (seconds, tokens per second, ids of processes, paths) is not printed; such
  numbers go into a plot, or nowhere. Everything random has a seed.
- Progress is shown in one display that is updated (display(..., display_id=True)), not by printing lines.
- Plots are drawn by matplotlib, as PNG, 90 dpi are enough (`plt.rcParams["figure.dpi"] = 90`); a notebook
  stays below 1 MB.
- Sources pass `ruff format` and `ruff check`.

Of the outputs, stderr (warnings, log lines) is dropped; of the metadata, what depends on the machine.
`problems` lists what is wrong with a stored notebook; the test demands that it finds nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
MAX_BYTES = 1_000_000
# Paths and addresses of the machine where it ran.
OF_THE_MACHINE = re.compile(
    r"/(?:home|root|tmp|var|Users|work|workspace|mnt)/\w+|\b0x[0-9a-f]{8,}|postgresql://\w+@"
)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebooks() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))


def execute(path: Path, url: str) -> Any:
    """The notebook, run on the database. CellExecutionError, with source and traceback, when a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    client.execute(env=environment)
    return notebook


def clean(notebook: Any) -> None:
    """Leave of outputs and metadata what is the same on every machine."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells, 1):
        cell.metadata = nbformat.from_dict({})
        cell["id"] = f"cell-{number:02}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.pop("transient", None)
                if "metadata" in output:
                    output.metadata = nbformat.from_dict({})


def problems(path: Path) -> Iterator[str]:
    """What is wrong with a notebook as it is stored."""
    if path.stat().st_size > MAX_BYTES:
        yield f"{path.stat().st_size:,} bytes: more than {MAX_BYTES:,}"
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        yield "not stored as executed from the first cell to the last: make notebooks-store"
    if notebook.metadata != METADATA or any(cell.metadata for cell in notebook.cells):
        yield "metadata of an editor or a machine: make notebooks-store"
    for cell in cells:
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"[{cell.execution_count}] has an error or a warning"
            for text in _texts(output):
                found = OF_THE_MACHINE.search(text)
                if found:
                    yield f"[{cell.execution_count}] shows the machine's {found.group()}"


def _texts(output: Any) -> Iterator[str]:
    if output.output_type == "stream":
        yield output.text
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/"):
            yield str(data)


def store(path: Path) -> None:
    """Run the notebook in a new database and write it back with its outputs."""
    # Only here: the tests have databases of their own.
    from sqlalchemy import pool, text

    from llm_sql.provision import upgrade
    from llm_sql.server import ensure
    from llm_sql.url import own_engine

    server = own_engine(
        os.environ.get("DATABASE_URL") or ensure(), isolation_level="AUTOCOMMIT", poolclass=pool.NullPool
    )
    name = f"notebook_{secrets.token_hex(4)}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            url = server.url.set(database=name).render_as_string(hide_password=False)
            upgrade(url)
            notebook = execute(path, url)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    clean(notebook)
    nbformat.write(notebook, path)


def main(arguments: list[str]) -> int:
    failed = False
    for path in [Path(argument) for argument in arguments] or notebooks():
        print(path.name, flush=True)
        store(path)
        for problem in problems(path):
            print(f"  {problem}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
