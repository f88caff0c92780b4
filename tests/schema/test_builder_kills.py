"""Killing the session that writes a shared file harms nobody.

tests/hunts/builder_kills.py is the long form, by hand.
"""

from __future__ import annotations

import os

import pytest

from ..amount import EXTENDED, grows
from ..hunts.builder_kills import Shape, kills

pytestmark = pytest.mark.skipif(
    "DATABASE_URL" in os.environ, reason="DATABASE_URL's server cannot be killed by a test"
)


@grows
def test_a_writer_may_be_killed_at_any_moment() -> None:
    seed = int(os.environ.get("LLM_SQL_CRASH_SEED", "1"))
    kills(seed, 50 if EXTENDED else 5, Shape(n_layer=4, vocab=2000), print)
