"""Random calls, sensible and absurd, of what trains and measures encoders, with an encoder for a model."""

from __future__ import annotations

import os
import secrets
from random import Random

import psycopg
import pytest

from ..support.encoder_pairs import make_bert
from ..support.hostile import Function, functions
from ..support.hostile_values import MODEL
from ..support.small_models import Connection, train

SEED = os.environ.get("LLM_SQL_HOSTILE_SEED") or secrets.token_hex(4)
CALLS = 40
NAMES = {
    *("pg_llm_pairs", "pg_llm_pair_problem", "pg_llm_ranks", "llm_max_tokens", "llm_require_encoder"),
    *("llm_contrastive_loss", "llm_check_contrast", "llm_recall_rows", "llm_recall", "llm_first_places"),
    *("llm_query_pairs", "llm_encode_pair", "llm_fill_pairs", "llm_embed_sequences", "llm_forward_bert"),
    *("llm_embed_bert", "llm_loss", "llm_forward", "llm_check_row", "llm_check_dataset", "llm_train_batch"),
    *("llm_train_step", "llm_dataset_problems", "llm_hidden", "llm_logits", "llm_evaluate", "llm_generate"),
}
# Half of whose calls are such that they work.
SURE = {
    *("pg_llm_pairs", "pg_llm_ranks", "llm_contrastive_loss", "llm_query_pairs", "llm_fill_pairs"),
    *("llm_embed_sequences", "llm_embed_bert", "llm_loss", "llm_train_step"),
}
# What must not be: an error of ours that nobody thought of, or of names.
BAD = (None, "XX000", "42883", "42P01", "42703")


def sensible_rows(rng: Random) -> str:
    """Tokens and targets of a batch that can be one."""
    rows = [[rng.randint(1, 4) for _ in range(rng.randint(2, 4))] for _ in range(rng.randint(2, 4))]
    width = max(map(sum, rows))
    tokens = [[rng.randrange(20) for _ in range(width)] for _ in rows]
    numbers = [[n for n, length in enumerate(row) for _ in range(length)] for row in rows]
    targets = [row + [-1] * (width - len(row)) for row in numbers]
    return f"ARRAY{tokens}, ARRAY{targets}"


def statement_of(function: Function, rng: Random) -> str:
    if rng.random() < 0.5:
        if function.name == "llm_contrastive_loss":
            return f"SELECT llm_contrastive_loss('{MODEL}', {sensible_rows(rng)}, true, 0.1)"
        if function.name == "pg_llm_pairs":
            return f"SELECT pg_llm_pairs({sensible_rows(rng)}, 8)"
        if function.name == "llm_loss":
            return f"SELECT llm_loss('{MODEL}', {sensible_rows(rng)})"
        if function.name in ("llm_embed_sequences", "llm_embed_bert"):
            return f"SELECT {function.name}('{MODEL}', '{{1,2,3,4}}', '{{1,3}}', true, 0.5)"
        if function.name == "llm_fill_pairs":
            return f"SELECT llm_fill_pairs('{MODEL}', 'VALUES (''a'', ''bc''), (''d'', ''e'')')"
        if function.name == "llm_query_pairs":
            return "SELECT llm_query_pairs('SELECT 1, 2, 3')"
        if function.name == "pg_llm_ranks":
            return "SELECT pg_llm_ranks('[[1,2,3],[3,2,NaN]]', '{0,1,1}', '{2,0,2}')"
        if function.name == "llm_train_step":
            return f"SELECT llm_train_step('{MODEL}', (SELECT max(id) FROM llm_dataset), lr_max => 0.01)"
    return function.call(rng)


def test_random_calls(fresh_conn: Connection) -> None:
    conn = fresh_conn
    conn.execute("SELECT llm_build_char_tokenizer(%s, $$SELECT 'abcdefghijklmnopqrs'$$)", (MODEL,))
    make_bert(conn, MODEL, vocab=20, n_positions=8, settings='{"prompts": {"a": "b"}}')
    for sequences in ((0, 1, 1), (0, 0, 1), (0, 1, 2), (0, 1, 2)):
        conn.execute(
            "INSERT INTO llm_dataset (model, tokens, target) VALUES (%s, %s, %s)",
            (MODEL, [sum(sequences), 5, len(set(sequences))], list(sequences)),
        )
    train(conn, MODEL, 1, batch_size=3)
    known = [function for function in functions(conn) if function.name in NAMES]
    assert {function.name for function in known} == NAMES
    succeeded: set[str] = set()
    problems = []
    for function in known:
        rng = Random(f"{SEED}/{function.signature}")
        for _ in range(CALLS):
            statement = statement_of(function, rng)
            try:
                with conn.transaction(force_rollback=True):
                    conn.execute("SET LOCAL statement_timeout = '20s'")
                    conn.execute(statement.encode())
                succeeded.add(function.name)
            except psycopg.Error as error:
                if conn.closed:
                    pytest.fail(f"LLM_SQL_HOSTILE_SEED={SEED}: the backend ended in {statement}")
                if error.sqlstate in BAD:
                    problems.append(f"{error.sqlstate} {str(error)[:200]}\n    {statement[:300]}")
    assert not problems, f"LLM_SQL_HOSTILE_SEED={SEED}: {len(problems)}\n" + "\n".join(problems[:10])
    assert succeeded >= SURE
