"""What a script writes from a declaration is committed as it would write it now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["kernels/postgres/ops/make_ops.py"])
def test_the_result_is_current(script: str) -> None:
    checked = subprocess.run(
        [sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
