"""llm-sql bench: how fast the engine is here, beside PyTorch, NumPy's BLAS and the machine's limits.

One module per section: gemm (kernels), steps (train), sessions, storage, memory, recompute, generation
(generate), tokenizer, layers, log, shared, pooler, embedding (embed). What a figure means and how it is
measured stands in the section's module and in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, get_args

from sqlalchemy import Engine

from llm_sql.bench.embedding import measure_embedding
from llm_sql.bench.gemm import measure_gemm
from llm_sql.bench.generation import measure_generation
from llm_sql.bench.generation_llama import measure_llama
from llm_sql.bench.layers import measure_layers
from llm_sql.bench.log import measure_log
from llm_sql.bench.machine import Machine
from llm_sql.bench.memory import measure_memory
from llm_sql.bench.pooler import measure_pooler
from llm_sql.bench.recompute import measure_recompute
from llm_sql.bench.report import RATE, Row
from llm_sql.bench.scratch import scratch_database
from llm_sql.bench.sessions import measure_sessions
from llm_sql.bench.shared import measure_shared
from llm_sql.bench.steps import measure_steps
from llm_sql.bench.storage import measure_storage
from llm_sql.bench.tokenizer import measure_tokenizer
from llm_sql.errors import UsageError

Section = Literal[
    "machine",
    "kernels",
    "train",
    "sessions",
    "storage",
    "memory",
    "recompute",
    "generate",
    "tokenizer",
    "layers",
    "log",
    "shared",
    "pooler",
    "embed",
]
SECTIONS: tuple[Section, ...] = get_args(Section)
QUICK: tuple[Section, ...] = ("machine", "kernels", "train")
IN_DATABASE = {"train", "sessions", "storage", "memory", "recompute", "generate", "tokenizer"}
# Those whose models, rows and settings of the database are nobody else's.
OWN_DATABASE: dict[Section, Callable[..., Iterator[Row]]] = {
    "log": measure_log,
    "shared": measure_shared,
    "pooler": measure_pooler,
    "embed": measure_embedding,
}


def run_bench(
    open_engine: Callable[[], Engine],
    sections: Iterable[Section] = QUICK,
    *,
    threads: int,
    repeats: int,
    quick: bool = True,
) -> Iterator[Row]:
    """Rows as they are measured. Sections that train do so in a database of their own, dropped at the end;
    the others need no server. quick: the shapes that take seconds rather than minutes.
    """
    wanted = set(sections)
    machine = Machine()
    several = tuple(sorted({1, threads}))
    if "machine" in wanted:
        for n in several:
            yield Row("machine", "FMA peak", n, RATE, machine.peak_flops(n) * 1e-9)
            yield Row("machine", "memory reads", n, "GB/s", machine.bandwidth(n) * 1e-9)
    if "kernels" in wanted:
        yield from measure_gemm(machine, several, repeats, quick=quick)
    if "layers" in wanted:
        yield from measure_layers(machine, threads, repeats, quick=quick)
    if wanted & IN_DATABASE:
        with scratch_database(open_engine()) as engine:
            if "train" in wanted:
                yield from measure_steps(engine, machine, threads, repeats, quick=quick)
            if "sessions" in wanted:
                yield from measure_sessions(engine, threads, repeats)
            if "storage" in wanted:
                yield from measure_storage(engine, threads, repeats)
            if "memory" in wanted:
                yield from measure_memory(engine, threads, quick=quick)
            if "recompute" in wanted:
                yield from measure_recompute(engine, threads, repeats, quick=quick)
            if "generate" in wanted:
                yield from measure_generation(engine, machine, threads, repeats, quick=quick)
                yield from measure_llama(engine, threads, repeats, quick=quick)
            if "tokenizer" in wanted:
                yield from measure_tokenizer(engine, repeats)
    for section, measure in OWN_DATABASE.items():
        if section in wanted:
            with scratch_database(open_engine()) as engine:
                yield from measure(engine, threads, repeats, quick=quick)


def parse_sections(names: Iterable[str]) -> tuple[Section, ...]:
    """Sections by name, in the order they run; "all" for all of them, nothing for the quick ones."""
    given = set(names)
    unknown = given - {*SECTIONS, "all"}
    if unknown:
        raise UsageError(
            f"unknown section {', '.join(sorted(unknown))}", hint=f"known: {', '.join(SECTIONS)}, all"
        )
    if not given:
        return QUICK
    return SECTIONS if "all" in given else tuple(section for section in SECTIONS if section in given)
