"""Arrays for SAME_BITS, the cases of test_same_bits.py, which stand with each family's other tests.

Shapes are odd, and large enough that three threads each get work and that each instruction set has full and
partial tiles. Scalar arguments of cases are float32 numbers, so that passing them rounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llm_sql.kernels import Engine

from .tolerance import normal

# By the method of Engine: a call whose results are the same bits for all engines.
Cases = dict[str, Callable[[Engine], object]]

KEY = {"seed": 5, "step": 6, "site": "h.0"}
IDS = np.random.default_rng(1).integers(0, 211, 700)
TARGETS = np.where(np.arange(700) % 7 == 0, -1, IDS)
X = normal(1, 700, 203)
DOUT = normal(2, 700, 203)
FLAT, FLAT2 = normal(3, 100_003, scale=3), normal(4, 100_003)
WIDE = np.float32(3) * FLAT
W = normal(5, 203, 211)
WTE = normal(6, 211, 203)
GAMMA, BETA = normal(7, 203), normal(8, 203)
LOGITS, CLASSES = 10 * X, np.minimum(TARGETS, 202)
QKV = normal(9, 2, 150, 3 * 60)
Q, K, V = QKV[..., :60], QKV[..., 60:120], QKV[..., 120:]
DATT = normal(10, 2, 150, 60)
