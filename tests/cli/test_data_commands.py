"""dataset from files, finetune, evaluate with a stride, visualize: through the command line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from llm_sql import tokenizer

from .test_cli import TEXT, Call, call, refuse, run, succeed

__all__ = ["call", "run"]


@pytest.fixture
def toy(run: Call) -> Call:
    succeed(run("tokenizer", "chars", "toy", "-q", TEXT))
    succeed(run("create", "toy", "--width", "16", "--layers", "1", "--context", "16"))
    return run


def write(folder: Path, **texts: str) -> str:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return str(folder / "*.txt")


def test_a_data_set_from_files(toy: Call, tmp_path: Path) -> None:
    pattern = write(tmp_path, a="the cat sat " * 40, b="a dog ran " * 40)
    rows = json.loads(succeed(toy("dataset", "fill", "toy", "-i", pattern, "--stride", "8", "--json")))
    by_split = {row["split"]: row for row in rows}
    assert by_split["train"]["rows"] > 5 * by_split["validation"]["rows"] > 0
    again = succeed(
        toy("dataset", "fill", "toy", "-i", str(tmp_path / "a.txt"), "-i", str(tmp_path / "b.txt"),
            "--stride", "8", "--json", "--restart")
    )  # fmt: skip
    assert json.loads(again) == rows
    lines = json.loads(succeed(toy("dataset", "fill", "toy", "-i", pattern, "--lines", "--json")))
    assert {row["split"] for row in lines} == {"train", "validation"}
    query = json.loads(succeed(toy("dataset", "fill", "toy", "-q", TEXT, "--stream", "--json")))
    assert {row["split"] for row in query} == {"train", "validation"}
    refuse(toy("dataset", "fill", "toy"), 2, "--query or --input")
    refuse(toy("dataset", "fill", "toy", "-i", str(tmp_path / "none*")), 2, "no file matches")
    refuse(toy("dataset", "fill", "toy", "-i", pattern, "--block-size", "17"), 2, "17", "16")
    refuse(toy("dataset", "fill", "toy", "-i", pattern, "--tokenizer", "other"), 2, "other")


def test_tiktoken_and_the_own_bpe_give_the_same_rows(run: Call, db_url: str, tmp_path: Path) -> None:
    text = "The cat's sat.  And\n\nthen 12 naïve dogs 走了 ran… <|endoftext|> don't\u00a0stop\n" * 30
    corpus = ", ".join(["'the cat sat on the mat and then the dogs ran'"] * 3)
    succeed(run("tokenizer", "train", "toy", "-q", f"SELECT unnest(ARRAY[{corpus}])", "--vocab", "280"))
    succeed(run("create", "toy", "--width", "16", "--layers", "1", "--context", "32"))
    pattern = write(tmp_path, a=text)
    found = {}
    engine = create_engine(db_url)
    for kind in ("own", "tiktoken"):
        succeed(run("dataset", "fill", "toy", "-i", pattern, "--tokenizer", kind))
        with engine.connect() as connection:
            found[kind] = connection.exec_driver_sql(
                "SELECT split, tokens, target FROM llm_dataset ORDER BY id"
            ).all()
            train = [row.tokens for row in found[kind] if row.split == "train"]
            bpe = tokenizer.read_bpe(connection, "toy")
    engine.dispose()
    assert found["own"] == found["tiktoken"]
    end = train[0][0]
    stream = [token for tokens in train for token in tokens if token != end]
    whole = bpe.encode(text, special=False).tolist()
    assert whole[: len(stream)] == stream
    assert len(stream) > 0.85 * len(whole)


def test_finetune_evaluate_and_pictures(toy: Call, tmp_path: Path) -> None:
    words = random.Random(1).choices(["the", "cat", "sat"], k=200)
    pattern = write(tmp_path, a=" ".join(words))
    tuned = json.loads(
        succeed(toy("finetune", "toy", "-i", pattern, "-n", "60", "-b", "4", "--lr", "5e-3", "--json"))
    )
    assert tuned["model"] == "toy-finetuned"
    assert tuned["perplexity_after"] < tuned["perplexity_before"]
    text = succeed(toy("finetune", "toy", "-q", TEXT, "-n", "2", "--name", "other"))
    assert text.startswith("other: perplexity ")
    refuse(toy("finetune", "toy"), 2, "--query or --input")
    evaluated = json.loads(succeed(toy("evaluate", "-m", "toy-finetuned", "--stride", "4", "--json")))
    assert evaluated["perplexity"] == pytest.approx(tuned["perplexity_after"], rel=1e-6)
    scored = json.loads(
        succeed(
            toy("evaluate", "-m", "toy", "-q", "SELECT 'the cat sat ran a dog'", "--stride", "3", "--json")
        )
    )
    one = ("evaluate", "-m", "toy", "--text", "the cat sat ran a dog", "--stride", "3", "--json")
    assert scored["perplexity"] == pytest.approx(json.loads(succeed(toy(*one)))["perplexity"])
    curve = succeed(toy("visualize", "loss", "toy-finetuned"))
    assert "steps 1 to 60" in curve
    assert "█" in curve
    log = json.loads(succeed(toy("visualize", "loss", "toy-finetuned", "--json")))
    assert [row["step"] for row in log["steps"]] == list(range(1, 61))
    refuse(toy("visualize", "loss", "toy"), 1, "has not been trained")
    refuse(toy("visualize", "tape", "toy"), 1, "recorded")


def test_a_plot_in_a_file(toy: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    succeed(toy("finetune", "toy", "-q", TEXT, "-n", "3", "--name", "other"))
    succeed(toy("visualize", "loss", "other", "-o", str(tmp_path / "loss.svg")))
    assert "<svg" in (tmp_path / "loss.svg").read_text()
    refuse(toy("visualize", "loss", "other", "-o", str(tmp_path / "loss.xyz")), 2, "xyz")


def test_a_recorded_pass(toy: Call, db_url: str) -> None:
    engine = create_engine(db_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET pg_llm.record = 'graph'")
        connection.exec_driver_sql("UPDATE llm_autograd_mode SET flag = true")
        connection.exec_driver_sql("SELECT llm_loss('toy', '{1,2,3}', '{2,3,4}')")
    engine.dispose()
    rows = json.loads(succeed(toy("visualize", "tape", "toy", "--json")))
    names = [row["name"] for row in rows]
    assert "causal_attention" in " ".join(names)
    assert rows[-1]["shape"] == []
    graph = succeed(toy("visualize", "tape", "toy", "--dot"))
    assert graph.startswith("digraph tape {")
    assert graph.count("->") == sum(len(row["inputs"]) for row in rows)
    assert names[0] in succeed(toy("visualize", "tape", "toy"))
