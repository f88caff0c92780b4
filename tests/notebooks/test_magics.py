"""Tensors in a notebook: connect(), %sql of JupySQL, pandas."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from .conftest import run_cells

CONNECT = "from llm_sql.notebook import connect\n\nengine = connect()"
ROW = "SELECT '[[1,2],[3,4]]'::tensor AS t, '{1,2}'::int[] AS a, '{\"b\": [1]}'::jsonb AS j"
CHECK = """import numpy as np
assert isinstance(frame.t[0], np.ndarray) and frame.t[0].dtype == np.float32 and frame.t[0].shape == (2, 2)
assert frame.a[0] == [1, 2] and frame.j[0] == {"b": [1]}"""


def test_sql_magic_gives_arrays(tool: ModuleType, db_url: str, tmp_path: Path) -> None:
    """Twice: JupySQL compares a result with the earlier ones."""
    query = f"frame = %sql {ROW}"
    run_cells(tool, db_url, tmp_path, CONNECT, query, CHECK, query, CHECK, f"%%sql frame <<\n{ROW}", CHECK)


def test_sql_magic_prints_no_address(tool: ModuleType, db_url: str, tmp_path: Path) -> None:
    notebook = run_cells(tool, db_url, tmp_path, CONNECT, "%sql SELECT '[1,2]'::tensor AS t")
    assert notebook.cells[0].outputs == []
    [output] = notebook.cells[1].outputs
    assert output.data["text/plain"].split() == ["t", "0", "[1.0,", "2.0]"]


def test_sql_magic_keeps_the_session(tool: ModuleType, db_url: str, tmp_path: Path) -> None:
    run_cells(
        tool,
        db_url,
        tmp_path,
        CONNECT,
        "%sql CREATE TEMPORARY TABLE kept AS SELECT '[1,2]'::tensor AS t",
        "frame = %sql SELECT t + t AS u FROM kept",
        "assert frame.u[0].tolist() == [2, 4]",
    )


def test_an_engine_of_the_users(tool: ModuleType, db_url: str, tmp_path: Path) -> None:
    own = (
        "import os\nfrom sqlalchemy import create_engine\nfrom llm_sql.types import adapt_engine\n"
        "from llm_sql.url import normalize_url\n"
        "mine = create_engine(normalize_url(os.environ['DATABASE_URL']))\nadapt_engine(mine)\n"
        "from llm_sql.notebook import connect\nassert connect(mine) is mine"
    )
    run_cells(tool, db_url, tmp_path, own, f"frame = %sql {ROW}", CHECK)


def test_pandas_reads_arrays(tool: ModuleType, db_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a notebook, too."""
    import numpy as np
    import pandas as pd

    from llm_sql.notebook import connect

    monkeypatch.setenv("DATABASE_URL", db_url)
    engine = connect()
    try:
        with engine.connect() as connection:
            frame = pd.read_sql(ROW.replace("%", "%%"), connection)
    finally:
        engine.dispose()
    assert isinstance(frame.t[0], np.ndarray)
    assert frame.t[0].tolist() == [[1, 2], [3, 4]]
    assert (frame.a[0], frame.j[0]) == ([1, 2], {"b": [1]})
