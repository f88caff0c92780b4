"""The guide's example of contrastive training, in fewer steps: recall on pairs that were held out rises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

import llm_sql.server

from ..amount import extended
from ..support.blocks import run_page
from ..support.pages import DOCS
from ..support.tensors import value

PAGE = DOCS / "guide" / "fine-tuning-encoders.md"
SHORT = {
    "llm_train('finder', 200,": "llm_train('finder', 40,",
    "warmup => 20": "warmup => 4",
    "train finder --steps 20": "train finder --steps 2",
    "--warmup 2": "--warmup 0",
}
RECALL = "SELECT recall FROM llm_recall('finder', k => 10)"


@extended
def test_recall_on_held_out_pairs_rises(
    server: Any, fresh_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text()
    assert all(said in text for said in SHORT)
    url = server.sqlalchemy_url(fresh_database)
    monkeypatch.setattr(llm_sql.server, "ensure", lambda: server.url(fresh_database))
    monkeypatch.setenv("DATABASE_URL", url)
    run_page(text, server.url(fresh_database), url, tmp_path, SHORT)
    with psycopg.connect(server.url(fresh_database), autocommit=True) as conn:
        after = value(conn, RECALL)
        conn.execute("SELECT llm_init_model('finder')")
        assert after > value(conn, RECALL) + 0.3
        assert after > 0.6
        # No text that was trained on is held out.
        assert (
            value(
                conn,
                """SELECT count(*) FROM llm_dataset h JOIN llm_dataset t ON t.tokens = h.tokens
            WHERE h.split = 'validation' AND t.split = 'train'""",
            )
            == 0
        )
