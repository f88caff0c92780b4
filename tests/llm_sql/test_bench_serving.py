"""The bench's rows for many sessions on one model, for a pooler, and for the training log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from llm_sql.bench import log, pooler, shared
from llm_sql.bench.generation import Generated
from llm_sql.bench.report import Row
from llm_sql.bench.scratch import scratch_database
from llm_sql.bench.serving import backend, create_served_model, memory_of, tokenizer_file
from llm_sql.bench.shapes import MICROGPT

from ..amount import extended

TINY = Generated("tiny", 2, 2, 32, 64, 700)


@pytest.fixture
def scratch(engine: Engine) -> Iterator[Engine]:
    with scratch_database(engine) as scratch:
        yield scratch


def rows_by_name(rows: Iterator[Row]) -> dict[str, Row]:
    return {row.what: row for row in rows}


def test_a_tokenizer_of_any_size(scratch: Engine) -> None:
    for vocab in (256, 700, 1000):
        lines = tokenizer_file(vocab).splitlines()
        assert len({line.split()[0] for line in lines}) == vocab
    create_served_model(scratch, TINY)
    with scratch.connect() as connection:
        assert connection.scalar(text("SELECT public.llm_encode('ab cd', 'tiny')")) == [257, 32, 311]
        count = "SELECT count(*) FROM public.llm_bpe_{} WHERE model = 'tiny'"
        assert connection.scalar(text(count.format("vocab"))) == 700
        assert connection.scalar(text(count.format("merges"))) == 700 - 256


def test_the_memory_of_a_backend(scratch: Engine) -> None:
    with backend(scratch, weights="int8", threads="1") as connection:
        assert connection.execute("SHOW pg_llm.weights").fetchone() == ("int8",)
        before = memory_of(connection)
        if before is None:
            pytest.skip("no /proc/self/smaps_rollup")
        assert 0 < before["Private_Dirty"] <= before["Rss"]
        assert 0 < before["Pss"] <= before["Rss"]
        connection.execute("SET ROLE llm_reader")
        assert memory_of(connection) is None


@extended
def test_sessions_that_share(scratch: Engine) -> None:
    rows = rows_by_name(shared.measure_shared(scratch, 1, 2, quick=True, model=TINY))
    for precision in ("float32", "bf16", "int8"):
        together = rows[f"8 sessions that generate, tiny, {precision}, together"]
        assert together.llm_sql is None or 0.001 < together.llm_sql < 1
        for way in ("llm_logits", "a text"):
            first = rows[f"a new connection's first token from {way}, tiny, {precision}"]
            assert first.unit == "s"
            assert first.llm_sql is not None
            assert 0.001 < first.llm_sql < 30
        reading = rows[f"further tokens, shared over own copy, tiny, {precision}"]
        assert reading.llm_sql is not None
        assert reading.llm_sql > 0


def test_clients_of_a_pooler(scratch: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooler, "TOKENS", 2)
    rows = list(pooler.measure_pooler(scratch, 2, 2, quick=True, model=TINY, n_calls=30))
    if pooler.find_pgbouncer() is None:
        assert [row.llm_sql for row in rows] == [None]
        assert "not installed" in rows[0].note
        return
    assert [row.unit for row in rows] == ["calls/s", "calls/s", "times"]
    assert all(row.llm_sql is not None and row.llm_sql > 0 for row in rows)
    monkeypatch.setattr(pooler, "find_pgbouncer", lambda: None)
    (row,) = pooler.measure_pooler(scratch, 2, 2, quick=True, model=TINY)
    assert "not installed" in row.note


def test_what_a_logged_step_writes(scratch: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "STEPS", 6)
    rows = rows_by_name(log.measure_log(scratch, 1, 1, quick=True, shape=MICROGPT))
    name = "microgpt, B=1 T=8"
    written = rows[f"WAL of a committed step, {name}, written back"]
    assert written.unit == "kB"
    # Weights and both moments of 4,192 parameters.
    assert written.llm_sql is not None
    assert 3 * 4 * 4.192 < written.llm_sql < 1000
    share = rows[f"time outside of steps, {name}"].llm_sql
    assert share is not None
    assert 0 <= share < 100
    logged = rows[f"WAL of a committed step, {name}"]
    assert logged.llm_sql is not None
    assert 0 < logged.llm_sql < written.llm_sql
