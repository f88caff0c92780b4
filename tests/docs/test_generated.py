"""What a script writes from a declaration is committed as it would write it now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm_sql.visualize import schema

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["kernels/postgres/ops/make_ops.py"])
def test_the_result_is_current(script: str) -> None:
    checked = subprocess.run(
        [sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("part", schema.PARTS)
def test_the_overviews_diagrams_are_the_declared_schema(part: str) -> None:
    page = (ROOT / "docs" / "overview.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{schema.mermaid(part)}```" in page, (
        f"llm-sql visualize schema -f mermaid --part {part}"
    )


def test_the_diagrams_show_every_table() -> None:
    shown = [name for part in schema.PARTS.values() for name in part]
    assert sorted(shown) == sorted(table.name for table in schema.tables())
