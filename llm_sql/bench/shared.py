"""One copy of the weights for many sessions: their memory, a new one's first token, the time of reading.

Memory is read from the kernel (/proc/self/smaps_rollup) while all of them are in the middle of a text. Pss
divides a page by the number of its users, so that the sum over sessions is what they take together, pages
of the shared buffers included. A session that sets `pg_llm.shared_dir` to nothing has a copy of its own.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine

from llm_sql.bench.generation import GPT2, LOOP, PRECISIONS, SMALL, Generated
from llm_sql.bench.report import Row, interleaved, median
from llm_sql.bench.serving import PROMPT, Connection, backend, create_served_model, memory_of

SESSIONS = 8
ALONE = 2  # sessions with copies of their own, which few machines hold eight of
SHOWN = 8  # tokens of a text that is under way
N_TOKENS = 64
# A version is not shared before it is ten seconds old: a trainer's would be gone before anybody reads it.
AGE_SECONDS = 11.0


def measure_shared(
    engine: Engine,
    threads: int,
    repeats: int,
    *,
    quick: bool,
    model: Generated | None = None,
    age: float = AGE_SECONDS,
) -> Iterator[Row]:
    model = model or (SMALL if quick else GPT2)
    create_served_model(engine, model)
    time.sleep(age)
    for precision in PRECISIONS:
        settings = {"weights": precision, "threads": str(threads)}
        with backend(engine, **settings) as first:
            first.execute("SELECT public.llm_generate(%s, 1, model => %s)", (PROMPT, model.name))
        yield from measure_memory_of_sessions(engine, model, settings, threads)
        yield from measure_first_token(engine, model, settings, threads, repeats)
        yield measure_reading(engine, model, settings, threads, repeats)
    yield from list_copies(engine, model)


# ---- memory ----


def texts_under_way(
    engine: Engine, model: Generated, settings: dict[str, str], sessions: int
) -> list[dict[str, float]] | None:
    """The memory of sessions that all are in the middle of a text; None where it cannot be read."""
    together = threading.Barrier(sessions)

    def work(connection: Connection) -> dict[str, float] | None:
        connection.execute("BEGIN")
        connection.execute(
            "DECLARE tokens NO SCROLL CURSOR FOR"
            " SELECT token FROM public.llm_generate_stream(%s, %s, model => %s)",
            (PROMPT, 2 * SHOWN, model.name),
        )
        together.wait()
        connection.execute(f"FETCH {SHOWN} FROM tokens")
        together.wait()
        found = memory_of(connection)
        together.wait()  # nobody leaves before all have looked
        connection.execute("ROLLBACK")
        return found

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(sessions) as pool:
        connections = [stack.enter_context(backend(engine, **settings)) for _ in range(sessions)]
        found = list(pool.map(work, connections))
    return [memory for memory in found if memory is not None] or None


def measure_memory_of_sessions(
    engine: Engine, model: Generated, settings: dict[str, str], threads: int
) -> Iterator[Row]:
    precision = settings["weights"]
    what = f"{SESSIONS} sessions that generate, {model.name}, {precision}"
    memory = texts_under_way(engine, model, settings, SESSIONS)
    if memory is None:
        yield Row(
            "shared", what, threads, "GB", None, note="needs Linux and a superuser: /proc/self/smaps_rollup"
        )
        return
    private = max(m["Private_Dirty"] for m in memory) / 1e6
    per_token = 8 * model.n_layer * model.d_model / 1e3
    yield Row(
        "shared", f"{what}, together", threads, "GB", sum(m["Pss"] for m in memory) / 1e9,
        note=f"Pss; {private:.0f} MB are one's own, with {per_token:.0f} kB of cache a token",
    )  # fmt: skip
    alone = texts_under_way(engine, model, {**settings, "shared_dir": ""}, ALONE)
    if alone is not None:
        pss = statistics.mean(m["Pss"] for m in alone) / 1e9
        yield Row(
            "shared", f"a session with a copy of its own, {model.name}, {precision}", threads, "GB", pss
        )


def list_copies(engine: Engine, model: Generated) -> Iterator[Row]:
    with backend(engine) as connection:
        rows = connection.execute(
            "SELECT s.precision::text, sum(s.bytes)::float8 FROM public.llm_shared_version s"
            " WHERE s.model = %s GROUP BY 1 ORDER BY 1",
            (model.name,),
        ).fetchall()
    for precision, n_bytes in rows:
        assert isinstance(n_bytes, float)
        yield Row("shared", f"the copy that all share, {model.name}, {precision}", None, "GB", n_bytes / 1e9)


# ---- the first token ----


def first_token_seconds(
    engine: Engine, settings: dict[str, str], statement: str, arguments: tuple[object, ...]
) -> float:
    """From connecting to the answer."""
    started = time.perf_counter()
    with backend(engine, **settings) as connection:
        connection.execute(statement, arguments).fetchone()
        return time.perf_counter() - started


def measure_first_token(
    engine: Engine, model: Generated, settings: dict[str, str], threads: int, repeats: int
) -> Iterator[Row]:
    ways = {
        "llm_logits": ("SELECT public.llm_logits(%s::int[], %s) IS NOT NULL", ([1, 2], model.name)),
        "a text": (
            "SELECT public.llm_generate(%s, 1, temperature => 0, model => %s)", (PROMPT, model.name),
        ),
    }  # fmt: skip
    samples = interleaved(
        {
            way: lambda call=call: first_token_seconds(engine, settings, *call)  # type: ignore[misc]
            for way, call in ways.items()
        },
        repeats,
    )
    for way, taken in samples.items():
        what = f"a new connection's first token from {way}, {model.name}, {settings['weights']}"
        note = f"{min(taken):.3f} to {max(taken):.3f}"
        yield Row("shared", what, threads, "s", median(samples, way), note=note)


# ---- reading ----


def decode_seconds(connection: Connection, model: Generated) -> float:
    row = connection.execute(
        "SELECT decode FROM pg_temp.bench_generate(%s, %s::int[], %s)",
        (model.name, [i % model.vocab for i in range(16)], N_TOKENS),
    ).fetchone()
    assert row is not None
    assert isinstance(row[0], float)
    return row[0]


def measure_reading(
    engine: Engine, model: Generated, settings: dict[str, str], threads: int, repeats: int
) -> Row:
    """Time per token from the copy that all share over that from a copy of one's own: by pairs, in turns."""
    what = f"further tokens, shared over own copy, {model.name}, {settings['weights']}"
    with contextlib.ExitStack() as stack:
        sides = {
            "shared": stack.enter_context(backend(engine, **settings)),
            "own": stack.enter_context(backend(engine, **{**settings, "shared_dir": ""})),
        }
        for connection in sides.values():
            connection.execute(LOOP)
            decode_seconds(connection, model)
        row = sides["own"].execute("SHOW pg_llm.shared_dir").fetchone()
        if row is None or row[0] != "":
            return Row("shared", what, threads, "times", None, note="only a superuser has a copy of its own")
        samples = interleaved(
            {
                name: lambda connection=connection: decode_seconds(connection, model)  # type: ignore[misc]
                for name, connection in sides.items()
            },
            repeats,
        )
    ratios = [shared / own for shared, own in zip(samples["shared"], samples["own"], strict=True)]
    rates = {name: N_TOKENS / statistics.median(taken) for name, taken in samples.items()}
    note = (
        f"{rates['shared']:.4g} and {rates['own']:.4g} tokens/s; pairs {min(ratios):.3f} to {max(ratios):.3f}"
    )
    return Row("shared", what, threads, "times", statistics.median(ratios), note=note)
