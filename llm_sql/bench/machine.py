"""The machine's ceilings, measured on the spot with the engine's own instructions and threads."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from llm_sql.kernels import Engine

BURST_SECONDS = 0.05
FLOATS_TO_READ = 1 << 26  # 256 MB: beyond any cache
RUNS = 5


class Machine:
    """FMA peak and memory bandwidth, for a number of threads; the best run counts, as a ceiling's must."""

    def __init__(self) -> None:
        self._data = np.ones(FLOATS_TO_READ, np.float32)

    def peak_flops(self, threads: int, isa: str | None = None) -> float:
        """Multiply-adds in registers, two flops each, per second."""
        engine = Engine(isa=isa, threads=threads)
        started = time.perf_counter()
        engine.fma_burst(threads)
        bursts = max(1, round(BURST_SECONDS / (time.perf_counter() - started))) * threads
        flops = engine.fma_burst(bursts)
        return flops / best_seconds(lambda: engine.fma_burst(bursts))

    def bandwidth(self, threads: int) -> float:
        """Bytes per second when reading memory; writing is slower, so a ceiling for any mixture."""
        engine = Engine(threads=threads)
        return self._data.nbytes / best_seconds(lambda: engine.sum(self._data))


def best_seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
