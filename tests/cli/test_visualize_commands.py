"""visualize through the command line: in the terminal, in files and as JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from .test_cli import TEXT, Call, call, refuse, run, succeed

__all__ = ["call", "run"]


@pytest.fixture
def trained(run: Call) -> Call:
    succeed(run("tokenizer", "chars", "toy", "-q", TEXT))
    succeed(run("create", "toy", "--width", "16", "--layers", "2", "--heads", "2", "--context", "16"))
    succeed(run("dataset", "fill", "toy", "-q", TEXT, "--block-size", "8"))
    succeed(run("train", "toy", "--steps", "4", "--grad-clip", "0.01"))
    succeed(run("evaluate", "-m", "toy", "--split", "train", "--log"))
    return run


def read(call: Call, *arguments: str) -> Any:
    return json.loads(succeed(call("visualize", *arguments, "--json")))


def test_training(trained: Call) -> None:
    shown = succeed(trained("visualize", "training", "toy"))
    assert "steps 1 to 4" in shown
    assert "clipped to 0.01 in 4 of 4 steps" in shown
    assert "split train: " in shown
    assert succeed(trained("visualize", "loss", "toy")) == shown
    found = read(trained, "training", "toy")
    assert [step["step"] for step in found["steps"]] == [1, 2, 3, 4]
    assert all(step["clipped"] and step["clip_threshold"] == 0.01 for step in found["steps"])
    logged = json.loads(succeed(trained("evaluate", "-m", "toy", "--split", "train", "--log", "--json")))
    assert found["evaluations"] == [
        {"step": 4, "split": "train", "tokens": logged["tokens"], "loss": logged["loss"]}
    ]
    refuse(trained("evaluate", "-m", "toy", "--text", "the", "--log"), 2, "--log")


def test_a_step_and_its_pass(trained: Call) -> None:
    shown = succeed(trained("visualize", "gradient-flow", "toy"))
    assert "layer 1" in shown
    assert "is over 0.01" in shown
    step = read(trained, "gradient-flow", "toy")
    assert [layer["label"] for layer in step["layers"]] == ["embedding", "0", "1", "head"]
    rows = read(trained, "tape", "toy")
    assert "h.1.mlp.c_proj.weight" in [name for row in rows for name in row["reads"]]
    assert "h.0.attn.c_attn.{weight,bias}" in succeed(trained("visualize", "tape", "toy"))


def test_attention(trained: Call) -> None:
    shown = succeed(trained("visualize", "attention", "toy", "the cat", "--layer", "1", "--head", "1"))
    assert "layer 1 of 2, head 1 of 2" in shown
    maps = read(trained, "attention", "toy", "the cat")["maps"]
    assert len(maps) == 4
    assert all(sum(row) == pytest.approx(1.0, abs=1e-5) for one in maps for row in one["weights"])
    refuse(trained("visualize", "attention", "toy", ""), 2, "empty")
    refuse(trained("visualize", "attention", "toy", "the cat" * 3), 2, "21", "16")
    refuse(trained("visualize", "attention", "toy", "the", "--layer", "2"), 2, "no layer 2", "0 to 1")
    refuse(trained("visualize", "attention", "toy", "THE"), 5, "T")
    refuse(trained("visualize", "attention", "nobody", "the"), 1, "nobody")


def test_graph_and_schema(trained: Call) -> None:
    assert "block × 2" in succeed(trained("visualize", "graph", "toy"))
    assert succeed(trained("visualize", "graph", "microgpt", "-f", "dot")).startswith("digraph")
    assert succeed(trained("visualize", "graph", "gpt2", "--format", "mermaid")).startswith("flowchart")
    refuse(trained("visualize", "graph", "gpt9"), 1, "gpt9")
    assert "llm_clip" in succeed(trained("visualize", "schema"))
    assert succeed(trained("visualize", "schema", "-f", "mermaid")).startswith("erDiagram")
    refuse(trained("visualize", "schema", "-f", "dot"), 2, "dot")


def test_all_pictures_of_a_model(trained: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "a" / "b"
    written = read(trained, "all", "toy", "--folder", str(folder))
    names = ["training_metrics.png", "gradient_flow.gif", "attention.png", "graph.svg", "schema.svg"]
    assert [Path(file["file"]).name for file in written] == names
    assert all((folder / name).stat().st_size > 1000 for name in names)


def test_files_that_are_refused(trained: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for command in (("training", "toy"), ("attention", "toy", "the"), ("graph", "toy"), ("schema",)):
        refuse(trained("visualize", *command, "-o", str(tmp_path / "x.gif")), 2, ".gif", "gradient-flow")
        refuse(trained("visualize", *command, "-o", str(tmp_path / "no" / "x.png")), 2, "does not exist")
        succeed(trained("visualize", *command, "-o", str(tmp_path / "x.svg")))
    refuse(trained("visualize", "gradient-flow", "toy", "-o", str(tmp_path / "x.png")), 2, ".png", ".gif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.svg"]


def test_options_that_contradict_each_other(trained: Call, tmp_path: Path) -> None:
    file = str(tmp_path / "g.svg")
    for arguments, word in [
        (("graph", "toy", "-f", "dot", "-o", file), "--format"),
        (("graph", "toy", "-f", "dot", "--json"), "--json"),
        (("schema", "-f", "mermaid", "-o", file), "--format"),
        (("schema", "--part", "tape"), "--part"),
        (("schema", "--part", "tape", "--json"), "--part"),
    ]:
        refuse(trained("visualize", *arguments), 2, word)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_training_leaves_no_folder(run: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "pictures"
    refuse(run("visualize", "all", "nobody", "--folder", str(folder)), 1, "nobody")
    assert not folder.exists()


def test_without_privileges(trained: Call, db_url: str, tmp_path: Path) -> None:
    engine = create_engine(db_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE visitor_of_pictures LOGIN")
    try:
        url = engine.url.set(username="visitor_of_pictures").render_as_string(hide_password=False)
        for command in (("training", "toy"), ("tape", "toy"), ("attention", "toy", "the"), ("graph", "toy")):
            refuse(trained("visualize", *command, "--url", url), 5, "permission denied")
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP ROLE visitor_of_pictures")
        engine.dispose()
