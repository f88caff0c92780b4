"""Tokens per second of generation with float32, bf16 and int8 weights, beside the engines that are installed.

Greedy, one sequence: the prompt's pass up to the first token, and tokens after it, each with its forward pass
in SQL, its sampling and its place in the key/value cache. Every precision has a connection of its own, every
other engine a process of its own with the same weights and as many threads (generation_peers.py); all take
turns, with the same loop written in C over the same kernels (kernels/core/measure/measure_decode.c). The
roofline is reading all matrices once per token at the measured bandwidth.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from llm_sql.bench.database import vacuum
from llm_sql.bench.generation_peers import PEERS, missing_peers
from llm_sql.bench.machine import Machine
from llm_sql.bench.report import Row
from llm_sql.bench.worker import Worker
from llm_sql.errors import LLMSQLError
from llm_sql.kernels import DecodeLoop
from llm_sql.kernels import Engine as KernelEngine
from llm_sql.model import LanguageModel

TOKENS = "tokens/s"
N_PROMPT, N_TOKENS = 512, 64
N_TOGETHER, N_SHORT = 8, 32
# Bytes per weight; int8 has a float32 scale for 128 of them.
PRECISIONS = {"float32": 4.0, "bf16": 2.0, "int8": 1.0 + 4 / 128}
# Libraries' columns in a row.
COLUMNS = {"transformers": "transformers", "llama.cpp": "llama_cpp", "ctranslate2": "ctranslate2"}

LOOP = """
CREATE FUNCTION pg_temp.bench_generate(
    model text, prompt int[], n_tokens int, OUT prefill double precision, OUT decode double precision
)
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
    context CONSTANT int := (public.llm_config(model)).n_positions;
    handle int;
    token int;
    started timestamptz;
    prefilled timestamptz;
BEGIN
    PERFORM public.llm_pin(model);
    handle := public.pg_llm_gen_open(model, prompt, context);
    PERFORM public.pg_llm_arena_close(model);
    started := clock_timestamp();
    FOR i IN 0 .. n_tokens LOOP
        token := public.pg_llm_sample(
            public.llm_generation_logits(handle, model, context), 0.0
        );
        PERFORM public.pg_llm_gen_push(handle, token);
        IF i = 0 THEN
            prefilled := clock_timestamp();
        END IF;
    END LOOP;
    prefill := extract(epoch FROM prefilled - started);
    decode := extract(epoch FROM clock_timestamp() - prefilled);
    PERFORM public.pg_llm_gen_close(handle);
END;
$function$
"""

TOGETHER = """
CREATE FUNCTION pg_temp.bench_together(model text, prompt int[], n_sequences int, n_tokens int)
RETURNS double precision
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
    context CONSTANT int := (public.llm_config(model)).n_positions;
    handles int[];
    started timestamptz;
BEGIN
    PERFORM public.llm_pin(model);
    handles := ARRAY(
        SELECT public.pg_llm_gen_open(model, prompt || g, context) FROM generate_series(1, n_sequences) g
    );
    PERFORM public.pg_llm_arena_close(model);
    FOR i IN 0 .. n_tokens LOOP
        PERFORM public.pg_llm_gen_push(l.handle, public.pg_llm_sample(l.logits, 0.0))
        FROM public.llm_generations_logits(handles, model, context) l;
        IF i = 0 THEN
            started := clock_timestamp();
        END IF;
    END LOOP;
    PERFORM public.pg_llm_gen_close(h) FROM unnest(handles) h;
    RETURN extract(epoch FROM clock_timestamp() - started);
