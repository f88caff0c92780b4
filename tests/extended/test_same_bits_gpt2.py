"""GPT-2 124M: two training steps with dropout, every instruction set, one to four threads: the same bits."""

from __future__ import annotations

from typing import Any

import psycopg

from ..extension.test_same_bits import available_isas, configure
from ..support.small_models import train

Connection = psycopg.Connection[Any]


def fingerprint(conn: Connection) -> dict[str, Any]:
    """Losses, gradient norms, and a hash of each parameter with its gradient and moments; then all undone."""
    with conn.transaction(force_rollback=True):
        run = train(
            conn, "gpt2", 2, block_size=64, batch_size=1, dropout_p=0.1, grad_clip=1.0, warmup=1, lr_max=1e-3,
            keep_grad=True,
        )  # fmt: skip
        hashes = conn.execute(
            "SELECT name, token_id, sha256(data::bytea), sha256(m::bytea), sha256(v::bytea),"
            " sha256(grad::bytea) FROM llm_param WHERE model = 'gpt2' ORDER BY 1, 2"
        ).fetchall()
        log = conn.execute(
            "SELECT step, loss, grad_norm FROM llm_train_log WHERE run_id = %s ORDER BY step", (run,)
        ).fetchall()
    conn.execute("VACUUM llm_param")
    assert len(log) == 2
    assert all(None not in row for row in hashes)
    return {"log": log, "parameters": hashes}


def test_two_steps(gpt2: Connection) -> None:
    isas = available_isas(gpt2)
    best = isas[-1]
    # The scalar path, some hundred times slower, once; every thread count on the fastest.
    settings = [(best, 1, 64), (best, 2, 7), (best, 3, 64), (best, 4, 1000)]
    settings += [(isa, 2, 64) for isa in isas[:-1]]
    configure(gpt2, isa=best, threads=1, attention_chunk=64)
    expected = fingerprint(gpt2)
    assert 10 < expected["log"][0][1] < 12  # ln 50257 is 10.8
    for isa, threads, chunk in settings[1:]:
        configure(gpt2, isa=isa, threads=threads, attention_chunk=chunk)
        assert fingerprint(gpt2) == expected, (isa, threads, chunk)
