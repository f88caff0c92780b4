"""The bench measures what it says, and leaves the database as it was."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from llm_sql import bench


def test_bench_times_steps_and_leaves_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other engine has its own tests; here it would only take time.
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    rows = bench.run_bench(engine, repeats=1, threads=2)
    assert [row["step of"] for row in rows] == [shape.name for shape in bench.SHAPES]
    assert all(0 < row["fastest"] <= row["llm-sql"] < 10_000 and row["ratio"] is None for row in rows)
    with engine.connect() as connection:
        left = text("SELECT (SELECT count(*) FROM llm_param) + (SELECT count(*) FROM llm_dataset)")
        assert connection.scalar(left) == 0


def test_the_reference_is_the_same_model() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from llm_sql.bench.torch_reference import GPT

    gpt2, microgpt = bench.SHAPES
    d, v = gpt2.d_model, gpt2.vocab
    blocks = gpt2.n_layer * (12 * d * d + 13 * d)
    assert sum(p.numel() for p in GPT(gpt2, 0.0).parameters()) == v * d + gpt2.tokens * d + blocks + 2 * d
    d, v = microgpt.d_model, microgpt.vocab
    assert (
        sum(p.numel() for p in GPT(microgpt, 0.0).parameters())
        == 2 * v * d + microgpt.n_positions * d + 12 * d * d
    )
