"""The numerical engine for NumPy arrays: the same compiled kernels that the PostgreSQL extension runs.

Everything here comes from the Cython module `llm_sql.kernels.core` over kernels/core/llm_core.h.
"""

if __name__ != "llm_sql.kernels":
    raise ImportError(f"import this package as llm_sql.kernels, not as {__name__}")

from .core import (
    BPE,
    Engine,
    KVCache,
    PackedWeights,
    WeightsFile,
    WeightsFileError,
    WeightsWriter,
    available_isas,
    best_isa,
    bpe_alphabet,
    bpe_alphabet_bytes,
    bpe_pieces,
    cpu_count,
    lr_schedule,
    mean_loss,
    megatron_rows,
    numerics_version,
    parse_bpe_merges,
    parse_bpe_vocab,
    parse_tiktoken,
    penalize,
    permutation,
    philox,
    recover_merges,
    sample,
    site,
    train_bpe,
    uniform,
)

__all__ = [
    "BPE",
    "Engine",
    "KVCache",
    "PackedWeights",
    "WeightsFile",
    "WeightsFileError",
    "WeightsWriter",
    "available_isas",
    "best_isa",
    "bpe_alphabet",
    "bpe_alphabet_bytes",
    "bpe_pieces",
    "cpu_count",
    "lr_schedule",
    "mean_loss",
    "megatron_rows",
    "numerics_version",
    "parse_bpe_merges",
    "parse_bpe_vocab",
    "parse_tiktoken",
    "penalize",
    "permutation",
    "philox",
    "recover_merges",
    "sample",
    "site",
    "train_bpe",
    "uniform",
]
