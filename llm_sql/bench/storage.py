"""Loading GPT-2 124M from llm_param into a session's memory and writing it back, optimizer state included."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Engine, text

from llm_sql.bench.database import trainer
from llm_sql.bench.report import Row, interleaved, median
from llm_sql.bench.shapes import GPT2_SHORT

BYTES = 3 * 4.0 * GPT2_SHORT.n_parameters  # weights and both moments


def measure_storage(engine: Engine, threads: int, repeats: int) -> Iterator[Row]:
    """Seconds to load and to write back, and the table's size after the write-backs, vacuumed in between."""
    with trainer(engine, GPT2_SHORT, threads) as ours:
        ours.call_seconds(1)  # the moments are there from now on

        def write_back() -> float:
            whole = ours.call_seconds(1)
            return whole - ours.logged_seconds(1)

        samples = interleaved({"write back": write_back}, repeats, between=ours.vacuum)

    def load() -> float:
        with trainer(engine, GPT2_SHORT, threads) as other:
            return other.load_seconds()

    samples |= interleaved({"load": load}, repeats)
    volume = f"{BYTES / 1e9:.3g} GB"
    yield Row("storage", "write back GPT-2 124M", threads, "s", median(samples, "write back"), note=volume)
    yield Row("storage", "load GPT-2 124M", threads, "s", median(samples, "load"), note=volume)
    with engine.connect() as connection:
        size = connection.scalar(text("SELECT pg_total_relation_size('public.llm_param')"))
    note = f"after {repeats + 1} write-backs, {size / BYTES:.2f} times its contents"
    yield Row("storage", "llm_param on disk", None, "GB", size / 1e9, note=note)