END;
$function$
"""


@dataclass(frozen=True)
class Generated:
    """A model to generate with, by its sizes."""

    name: str
    n_layer: int
    n_head: int
    d_model: int
    n_positions: int
    vocab: int

    @property
    def matrix_elements(self) -> int:
        """Weights that a token reads: 12 d^2 per layer, and the head."""
        return self.n_layer * 12 * self.d_model**2 + self.vocab * self.d_model


GPT2 = Generated("GPT-2 124M", 12, 12, 768, 1024, 50257)
SMALL = Generated("GPT-2, 4 layers, width 256", 4, 4, 256, 1024, 8192)


class Sized(Protocol):
    """What a generation needs to know of its model."""

    @property
    def name(self) -> str: ...
    @property
    def vocab(self) -> int: ...


class Generator:
    """Generations on one connection, which holds its weights in one precision."""

    def __init__(self, connection: Connection, model: Sized, precision: str, threads: int) -> None:
        self._connection = connection
        self._model = model
        for name, value in (("weights", precision), ("threads", str(threads))):
            connection.execute(
                text("SELECT set_config(:name, :value, false)"), {"name": f"pg_llm.{name}", "value": value}
            )
        connection.execute(text(LOOP))
        connection.execute(text(TOGETHER))

    def seconds(self, n_prompt: int, n_tokens: int) -> tuple[float, float]:
        """Seconds of the prompt's pass up to the first token, and of n_tokens further tokens."""
        row = self._connection.execute(
            text("SELECT prefill, decode FROM pg_temp.bench_generate(:model, CAST(:prompt AS int[]), :n)"),
            {
                "model": self._model.name,
                "prompt": [i % self._model.vocab for i in range(n_prompt)],
                "n": n_tokens,
            },
        ).one()
        return float(row[0]), float(row[1])

    def seconds_together(self, n_sequences: int, n_prompt: int, n_tokens: int) -> float:
        """Seconds of n_tokens further tokens of each of several sequences, which share passes."""
        return float(
            self._connection.scalar(
                text("SELECT pg_temp.bench_together(:model, CAST(:prompt AS int[]), :sequences, :tokens)"),
                {
                    "model": self._model.name,
                    "prompt": [i % self._model.vocab for i in range(n_prompt - 1)],
                    "sequences": n_sequences,
                    "tokens": n_tokens,
                },
            )
        )

    def memory(self) -> float | None:
        """Bytes of the backend's own pages; None where the server is not Linux or hides them."""
        with contextlib.suppress(Exception):
            status = str(self._connection.scalar(text("SELECT pg_read_file('/proc/self/status')")))
            line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            return float(line.split()[1]) * 1024
        return None


Samples = dict[str, list[tuple[float, float]]]


def peer_name(library: str, precision: str) -> str:
    return f"{library} {precision}"


def together_name(precision: str) -> str:
    return f"together {precision}"


def loop_name(precision: str) -> str:
    return f"loop in C {precision}"


def open_peers(
    stack: contextlib.ExitStack, model: Generated, weights: Path, threads: int
) -> dict[str, Worker]:
    """A worker for each engine and precision that can be had, with the weights of the file."""
    missing = missing_peers()
    workers = {}
    for library, precision in dict.fromkeys(peer for peers in PEERS.values() for peer in peers):
        if library not in missing:
            worker = stack.enter_context(Worker("generation", threads))
            worker.make_generator(library, precision, str(weights), model.n_head)
            workers[peer_name(library, precision)] = worker
    return workers


def open_loop(model: Generated, precision: str, threads: int) -> DecodeLoop:
    """The same loop in C, after the same prompt."""
    loop = DecodeLoop(
        KernelEngine(threads=threads), n_layer=model.n_layer, n_head=model.n_head, d_model=model.d_model,
        n_positions=model.n_positions, vocab=model.vocab, precision=precision,
    )  # fmt: skip
    loop.prompt(N_PROMPT)
    loop.tokens(N_PROMPT, 2)
    return loop


def loop_seconds(loop: DecodeLoop, n_tokens: int) -> float:
    started = time.perf_counter()
    loop.tokens(N_PROMPT, n_tokens)
    return time.perf_counter() - started


def take_turns(
    engine: Engine, model: Generated, weights: Path, threads: int, repeats: int
) -> tuple[Samples, dict[str, float | None]]:
    """Seconds of every engine's prompts and further tokens, and the memory of our connections."""
    with contextlib.ExitStack() as stack:
        ours = {
            precision: Generator(stack.enter_context(engine.connect()), model, precision, threads)
            for precision in PRECISIONS
        }
        loops = {precision: open_loop(model, precision, threads) for precision in PRECISIONS}
        peers = open_peers(stack, model, weights, threads)
        samples: Samples = {
            name: [] for name in (*ours, *peers, *map(loop_name, loops), *map(together_name, ours))
        }
        memory = {}
        for name, generator in ours.items():
            generator.seconds(N_PROMPT, 2)
            memory[name] = generator.memory()
        ask_peers(peers, {}, N_PROMPT, 2)
        for _ in range(repeats):
            for name, generator in ours.items():
                samples[name].append(generator.seconds(N_PROMPT, N_TOKENS))
                samples[together_name(name)].append(
                    (0.0, generator.seconds_together(N_TOGETHER, N_SHORT, N_SHORT))
                )
                samples[loop_name(name)].append((0.0, loop_seconds(loops[name], N_TOKENS)))
            ask_peers(peers, samples, N_PROMPT, N_TOKENS)
    return samples, memory


