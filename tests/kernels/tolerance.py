"""Data for the kernel tests, and how close a float32 result must be to the float64 reference."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

odd_shapes = settings(max_examples=30, deadline=None, derandomize=True)
sizes = st.integers(1, 70)
seeds = st.integers(0, 2**32 - 1)

U = 2.0**-24  # unit roundoff of float32


def assert_close(got: np.ndarray, want: np.ndarray, scale: np.ndarray | float, roundings: float) -> None:
    """Every element of got within `roundings` units of want, a unit being U times `scale` (per element)."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    unit = U * np.broadcast_to(scale, got.shape)
    excess = np.abs(got - want) - roundings * unit
    if not np.all(excess <= 0):
        worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), got.shape)
        distance = abs(got[worst] - want[worst]) / unit[worst]
        at = [int(i) for i in worst]
        raise AssertionError(
            f"{at}: got {got[worst]!r}, want {want[worst]!r}: {distance:.1f} > {roundings} units"
        )


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Norm of the difference over the norm of want."""
    norm = float(np.linalg.norm(want))
    return (
        float(np.linalg.norm(np.asarray(got, np.float64) - want)) / norm
        if norm
        else float(np.abs(got).max(initial=0))
    )


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Reproducible float32 data."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def wide(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)
