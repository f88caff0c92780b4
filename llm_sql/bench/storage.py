"""Loading a model from llm_param into a session's memory and writing it back, optimizer state included."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine, text

from llm_sql.bench.database import trainer
from llm_sql.bench.report import Row, interleaved, median
from llm_sql.bench.shapes import GPT2_SHORT, Shape

COST = """
SELECT heap_bytes + toast_bytes + index_bytes, wal_bytes_max
FROM public.llm_write_cost(:model, 'training', 2) WHERE part = 'further write-back'
"""
MAPS = 1 << 20  # of free space and of what all see, and pages of indexes that are not yet used again


@dataclass(frozen=True)
class Said:
    """What llm_write_cost says of a write-back, before the first."""

    table: int
    wal: int

    @staticmethod
    def beside(taken: float, bound: int) -> str:
        return f"{'within' if taken <= bound else 'BEYOND'} the {bound / 1e9:.3g} GB of llm_write_cost"


def measure_storage(
    engine: Engine, threads: int, repeats: int, *, shape: Shape = GPT2_SHORT
) -> Iterator[Row]:
    """Seconds to load and to write back, the WAL of it, and the table's size after the write-backs, vacuumed
    in between; beside what llm_write_cost says.
    """
    bytes_, name = 3 * 4.0 * shape.n_parameters, shape.name.split(",")[0]  # weights and both moments
    wal: list[int] = []
    with trainer(engine, shape, threads) as ours:
        with engine.connect() as connection:
            said = Said(*connection.execute(text(COST), {"model": shape.name}).one())
        ours.call_seconds(1)  # the moments are there from now on
        ours.vacuum()

        def write_back() -> float:
            before = ours.wal_position()
            whole = ours.call_seconds(1)
            wal.append(ours.wal_position() - before)
            return whole - ours.logged_seconds(1)

        samples = interleaved({"write back": write_back}, repeats, between=ours.vacuum)

    def load() -> float:
        with trainer(engine, shape, threads) as other:
            return other.load_seconds()

    samples |= interleaved({"load": load}, repeats)
    volume = f"{bytes_ / 1e9:.3g} GB"
    yield Row("storage", f"write back {name}", threads, "s", median(samples, "write back"), note=volume)
    yield Row("storage", f"load {name}", threads, "s", median(samples, "load"), note=volume)
    note = f"after a checkpoint; {said.beside(max(wal), said.wal)}"
    yield Row("storage", "WAL of a write-back", None, "GB", statistics.median(wal) / 1e9, note=note)
    with engine.connect() as connection:
        size = connection.scalar(text("SELECT pg_total_relation_size('public.llm_param')"))
    note = (
        f"after {repeats + 1} write-backs, {size / bytes_:.2f} times its contents;"
        f" {said.beside(size, 2 * said.table + MAPS)} for two versions"
    )
    yield Row("storage", "llm_param on disk", None, "GB", size / 1e9, note=note)
