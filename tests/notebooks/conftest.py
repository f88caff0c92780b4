"""The tool that runs notebooks (.ci/notebooks.py), and notebooks made of a few cells."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool() -> ModuleType:
    """Looked for here and not when tests are collected: to import it takes seconds, in every process."""
    for name in ("nbformat", "nbclient", "ipykernel", "matplotlib", "pandas", "sql"):
        pytest.importorskip(name, reason="the notebook extra is not installed")
    spec = importlib.util.spec_from_file_location("notebooks_tool", ROOT / ".ci" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_cells(tool: ModuleType, url: str, folder: Path, *sources: str) -> Any:
    """A notebook of these cells, executed on the database."""
    from nbformat.v4 import new_code_cell, new_notebook, writes

    path = folder / "cells.ipynb"
    path.write_text(writes(new_notebook(cells=[new_code_cell(source) for source in sources])))
    return tool.execute(path, url)
