"""What takes minutes: GPT-2 124M itself. Run by .ci/run, or with LLM_SQL_EXTENDED=1 in the environment."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import psycopg
import pytest

from ..support.small_models import make_model

if not os.environ.get("LLM_SQL_EXTENDED"):
    collect_ignore_glob = ["test_*.py"]

VOCAB, POSITIONS = 50257, 1024


def make_gpt2(conn: psycopg.Connection[Any]) -> None:
    """GPT-2 124M as initialised, and rows of 1024 pseudo-random tokens."""
    make_model(conn, "gpt2", n_layer=12, n_head=12, d_model=768, n_positions=POSITIONS, vocab=VOCAB)
    rng = np.random.default_rng(11)
    for _ in range(4):
        tokens = rng.integers(0, VOCAB, POSITIONS + 1).tolist()
        conn.execute(
            "INSERT INTO llm_dataset (model, tokens, target) VALUES ('gpt2', %s, %s)",
            (tokens[:-1], tokens[1:]),
        )


@pytest.fixture
def gpt2(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    make_gpt2(conn)
    return conn
