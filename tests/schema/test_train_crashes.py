"""A run that is crashed at random moments has the bits of one that is not.

tests/hunts/train_crashes.py is the long form, by hand.
"""

from __future__ import annotations

import os

import pytest

from ..amount import EXTENDED, grows
from ..hunts.train_crashes import KINDS, Shape, crashes

pytestmark = pytest.mark.skipif(
    "DATABASE_URL" in os.environ, reason="DATABASE_URL's server cannot be killed by a test"
)


@grows
def test_a_run_is_resumed_after_every_kind_of_crash() -> None:
    seed = int(os.environ.get("LLM_SQL_CRASH_SEED", "1"))
    shape = Shape(steps=60, n_layer=2, d_model=32, n_positions=16, on_disk=False)
    assert crashes(seed, len(KINDS) * (3 if EXTENDED else 1), shape, print) >= 1
