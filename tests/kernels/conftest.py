"""Engines for the kernel tests. Data and comparisons stand in tolerance.py."""

from __future__ import annotations

import numpy as np
import pytest

from llm_sql.kernels import Engine, available_isas


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The best instruction set, two threads."""
    return Engine(threads=2)


@pytest.fixture(scope="session")
def every_engine() -> list[Engine]:
    """Each instruction set of this machine with one, two and three threads; scalar with one thread first."""
    return [Engine(isa=isa, threads=threads) for isa in available_isas() for threads in (1, 2, 3)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
