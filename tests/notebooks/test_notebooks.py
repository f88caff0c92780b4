"""Every notebook runs from the first cell to the last."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from ..docs.test_playbook import make_hub_directory

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def extra() -> None:
    """Looked for here and not when tests are collected: to import it takes seconds, in every process."""
    for name in ("nbformat", "nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(name, reason="the notebook extra is not installed")


def run_notebook(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("DATABASE_URL", url)
    notebook = nbformat.read(path, as_version=4)
    # Raises with the cell's source and traceback when a cell fails.
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, db_url: str, fresh_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_SQL_GPT2", raising=False)
    run_notebook(path, db_url, monkeypatch)


def test_fine_tuning_of_a_gpt2_in_files(
    db_url: str, engine: Engine, fresh_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_hub_directory(engine, tmp_path / "tiny")
    monkeypatch.setenv("LLM_SQL_GPT2", str(tmp_path / "tiny"))
    [path] = [path for path in NOTEBOOKS if path.stem == "fine_tuning"]
    run_notebook(path, db_url, monkeypatch)
