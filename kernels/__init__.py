"""The numerical engine for NumPy arrays: the same compiled kernels that the PostgreSQL extension runs.

Everything here comes from the Cython module `llm_sql.kernels.core` over kernels/core/llm_core.h.
"""

if __name__ != "llm_sql.kernels":
    raise ImportError(f"import this package as llm_sql.kernels, not as {__name__}")

from .core import (
    Engine,
    KVCache,
    available_isas,
    best_isa,
    cpu_count,
    lr_schedule,
    mean_loss,
    numerics_version,
    penalize,
    permutation,
    philox,
    sample,
    site,
    uniform,
)

__all__ = [
    "Engine",
    "KVCache",
    "available_isas",
    "best_isa",
    "cpu_count",
    "lr_schedule",
    "mean_loss",
    "numerics_version",
    "penalize",
    "permutation",
    "philox",
    "sample",
    "site",
    "uniform",
]
