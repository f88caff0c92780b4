"""The same bits whatever the instruction set, the threads, the tile of attention, the batch or the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from ..support.small_models import Connection, make_model, make_names, train
from ..support.tensors import value

Array = NDArray[np.float32]

ISAS = ("scalar", "avx2", "avx512", "neon")
THREADS = (1, 2, 3, 4)
CHUNKS = (1, 7, 64, 1000)


def available_isas(conn: Connection) -> list[str]:
    found = []
    for isa in ISAS:
        try:
            configure(conn, isa=isa)
            found.append(isa)
        except psycopg.errors.InvalidParameterValue:
            continue
    configure(conn, isa="auto")
    return found


def configure(conn: Connection, **settings: object) -> None:
    # Until the library is loaded any value is taken.
    conn.execute("LOAD 'pg_llm'")
    if "threads" in settings:  # more than this machine has cores, too
        conn.execute("SET pg_llm.max_threads = 64")
    for name, setting in settings.items():
        conn.execute("SELECT set_config(%s, %s, false)", (f"pg_llm.{name}", str(setting)))


def fill(conn: Connection, model: str, vocab: int, lengths: list[int]) -> None:
    """Rows of pseudo-random tokens of the given lengths; a few targets do not count."""
    rng = np.random.default_rng(7)
    for length in lengths:
        tokens = rng.integers(0, vocab, length + 1)
        targets = np.where(rng.random(length) < 0.1, -1, tokens[1:])
        conn.execute(
            "INSERT INTO llm_dataset (model, tokens, target) VALUES (%s, %s, %s)",
            (model, tokens[:-1].tolist(), targets.tolist()),
        )


def outcome(conn: Connection, model: str, n_steps: int, **arguments: Any) -> dict[str, list[Any]]:
    """Everything that training leaves, to the bit; the database is left as it was."""
    with conn.transaction(force_rollback=True):
        run = train(conn, model, n_steps, **arguments)
        parameters = conn.execute(
            "SELECT name, token_id, data::bytea, m::bytea, v::bytea, grad::bytea, step FROM llm_param"
            " WHERE model = %s ORDER BY 1, 2",
            (model,),
        ).fetchall()
        log = conn.execute(
            "SELECT step, lr, loss, grad_norm, tokens FROM llm_train_log WHERE run_id = %s ORDER BY step",
            (run,),
        ).fetchall()
        norms = conn.execute("SELECT norm, grad_norm FROM llm_tensor_rt ORDER BY id").fetchall()
        clipped = conn.execute("SELECT gradient_slice::text FROM llm_clip ORDER BY clip_id").fetchall()
    assert len(log) == n_steps
    return {"parameters": parameters, "log": log, "norms": norms, "clipped": clipped}


SMALL = {
    "dropout_p": 0.15,
    "batch_size": 3,
    "grad_clip": 0.5,
    "warmup": 1,
    "lr_max": 0.01,
    "keep_grad": True,
}


@pytest.fixture
def small(conn: Connection) -> Connection:
    """Two layers of sizes that no vector or tile divides."""
    make_model(conn, "small", n_head=3, d_model=39, n_positions=21, vocab=101)
    fill(conn, "small", 101, [21, 3, 17, 1, 20, 21, 9, 13])
    return conn


def test_training_on_every_instruction_set_and_thread_count(small: Connection) -> None:
    conn = small
    isas = available_isas(conn)
    configure(conn, isa=isas[0], threads=1, attention_chunk=64)
    expected = outcome(conn, "small", 20, **SMALL)
    assert len({loss for _, _, loss, _, _ in expected["log"]}) == 20
    assert expected["clipped"], "the threshold was to act"
    assert all(row[2:6] != (None,) * 4 for row in expected["parameters"])
    for isa in isas:
        for threads in THREADS:
            for chunk in CHUNKS if (isa, threads) == (isas[-1], 2) else (64,):
                configure(conn, isa=isa, threads=threads, attention_chunk=chunk)
                result = outcome(conn, "small", 20, **SMALL)
                for kind, rows in expected.items():
                    assert result[kind] == rows, (kind, isa, threads, chunk)


def test_training_across_the_numeric_blocks(conn: Connection) -> None:
    """Sums longer than one block of 128 and more queries than one tile."""
    make_model(conn, "wide", n_head=5, d_model=135, n_positions=70, vocab=131)
    fill(conn, "wide", 131, [70, 66, 70, 5])
    isas = available_isas(conn)
    configure(conn, isa=isas[-1], threads=1, attention_chunk=64)
    arguments = SMALL | {"grad_accum": 2, "batch_size": 1}
    expected = outcome(conn, "wide", 2, **arguments)
    for isa, threads, chunk in [
        (isa, 1 + i % 3, (64, 33, 1)[i % 3]) for i, isa in enumerate([*isas, isas[-1]], 1)
    ]:
        configure(conn, isa=isa, threads=threads, attention_chunk=chunk)
        result = outcome(conn, "wide", 2, **arguments)
        for kind, rows in expected.items():
            assert result[kind] == rows, (kind, isa, threads, chunk)


def test_threads_of_write_back_and_clearing(small: Connection) -> None:
    expected = outcome(small, "small", 2, **SMALL)
    for workers in (0, 3):
        assert outcome(small, "small", 2, **SMALL, grad_workers=workers, prune_workers=workers) == expected
    assert value(small, "SELECT current_setting('pg_llm.threads')") == "0"


# -- inference


@pytest.fixture(params=["gpt2", "gpt3", "gpt3 banded", "microgpt"])
def model(conn: Connection, request: pytest.FixtureRequest) -> str:
    arch, *banded = request.param.split()
    name = make_model(conn, "m", arch=arch, n_head=3, d_model=39, n_positions=23, vocab=57)
    if banded:
        conn.execute("UPDATE llm_model_config SET settings = %s WHERE model = 'm'", ('{"band": 7}',))
    return name


def logits(conn: Connection, tokens: list[Any]) -> Array:
    result = value(conn, "SELECT llm_logits(%s::int[], 'm')", (tokens,))
    assert isinstance(result, np.ndarray)
    return result


def same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def test_a_row_alone_and_in_a_batch(conn: Connection, model: str) -> None:
    rows = np.random.default_rng(3).integers(0, 57, (5, 23)).tolist()
    for isa in available_isas(conn):
        configure(conn, isa=isa)
        together = logits(conn, rows)
        for row, expected in zip(rows, together, strict=True):
            assert same(logits(conn, row), expected)
    assert same(logits(conn, rows[1:3]), together[1:3])


def test_what_follows_changes_nothing(conn: Connection, model: str) -> None:
    row = np.random.default_rng(4).integers(0, 57, 23).tolist()
    whole = logits(conn, row)
    for n in (1, 2, 8, 16, 17, 22):
        assert same(logits(conn, row[:n]), whole[:n])
        assert same(logits(conn, row[:n] + [0] * (23 - n))[:n], whole[:n])


def cached(conn: Connection, tokens: list[int], split: list[int], isas: Iterator[str]) -> Array:
    """Logits of all tokens, computed in pieces with a key/value cache as llm_generation_logits does."""
    pieces = []
    with conn.transaction():
        conn.execute("SELECT llm_pin('m')")
        handle = value(conn, "SELECT pg_llm_gen_open('m', %s::int[], 23)", (tokens,))
        conn.execute("SELECT pg_llm_arena_close('m')")
        first = 0
        for n in split:
            assert value(conn, "SELECT pg_llm_gen_length(%s)", (handle,)) == first
            configure(conn, isa=next(isas))
            conn.execute("SELECT pg_llm_gen_use(ARRAY[%s]::int[])", (handle,))
            piece = tokens[first : first + n]
            pieces.append(
                value(conn, "SELECT llm_forward('m', %s::int[], false, NULL, 0.0, false)", (piece,))
            )
            conn.execute("SELECT pg_llm_gen_done()")
            first += n
    assert first == len(tokens)
    return np.concatenate(pieces)


@pytest.mark.parametrize(
    "split", [[23], [1] * 23, [22, 1], [1, 22], [16, 7], [17] + [1] * 6, [5, 11, 1, 1, 5], [3] * 7 + [2]]
)
def test_a_cache_gives_the_bits_of_the_whole_pass(conn: Connection, model: str, split: list[int]) -> None:
    tokens = np.random.default_rng(5).integers(0, 57, 23).tolist()
    isas = available_isas(conn)

    def turns() -> Iterator[str]:
        while True:
            yield from isas

    expected = logits(conn, tokens)
    assert same(cached(conn, tokens, split, turns()), expected)


@pytest.mark.parametrize("arch", ["gpt2", "microgpt"])
def test_generation_is_sampling_from_whole_passes(conn: Connection, arch: str) -> None:
    """Beyond the context, too: its second half then begins anew at position 0."""
    make_names(conn, arch=arch, n_positions=10, n_head=3, d_model=39)
    prompt, n = "emmaluna", 35
    for seed in range(100):
        rows = conn.execute(
            "SELECT token_id FROM llm_generate_stream(%s, %s, 1.5, 0, 1, 'names', %s)", (prompt, n, seed)
        )
        got = [row[0] for row in rows]
        if len(got) > 20:
            break
    tokens = value(conn, "SELECT llm_encode(%s, 'names')", (prompt,))
    end = value(conn, "SELECT llm_end_token('names')")
    start, expected = 0, []
    while len(expected) < len(got):
        if len(tokens) - start > 10:
            start = len(tokens) - 5
        expected.append(
            value(
                conn,
                "SELECT pg_llm_sample(pg_llm_last(llm_logits(%s::int[], 'names')), 1.5, 0, 1, %s, %s)",
                (tokens[start:], seed, len(expected) + 1),
            )
        )
        tokens = [*tokens, expected[-1]]
    assert got == expected
    assert len(got) == n or got[-1] == end
    assert len(got) > 20, "no seed led beyond the context"


def test_many_prompts_are_as_many_calls(conn: Connection) -> None:
    make_names(conn)
    prompts = ["", "a", "emma", "emmaolivia", "lu"]
    call = "SELECT llm_generate(%s, 12, 1, 0, 1, 'names', 5)"
    together = value(conn, call.replace("%s", "%s::text[]", 1), (prompts,))
    assert together == [value(conn, call.replace("%s", "%s::text", 1), (prompt,)) for prompt in prompts]


def test_parameters_drawn_from_a_seed(conn: Connection) -> None:
    drawn = set()
    for isa in available_isas(conn):
        for threads in THREADS:
            configure(conn, isa=isa, threads=threads)
            drawn.add(value(conn, "SELECT pg_llm_normal(ARRAY[7, 1001], 0, 0.02, 42, 3)::bytea"))
    assert len(drawn) == 1


def test_an_unknown_instruction_set_is_refused(conn: Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="sse9"):
        configure(conn, isa="sse9")
