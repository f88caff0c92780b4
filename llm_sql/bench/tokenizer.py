"""Tokenizer throughput in one run: llm_encode over rows through SQL, beside tiktoken on one thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from llm_sql.tokenizer import read_encoding


def bench_tokenizer(
    session: Session, model: str, documents: Sequence[str], *, repeats: int = 3
) -> dict[str, Any]:
    """Megabytes of UTF-8 per second of either, the best of `repeats` turns, and their ratio.

    The documents stand in a temporary table, which the caller's transaction owns; both count the tokens, and
    RuntimeError says so when they differ.
    """
    encoding = read_encoding(session, model)
    session.execute(text("CREATE TEMPORARY TABLE bench_documents (body text) ON COMMIT DROP"))
    session.execute(
        text("INSERT INTO bench_documents SELECT unnest(CAST(:documents AS text[]))"),
        {"documents": list(documents)},
    )
    count = text("SELECT sum(cardinality(public.llm_encode(body, :model, false))) FROM bench_documents")
    n_bytes = sum(len(document.encode()) for document in documents)
    ours, theirs = float("inf"), float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        n_ours = session.scalar(count, {"model": model})
        ours = min(ours, time.perf_counter() - started)
        started = time.perf_counter()
        n_theirs = sum(len(encoding.encode_ordinary(document)) for document in documents)
        theirs = min(theirs, time.perf_counter() - started)
        if n_ours != n_theirs:
            raise RuntimeError(f"llm_encode gives {n_ours} tokens, tiktoken {n_theirs}")
    return {
        "tokens": n_ours,
        "llm_encode MB/s": n_bytes / ours / 1e6,
        "tiktoken MB/s": n_bytes / theirs / 1e6,
        "ratio": theirs / ours,
    }
