"""A kernel that is cancelled, or gets no memory: that error, never the numbers that happened to be there."""

from __future__ import annotations

import threading
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..conftest import Connect
from ..support.limits import address_space, limit_address_space, limits
from ..support.small_models import add_rows, make_model
from ..support.tensors import value

Connection = psycopg.Connection[Any]

RANDOM = "pg_llm_normal(ARRAY[{}], 0, 1, {}, 0)"
X, HEAD = RANDOM.format("512, 8", 1), RANDOM.format("20000, 8", 2)
LONG = RANDOM.format("4096, 96", 3)
LEFT, RIGHT = RANDOM.format("300, 4000", 5), RANDOM.format("4000, 300", 6)
TARGETS = "(SELECT array_agg(i) FROM generate_series(1, 512) i)"
STATEMENTS = {
    "loss": f"SELECT pg_llm_lm_head_loss({X}, {HEAD}, {TARGETS})::text",
    "its gradient": f"SELECT pg_llm_lm_head_loss_backward('1', {X}, {HEAD}, {TARGETS})::text",
    "attention": f"SELECT md5(pg_llm_causal_attention({LONG}, 1)::bytea)",
    "product": f"SELECT md5(pg_llm_matmul({LEFT}, {RIGHT})::bytea)",
    "training": "SELECT (SELECT loss FROM llm_train_log WHERE run_id = r)"
    " FROM llm_train('short', 1, batch_size => 4, log_every => 0) r",
}
MEGABYTE = 1 << 20
# Both libraries are there before memory is short.
LOADS = "SELECT llm_require(true, ''), pg_llm_lm_head_loss('[[1]]', '[[1]]', '{0}')::text"


@limits
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_a_kernel_without_memory_is_an_error(connect: Connect, statement: str) -> None:
    conn, owner = connect(autocommit=False), connect()
    make_model(owner, "short", n_head=2, d_model=32, n_positions=256, vocab=3000)
    add_rows(owner, "short", length=256, vocab=3000)
    expected = value(conn, statement)
    conn.rollback()
    refused, done = 0, 0
    for headroom in (0.1, 0.6, 2, 4, 8, 16, 32, 64, 128, 256):
        short = connect(autocommit=False)
        value(short, LOADS)
        limit_address_space(short, address_space(short) + int(headroom * MEGABYTE))
        try:
            assert value(short, statement) == expected
            done += 1
        except errors.OutOfMemory:
            refused += 1
            short.rollback()
            limit_address_space(short, None)
            assert value(short, statement) == expected
        short.close()
    assert refused
    assert done


@limits
def test_what_failed_is_forgotten_with_its_subtransaction(connect: Connect) -> None:
    short = connect()
    value(short, LOADS)
    limit_address_space(short, address_space(short) + MEGABYTE)
    short.execute(
        f"""DO $$ BEGIN
        BEGIN
            PERFORM {STATEMENTS["loss"].removeprefix("SELECT")};
        EXCEPTION WHEN out_of_memory THEN
            ASSERT pg_llm_add('[1]', '[2]')::text = '[3]';
            RETURN;
        END;
        RAISE EXCEPTION 'the limit was not felt';
        END $$"""
    )


def test_a_cancel_is_told_as_one(connect: Connect) -> None:
    """Wherever it lands: in the attention, or as its output is looked through for what is not finite."""
    conn, observer = connect(), connect()
    short_rows = RANDOM.format("16, 1, 300000", 7)
    statement = f"SELECT norm(pg_llm_causal_attention(x, 1)) FROM (SELECT {short_rows} OFFSET 0) t (x),"
    statement += " generate_series(1, 1000)"
    random = Random(5)
    over = threading.Event()

    def cancel() -> None:
        while not over.wait(random.uniform(0.05, 0.15)):
            observer.execute("SELECT pg_cancel_backend(%s)", (conn.info.backend_pid,))

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        for _ in range(20):
            with pytest.raises(errors.QueryCanceled):
                conn.execute(statement)
    finally:
        over.set()
        canceller.join()