def ask_peers(peers: dict[str, Worker], samples: Samples, n_prompt: int, n_tokens: int) -> None:
    """A turn of every other engine. One that crashes is left out from then on."""
    for name, worker in list(peers.items()):
        try:
            samples.setdefault(name, []).append(worker.generation_seconds(n_prompt, n_tokens))
        except LLMSQLError as error:
            warnings.warn(f"{name}: {error.message}", stacklevel=2)
            del peers[name]


def beside(samples: Samples, what: str, precision: str, part: int, n_tokens: int, threads: int) -> Row:
    """Our tokens per second beside every other engine's in its form of that precision."""

    def rate(name: str) -> float | None:
        taken = [sample[part] for sample in samples.get(name, []) if sample[part] > 0]
        return n_tokens / statistics.median(taken) if taken else None

    others = {COLUMNS[library]: rate(peer_name(library, form)) for library, form in PEERS[precision]}
    forms = ", ".join(
        f"{library} {form}"
        for library, form in PEERS[precision]
        if form != precision and others[COLUMNS[library]] is not None
    )
    return Row(
        "generate",
        what,
        threads,
        TOKENS,
        rate(precision),
        **others,
        c_loop=rate(loop_name(precision)),
        note=forms,
    )


def measure_generation(
    engine: Engine, machine: Machine, threads: int, repeats: int, *, quick: bool
) -> Iterator[Row]:
    """Rows for the prompt's pass, further tokens, and the memory a connection takes."""
    model = SMALL if quick else GPT2
    with tempfile.TemporaryDirectory() as directory:
        weights = Path(directory, "weights.npz")
        with Session(engine) as session:
            LanguageModel.create(
                session, model.name, n_layer=model.n_layer, n_head=model.n_head, d_model=model.d_model,
                n_positions=model.n_positions, vocab=model.vocab,
            ).export_weights(weights)  # fmt: skip
            session.commit()
        with engine.connect() as connection:
            vacuum(connection)
        samples, memory = take_turns(engine, model, weights, threads, repeats)

    for name in PRECISIONS:
        what = f"prompt of {N_PROMPT}, {model.name}, {name}"
        yield beside(samples, what, name, 0, N_PROMPT, threads)
    for name, size in PRECISIONS.items():
        what = f"further tokens, {model.name}, {name}"
        least = size * model.matrix_elements / machine.bandwidth(threads)
        took = statistics.median(sample[1] for sample in samples[name]) / N_TOKENS
        yield replace(beside(samples, what, name, 1, N_TOKENS, threads), of_roofline=took / least)
    for name in PRECISIONS:
        what = f"further tokens of {N_TOGETHER} sequences, {model.name}, {name}"
        took = statistics.median(sample[1] for sample in samples[together_name(name)])
        yield Row("generate", what, threads, TOKENS, N_TOGETHER * N_SHORT / took)
    for name in PRECISIONS:
        what = f"a token through SQL beyond the loop in C, {model.name}, {name}"
        in_sql, in_c = (
            statistics.median(sample[1] for sample in samples[of]) for of in (name, loop_name(name))
        )
        yield Row("generate", what, threads, "%", 100 * (in_sql / in_c - 1))
    missing = missing_peers()
    for i, name in enumerate(PRECISIONS):
        in_memory = memory[name]
        if in_memory is not None:
            what = f"memory of a connection, {model.name}, {name}"
            note = "RssAnon, weights and cache"
            if i == 0 and missing:
                note += f"; not installed: {', '.join(missing)}"
            yield Row("generate", what, threads, "GB", in_memory / 1e9, note=note)
