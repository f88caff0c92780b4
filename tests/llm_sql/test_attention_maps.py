"""Maps of attention whose heads share keys, within a window."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
from sqlalchemy import Engine

from llm_sql.visualize.attention import read_attention

from ..support.small_models import names_query


def test_heads_that_share_keys_within_a_window(conn: psycopg.Connection[Any], engine: Engine) -> None:
    conn.execute("SELECT llm_build_char_tokenizer('m', %s)", (names_query(),))
    settings = '{"n_kv_head": 1, "window": 3}'
    conn.execute("SELECT llm_create_model('m', 'llama', 1, 2, 8, 16, NULL, 3, %s)", (settings,))
    conn.execute("UPDATE llm_param SET data = data * 20 WHERE model = 'm' AND name LIKE '%.attn.%'")
    with engine.connect() as connection:
        maps = read_attention(connection, "m", "isabella").maps
    assert len(maps) == 2
    for one in maps:
        weights = np.asarray(one.weights)
        assert np.allclose(weights.sum(-1), 1, atol=1e-5)
        seen = np.tril(np.ones_like(weights)) * np.triu(np.ones_like(weights), -2)
        assert np.array_equal(weights > 0, seen > 0)
    assert not np.allclose(maps[0].weights, maps[1].weights)
