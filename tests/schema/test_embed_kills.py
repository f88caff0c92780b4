"""llm_embed_missing goes on after kill -9; tests/hunts/embed_kills.py is the long form, by hand."""

from __future__ import annotations

import os

import pytest

from ..amount import EXTENDED, grows
from ..hunts.embed_kills import hunt

pytestmark = pytest.mark.skipif(
    "DATABASE_URL" in os.environ, reason="DATABASE_URL's server cannot be killed by a test"
)


@grows
def test_no_row_is_lost_or_done_twice() -> None:
    seed = int(os.environ.get("LLM_SQL_CRASH_SEED", "1"))
    hunt(20_000 if EXTENDED else 1500, 4 if EXTENDED else 2, seed, print)
