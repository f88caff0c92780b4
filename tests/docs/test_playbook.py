"""docs/playbook.md, from top to bottom: every block, with a GPT-2 and numbers of a size for tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from llm_sql import LanguageModel

from ..amount import extended
from ..support.blocks import run_page
from ..support.pages import DOCS

PAGE = DOCS / "playbook.md"
# From here on blocks run as they stand.
PRETRAINING = "## 7."
# What the page says, and what the test runs; each must stand on the page.
REDUCED = {
    "gpt2-small": "gpt2-tiny",
    "block_size => 1024": "block_size => 32",
    "--block-size 1024": "--block-size 32",
    "--stride 1024": "--stride 16",
    "stride => 512": "stride => 16",
    "--stride 512": "--stride 16",
    "'gpt2-catalog', 1000": "'gpt2-catalog', 8",
    "steps => 1000": "steps => 4",
    "--steps 1000": "--steps 4",
    "commit_every => 100": "commit_every => 4",
    "warmup => 100": "warmup => 2",
    "lr_max => 5e-5": "lr_max => 5e-3",
    "80": "8",
    "WHERE objoid < 16384": "WHERE objoid < 16384 AND description LIKE '%array%'",
}
CORPUS = "The quick brown fox jumps over the lazy dog, and the dog sleeps. "


def make_hub_directory(engine: Any, folder: Path) -> None:
    """A random GPT-2 of four thousand weights and a tokenizer, in the layout of the Hugging Face hub."""
    folder.mkdir()
    with Session(engine) as session:
        query = "SELECT description FROM pg_description LIMIT 200"
        session.connection().exec_driver_sql("SELECT llm_train_bpe('maker', %s, 300)", (query,))
        lm = LanguageModel.create(
            session, "maker", n_layer=1, n_head=2, d_model=8, n_positions=32, vocab=300, seed=1
        )
        lm.export_weights(folder / "model.safetensors")
        rows = session.connection().exec_driver_sql(
            "SELECT token, token_id FROM llm_bpe_vocab WHERE model = 'maker'"
        )
        (folder / "vocab.json").write_text(json.dumps({row.token: row.token_id for row in rows}))
        pairs = session.connection().exec_driver_sql(
            "SELECT pair FROM llm_bpe_merges WHERE model = 'maker' ORDER BY rank"
        )
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{pair}\n" for (pair,) in pairs))
        config = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 32, "vocab_size": 300}
        (folder / "config.json").write_text(
            json.dumps({"model_type": "gpt2", "activation_function": "gelu_new"} | config)
        )
        session.rollback()


@extended
def test_the_playbook(
    server: Any,
    fresh_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = server.sqlalchemy_url(fresh_database)
    engine = create_engine(url)
    make_hub_directory(engine, tmp_path / "gpt2")
    engine.dispose()
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "fox.txt").write_text(CORPUS * 40)
    monkeypatch.chdir(tmp_path)
    fine_tuning, heading, pretraining = PAGE.read_text().partition(PRETRAINING)
    assert heading
    for said in REDUCED:
        assert said in fine_tuning
    # Its data is what the page says.
    [article] = re.findall(r"^CREATE TABLE article.*?;$", fine_tuning, re.MULTILINE | re.DOTALL)
    pretraining = f"```sql\nDROP TABLE article;\n{article}\n```\n{pretraining}"
    run = run_page(fine_tuning, server.url(fresh_database), url, tmp_path, REDUCED)
    run += run_page(pretraining, server.url(fresh_database), url, tmp_path)
    assert len(run) > 20
    with psycopg.connect(server.url(fresh_database)) as connection:
        [(before, after)] = connection.execute(
            "SELECT min(loss) FILTER (WHERE step = 1), min(loss) FILTER (WHERE step = 8)"
            " FROM llm_train_log WHERE model = 'gpt2-catalog'"
        ).fetchall()
    assert after < before
    assert (tmp_path / "gpt2-catalog.safetensors").stat().st_size > 10_000
    with psycopg.connect(server.url(fresh_database), autocommit=True) as connection:
        pretraining_ends_as_the_page_says(connection)


WEIGHTS = (
    "SELECT name, data::bytea, m::bytea, v::bytea FROM llm_param WHERE model = 'gpt2-nano' ORDER BY name"
)
RUN = "CALL pretrain('gpt2-nano', 300, 100, 25, 4, 2, 1e-2, 30)"


def pretraining_ends_as_the_page_says(connection: psycopg.Connection[Any]) -> None:
    """One rate schedule and order of rows over all segments; it stops and goes on to the same bits."""
    log = (
        "SELECT step, lr, loss FROM llm_train_log WHERE model = 'gpt2-nano' AND NOT superseded ORDER BY step"
    )
    rows = connection.execute(log).fetchall()
    assert [step for step, _, _ in rows] == list(range(1, 301))
    rates = [lr for _, lr, _ in rows]
    assert rates[29] == pytest.approx(max(rates)) == 1e-2
    assert rates[-1] == pytest.approx(1e-3, rel=0.02)
    weights = connection.execute(WEIGHTS).fetchall()
    checkpoints = "SELECT count(*) FROM llm_checkpoint WHERE model = 'gpt2-nano'"
    assert connection.execute(checkpoints).fetchone() == (3,)

    # The whole run again: a missed gate stops it, and an error in the middle of a segment too.
    connection.execute("SELECT llm_init_model('gpt2-nano', 1337)")
    connection.execute("UPDATE pretraining_gate SET at_most = 0 WHERE model = 'gpt2-nano' AND step = 100")
    with pytest.raises(psycopg.errors.RaiseException, match=r"step 100 .* above the gate 0"):
        connection.execute(RUN)
    connection.execute("UPDATE pretraining_gate SET at_most = 6 WHERE model = 'gpt2-nano' AND step = 100")
    connection.execute("ALTER TABLE llm_train_log ADD CONSTRAINT crash CHECK (step <> 160) NOT VALID")
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(RUN)
    connection.execute("ALTER TABLE llm_train_log DROP CONSTRAINT crash")
    # What was committed, if not written back yet: resuming computes the rest again.
    assert connection.execute(log).fetchall()[-1][0] == 150
    connection.execute(RUN)
    assert connection.execute(log).fetchall() == rows
    assert connection.execute(WEIGHTS).fetchall() == weights
