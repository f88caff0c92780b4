"""What transformers makes of every layout of a tokenizer's directory is what the golden file says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from ..golden.make_layouts import expected
from ..reference import bpe as reference
from ..reference.layouts import LAYOUTS, write

GOLDEN = json.loads((reference.GOLDEN / "tokenizer_layouts.json").read_text(encoding="utf-8"))


def test_every_layout_has_its_golden_values() -> None:
    assert set(GOLDEN) == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout(tmp_path: Path, name: str) -> None:
    assert expected(write(tmp_path, LAYOUTS[name])) == GOLDEN[name]
