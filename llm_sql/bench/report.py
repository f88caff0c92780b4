"""Rows of the one table that every section of the bench fills."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

RATE = "GFLOP/s"
# Columns of the engines that are compared with, and their headings.
ENGINES = {
    "pytorch": "PyTorch",
    "numpy": "NumPy",
    "transformers": "transformers",
    "sentence_transformers": "sentence-transformers",
    "onnxruntime": "onnxruntime",
    "llama_cpp": "llama.cpp",
    "ctranslate2": "CTranslate2",
}


@dataclass(frozen=True)
class Row:
    """One figure of ours beside the others'. Blank (None) where a column has no meaning.

    c_loop: the same arithmetic in C without SQL around it.
    ratio: llm-sql's time (or memory) over the best other engine's, also for rates: below 1 is better.
    of_peak: arithmetic per second over the measured FMA peak.
    of_roofline: time over the least possible one (roofline.py).
    """

    section: str
    what: str
    threads: int | None
    unit: str
    llm_sql: float | None
    pytorch: float | None = None
    numpy: float | None = None
    transformers: float | None = None
    sentence_transformers: float | None = None
    onnxruntime: float | None = None
    llama_cpp: float | None = None
    ctranslate2: float | None = None
    c_loop: float | None = None
    of_peak: float | None = None
    of_roofline: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        others: list[float] = [value for name in ENGINES if (value := getattr(self, name))]
        if not self.llm_sql or not others:
            return None
        return max(others) / self.llm_sql if self.unit.endswith("/s") else self.llm_sql / min(others)

    def as_dict(self) -> dict[str, Any]:
        """Keys as the table's headings and --json have them."""
        values = asdict(self)
        note = values.pop("note")
        values["ratio"] = self.ratio
        return {**values, "note": note}


def interleaved(
    samplers: Mapping[str, Callable[[], float]], repeats: int, *, between: Callable[[], object] | None = None
) -> dict[str, list[float]]:
    """`repeats` samples of each, taken in turns: a machine that is busy for a while slows all of them."""
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(repeats):
        for name, sampler in samplers.items():
            samples[name].append(sampler())
        if between is not None:
            between()
    return samples


def median(samples: Mapping[str, Sequence[float]], name: str) -> float | None:
    """None for what was not measured."""
    return statistics.median(samples[name]) if samples.get(name) else None
