"""Sentence embeddings: texts per second beside other engines, share of the peak, rows of a table, a first.

`llm_embed` is timed from its statement to its answer, from strings to normalised vectors, as the others are:
the tokenizer takes part in all of them. The others read the same directory of files and run in processes of
their own (embedding_peers.py); all take turns. The products of the pass are measured alone as well, each with
as many rows as the texts have tokens: what they reach of the peak bounds what the whole can.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from llm_sql.bench.database import vacuum
from llm_sql.bench.embedding_peers import MODULES, missing_embedders
from llm_sql.bench.encoder import MINILM, PACKAGE, Encoder, encoder_directory, known_words, text_of
from llm_sql.bench.gemm import EngineProducts
from llm_sql.bench.machine import Machine
from llm_sql.bench.report import RATE, Row, interleaved, median
from llm_sql.bench.serving import Connection, backend
from llm_sql.bench.shared import AGE_SECONDS, first_token_seconds
from llm_sql.bench.worker import Worker
from llm_sql.kernels import Engine as KernelEngine
from llm_sql.model import LanguageModel

MODEL = "bench-encoder"
TEXTS = "texts/s"
N_TEXTS, N_TOKENS = 32, 256
N_TEXTS_OF_A_PASS = 6  # so many of MiniLM's shape has llm_embed in a pass
SHORT_TOKENS = 16
REST_SECONDS = 0.5
COLUMNS = {
    "sentence-transformers": "sentence_transformers",
    "transformers": "transformers",
    "onnxruntime": "onnxruntime",
}


def measure_embedding(
    engine: Engine,
    threads: int,
    repeats: int,
    *,
    quick: bool,
    encoder: Encoder = MINILM,
    rows: int | None = None,
    age: float = AGE_SECONDS,
) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        directory, published = encoder_directory(Path(temporary, "encoder"), encoder)
        bring_in(engine, directory)
        time.sleep(age)  # until sessions share the weights
        known = known_words(directory)
        weights = "MiniLM-L6" if published else "random weights"
        missing = missing_embedders()
        note = f"without {', '.join(missing)}, not installed" if missing else ""
        if not published and encoder == MINILM:
            note = "; ".join(filter(None, [f"MiniLM's shape: {PACKAGE} is not installed", note]))
        texts = [text_of(known, min(N_TOKENS, encoder.max_tokens), i) for i in range(N_TEXTS)]
        machine = Machine()
        yield from measure_texts(engine, machine, encoder, directory, texts, weights, threads, repeats, note)
        tokens = min(N_TOKENS, encoder.max_tokens)
        for n_texts in (N_TEXTS_OF_A_PASS, N_TEXTS):
            yield measure_products(machine, encoder, n_texts * tokens, threads, repeats)
        yield measure_filling(engine, known, rows or (2_000 if quick else 20_000), weights, threads)
        yield measure_first(engine, weights, threads, repeats)


def bring_in(engine: Engine, directory: Path) -> None:
    with Session(engine.execution_options(isolation_level="READ COMMITTED")) as session:
        LanguageModel.import_model(session, MODEL, directory)
        session.commit()
    with engine.connect() as connection:
        vacuum(connection)


# ---- texts ----


def embed_seconds(connection: Connection, texts: list[str]) -> float:
    """Of one call over all texts."""
    started = time.perf_counter()
    connection.execute("SELECT cardinality(public.llm_embed(%s::text[], %s))", (texts, MODEL)).fetchone()
    return time.perf_counter() - started


def measure_texts(
    engine: Engine, machine: Machine, encoder: Encoder, directory: Path, texts: list[str], weights: str,
    threads: int, repeats: int, note: str,
) -> Iterator[Row]:  # fmt: skip
    tokens = len(texts[0].split()) + 2
    missing = missing_embedders()
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(backend(engine, threads=str(threads)))
        samplers: dict[str, Callable[[], float]] = {
            "peak": lambda: machine.peak_flops(threads),
            "ours": lambda: embed_seconds(connection, texts),
        }
        for library in MODULES:
            if library not in missing:
                worker = stack.enter_context(Worker("embedding", threads))
                worker.make_embedder(library, str(directory), encoder.max_tokens)
                samplers[library] = lambda worker=worker: worker.embed_seconds(texts)  # type: ignore[misc]
        for sampler in samplers.values():
            sampler()  # loads weights, starts threads
        samples = interleaved({name: rested(sampler) for name, sampler in samplers.items()}, repeats)
    rates = {name: len(texts) / seconds for name in samples if (seconds := median(samples, name))}
    flops = encoder.flops(len(texts), tokens)
    yield Row(
        "embed", f"{len(texts)} texts of {tokens} tokens, {weights}", threads, TEXTS, rates["ours"],
        **{column: rates.get(library) for library, column in COLUMNS.items()},
        of_peak=flops * rates["ours"] / len(texts) / max(samples["peak"]), note=note,
    )  # fmt: skip
    ratios = {
        library: [theirs / ours for theirs, ours in zip(samples[library], samples["ours"], strict=True)]
        for library in MODULES
        if library in samples
    }
    for library, pairs in ratios.items():
        middle = sorted(pairs)[len(pairs) // 2]
        yield Row(
            "embed", f"{library}'s time over ours", threads, "times", middle,
            note=f"pairs {min(pairs):.2f} to {max(pairs):.2f}",
        )  # fmt: skip


def rested(sampler: Callable[[], float]) -> Callable[[], float]:
    """Some engines' threads spin for a while after their work, and would take the next one's time."""

    def sample() -> float:
        time.sleep(REST_SECONDS)
        return sampler()

    return sample


def measure_products(machine: Machine, encoder: Encoder, rows: int, threads: int, repeats: int) -> Row:
    """All products of the pass, one after the other, without anything between them."""
    products = encoder.products(rows)
    engines = [EngineProducts(KernelEngine(threads=threads)) for _ in products]

    def seconds() -> float:
        return sum(
            times * side.seconds(product) for side, (times, product) in zip(engines, products, strict=True)
        )

    samples = interleaved({"peak": lambda: machine.peak_flops(threads), "ours": seconds}, repeats)
    flops = sum(times * product.flops for times, product in products)
    middle = median(samples, "ours")
    assert middle is not None
    return Row(
        "embed", f"products of the pass alone, {rows} rows", threads, RATE, flops / middle * 1e-9,
        of_peak=flops / middle / max(samples["peak"]),
    )  # fmt: skip


# ---- a table, a connection ----


def measure_filling(engine: Engine, known: list[str], rows: int, weights: str, threads: int) -> Row:
    """Rows of a table that get their vectors."""
    texts = [text_of(known, SHORT_TOKENS, i) for i in range(rows)]
    with backend(engine, threads=str(threads)) as connection:
        connection.execute(
            "CREATE TABLE public.bench_text (id bigint PRIMARY KEY, body text, e public.tensor)"
        )
        connection.execute(
            "INSERT INTO public.bench_text (id, body)"
            " SELECT i, t FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, i)",
            (texts,),
        )
        started = time.perf_counter()
        connection.execute("CALL public.llm_embed_missing('public.bench_text', 'body', 'e', %s)", (MODEL,))
        seconds = time.perf_counter() - started
        filled = connection.execute("SELECT count(*) FROM public.bench_text WHERE e IS NOT NULL").fetchone()
        connection.execute("DROP TABLE public.bench_text")
    assert filled == (rows,)
    return Row(
        "embed", f"rows filled, {SHORT_TOKENS} tokens each, {weights}", threads, "rows/s", rows / seconds,
        note=f"{rows:,} rows in {seconds:.3g} s",
    )  # fmt: skip


def measure_first(engine: Engine, weights: str, threads: int, repeats: int) -> Row:
    """From connecting to the vector of a short text."""
    statement, arguments = "SELECT public.llm_embed(%s::text, %s) IS NOT NULL", ("which rows?", MODEL)
    settings = {"threads": str(threads)}
    taken = [first_token_seconds(engine, settings, statement, arguments) for _ in range(repeats + 1)][1:]
    return Row(
        "embed", f"a new connection's first embedding, {weights}", threads, "s", median({"": taken}, ""),
        note=f"{min(taken):.3f} to {max(taken):.3f}",
    )  # fmt: skip
