"""Tokenizer throughput in one run: llm_encode over rows through SQL, beside tiktoken on one thread."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from pydoc_data import topics
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from llm_sql.bench.report import Row
from llm_sql.tokenizer import read_encoding

MODEL, VOCAB = "bench-tokenizer", 4096


def measure_tokenizer(engine: Engine, repeats: int) -> Iterator[Row]:
    """A row for llm_encode of Python's own documentation, with a vocabulary learnt from it here."""
    what = f"llm_encode, vocabulary of {VOCAB}"
    if importlib.util.find_spec("tiktoken") is None:
        yield Row("tokenizer", what, 1, "MB/s", None, note="not measured: tiktoken is not installed")
        return
    documents = list(topics.topics.values())
    with Session(engine.execution_options(isolation_level="READ COMMITTED")) as session:
        session.execute(text("CREATE TEMPORARY TABLE bench_corpus (body text) ON COMMIT DROP"))
        session.execute(
            text("INSERT INTO bench_corpus SELECT unnest(CAST(:documents AS text[]))"),
            {"documents": documents},
        )
        session.execute(
            text("SELECT public.llm_train_bpe(:model, 'SELECT body FROM bench_corpus', :vocab)"),
            {"model": MODEL, "vocab": VOCAB},
        )
        result = bench_tokenizer(session, MODEL, documents * 4, repeats=repeats)
        session.rollback()
    note = f"tiktoken, one thread: {result['tiktoken MB/s']:.4g}, ours {result['ratio']:.2f} times"
    yield Row("tokenizer", what, 1, "MB/s", result["llm_encode MB/s"], note=note)


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
