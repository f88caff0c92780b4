"""import, export, convert, checkpoint, tokenizer load: through the command line, and what they refuse."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from llm_sql.kernels import WeightsFile

from ..reference import bpe as reference
from .test_cli import TEXT, Call, call, refuse, run, succeed

__all__ = ["call", "run"]

VOCAB = reference.GOLDEN / "bpe_vocab.json"
MERGES = reference.GOLDEN / "bpe_merges.txt"
SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 32, "vocab_size": 512}


@pytest.fixture
def toy(run: Call) -> Call:
    succeed(run("tokenizer", "chars", "toy", "-q", TEXT))
    succeed(run("create", "toy", "--width", "16", "--layers", "1", "--context", "32", "--seed", "3"))
    return run


@pytest.fixture
def hub_directory(run: Call, tmp_path: Path) -> Path:
    """A random GPT-2 in the layout of the hub, of a size that a character's tokens fit."""
    folder = tmp_path / "hub"
    folder.mkdir()
    sizes = ("--width", "8", "--layers", "1", "--heads", "2", "--context", "32", "--vocab", "512")
    succeed(run("create", "maker", *sizes))
    succeed(run("export", str(folder / "model.safetensors"), "--model", "maker"))
    shutil.copy(VOCAB, folder / "vocab.json")
    shutil.copy(MERGES, folder / "merges.txt")
    config = {"model_type": "gpt2", "activation_function": "gelu_new"} | SIZES
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def generated(run: Call, model: str) -> str:
    return str(
        json.loads(succeed(run("generate", "the ", "-m", model, "-n", "8", "-t", "0", "--json")))["text"]
    )


def tensors(path: Path) -> dict[str, bytes]:
    with WeightsFile(path) as file:
        return {name: file.read(name).tobytes() for name, _, _ in file.tensors()}


def test_a_directory_with_its_tokenizer(run: Call, hub_directory: Path) -> None:
    found = json.loads(succeed(run("import", str(hub_directory), "--model", "mine", "--json")))
    expected = len(
        np.concatenate(
            [np.frombuffer(t, np.float32) for t in tensors(hub_directory / "model.safetensors").values()]
        )
    )
    assert found == {"model": "mine", "path": str(hub_directory), "weights": expected, "tokens": 512}
    said = succeed(run("import", str(hub_directory), "--model", "mine"))
    assert "512 tokens, vocab.json and merges.txt" in said
    ids = json.loads(succeed(run("tokenizer", "encode", "mine", "the end")))
    assert ids == reference.tiktoken_encoding(VOCAB).encode("the end")
    assert isinstance(generated(run, "mine"), str)
    succeed(run("import", str(hub_directory), "--model", "bare", "--no-tokenizer"))
    refuse(run("tokenizer", "encode", "bare", "the"), 5, "has no tokenizer")
    for name in ("vocab.json", "merges.txt"):
        (hub_directory / name).unlink()
    assert "no tokenizer in" in succeed(run("import", str(hub_directory), "--model", "bare"))
    assert "tokens" not in succeed(run("import", str(hub_directory), "--model", "bare", "--no-tokenizer"))


def test_a_hub_name_is_looked_up_by_huggingface_hub(
    run: Call, hub_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads only for hf:, and only what is needed; the name alone is a path."""
    hub = pytest.importorskip("huggingface_hub")
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(hub_directory)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    refuse(run("import", "somebody/gpt2", "-m", "mine"), 2, "does not exist")
    assert asked == []
    assert json.loads(succeed(run("import", "hf:somebody/gpt2", "-m", "mine", "--json")))["tokens"] == 512
    [(name, patterns)] = asked
    assert name == "somebody/gpt2"
    assert {"config.json", "*.safetensors", "vocab.json", "merges.txt", "tokenizer.json"} <= set(patterns)
    assert not any("bin" in pattern or pattern == "*" for pattern in patterns)


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "gz"])
def test_export_import_convert(toy: Call, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    exported = json.loads(succeed(toy("export", str(path), "-m", "toy", "--json")))
    assert exported["weights"] == sum(len(data) for data in tensors(path).values()) // 4
    text = generated(toy, "toy")
    converted = tmp_path / "again"
    found = json.loads(succeed(toy("convert", str(path), str(converted), "--format", "npz", "--json")))
    assert found["weights"] == exported["weights"]
    assert tensors(converted) == tensors(path)
    assert np.load(converted)["wte.weight"].shape == (13, 16)
    assert (
        json.loads(succeed(toy("import", str(converted), "-m", "toy", "--json")))["weights"]
        == found["weights"]
    )
    assert generated(toy, "toy") == text
    assert f"toy: {found['weights']:,} weights" in succeed(toy("import", str(path), "-m", "toy"))


def test_convert_needs_no_database(call: Call, tmp_path: Path) -> None:
    source, target = tmp_path / "a.npz", tmp_path / "b.safetensors"
    np.savez(source, x=np.arange(6, dtype=np.float64).reshape(2, 3), mask=np.ones(4, bool))
    url = "postgresql://127.0.0.1:1/none"
    assert "6 weights" in succeed(call("convert", str(source), str(target), url=url))
    assert tensors(target) == {"x": np.arange(6, dtype=np.float32).tobytes()}


def test_refused_files(toy: Call, tmp_path: Path, hub_directory: Path) -> None:
    text = generated(toy, "toy")
    none = str(tmp_path / "none.safetensors")
    refuse(toy("import", none, "-m", "toy"), 2, "does not exist")
    refuse(toy("import", str(tmp_path / "none.npz"), "-m", "nobody"), 2, "does not exist")
    (tmp_path / "rubbish").write_bytes(b"no weights")
    refuse(toy("import", str(tmp_path / "rubbish"), "-m", "toy"), 1, "rubbish is refused")
    refuse(toy("convert", str(tmp_path / "rubbish"), str(tmp_path / "x.npz")), 1, "rubbish is refused")
    refuse(toy("convert", none, str(tmp_path / "x.npz")), 2, "none.safetensors")
    refuse(toy("convert", str(tmp_path / "rubbish"), str(tmp_path / "x.bin")), 2, "no format for", ".npz")
    refuse(toy("export", str(tmp_path / "x.bin"), "-m", "toy"), 2, "no format for")
    refuse(toy("export", str(tmp_path / "no" / "x.npz"), "-m", "toy"), 2, "cannot write", "No such file")
    refuse(
        toy("export", str(tmp_path / "x.npz"), "-m", "nobody"), 5, 'model "nobody" does not exist', "42704"
    )
    refuse(toy("export", str(tmp_path / "x.npz"), "-m", "gpt2-small"), 1, "has no weights")
    path = str(hub_directory / "model.safetensors")
    refuse(toy("import", path, "-m", "nobody"), 5, 'model "nobody" does not exist')
    refuse(toy("import", path, "-m", "toy"), 5, "expected", "22023")
    (tmp_path / "empty").mkdir()
    refuse(toy("import", str(tmp_path / "empty"), "-m", "new"), 2, "config.json")
    (hub_directory / "merges.txt").unlink()
    refuse(toy("import", str(hub_directory), "-m", "new"), 2, "has vocab.json, but no merges.txt")
    (hub_directory / "model.safetensors").unlink()
    refuse(toy("import", str(hub_directory), "-m", "new", "--no-tokenizer"), 2, "has no model.safetensors")
    (hub_directory / "config.json").write_text("{")
    refuse(toy("import", str(hub_directory), "-m", "new"), 2, "config.json is not JSON")
    assert list(tmp_path.glob("x.*")) == []
    assert generated(toy, "toy") == text


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.complex64])
def test_weights_of_the_wrong_type(toy: Call, tmp_path: Path, dtype: Any) -> None:
    succeed(toy("export", str(tmp_path / "w.npz"), "-m", "toy"))
    arrays = dict(np.load(tmp_path / "w.npz"))
    arrays["wpe.weight"] = arrays["wpe.weight"].astype(dtype)
    np.savez(tmp_path / "wrong.npz", **arrays)
    done = toy("import", str(tmp_path / "wrong.npz"), "-m", "toy")
    assert done.returncode in (1, 5)
    refuse(done, done.returncode, "wpe.weight")


def test_a_file_that_may_not_be_read(toy: Call, tmp_path: Path) -> None:
    """A directory stands for it where the tests run as root, who may read everything."""
    path = tmp_path / "secret.json"
    if os.geteuid() == 0:
        path.mkdir()
    else:
        path.write_bytes(b"x")
        path.chmod(0)
    refuse(toy("tokenizer", "load", "toy", str(path), str(MERGES)), 2, "cannot read", "secret.json")
    if os.geteuid() != 0:
        refuse(toy("import", str(path), "-m", "toy"), 2, "cannot read", "Permission denied")


def test_tokenizer_load(toy: Call, tmp_path: Path) -> None:
    assert json.loads(succeed(toy("tokenizer", "load", "big", str(VOCAB), str(MERGES), "--json"))) == {
        "model": "big",
        "vocab": 512,
    }
    assert "big: 512 tokens" in succeed(toy("tokenizer", "load", "big", str(VOCAB), str(MERGES)))
    refuse(toy("tokenizer", "load", "big", str(MERGES), str(VOCAB)), 5, "line 1")
    refuse(toy("tokenizer", "load", "big", str(tmp_path / "none.json")), 2, "cannot read", "none.json")
    refuse(toy("tokenizer", "load", "toy", str(VOCAB), str(MERGES)), 1, "token id 511", "vocab of 13")
    assert succeed(toy("tokenizer", "decode", "toy", "3")) != ""
    refuse(toy("tokenizer", "decode", "toy", "99999"), 5, "99999")
    refuse(toy("tokenizer", "train", "big", "-q", TEXT, "--vocab", "12"), 2, "257")


def test_checkpoints(toy: Call) -> None:
    first = json.loads(succeed(toy("checkpoint", "save", "toy", "--note", "at first", "--json")))["id"]
    text = generated(toy, "toy")
    succeed(toy("dataset", "fill", "toy", "-q", TEXT, "--validation", "0"))
    succeed(toy("train", "toy", "-n", "30", "--lr", "0.01", "--warmup", "2"))
    trained = generated(toy, "toy")
    assert trained != text
    second = json.loads(succeed(toy("checkpoint", "save", "toy", "--json")))["id"]
    rows = json.loads(succeed(toy("checkpoint", "list", "toy", "--json")))
    assert [(row["id"], row["step"], row["note"]) for row in rows] == [
        (first, 0, "at first"),
        (second, 30, None),
    ]
    assert json.loads(succeed(toy("checkpoint", "load", "toy", str(first), "--json")))["step"] == 0
    assert generated(toy, "toy") == text
    assert "step 30" in succeed(toy("checkpoint", "load", "toy", str(second)))
    assert generated(toy, "toy") == trained
    refuse(toy("checkpoint", "load", "toy", "999999"), 5, "999999")
    refuse(toy("checkpoint", "load", "toy", "one"), 2, "ID", "integer")
    refuse(toy("checkpoint", "save", "nobody"), 5, 'model "nobody" does not exist')
    refuse(toy("checkpoint", "save", "toy", "--keep", "0"), 2, "--keep")
    succeed(toy("checkpoint", "save", "toy", "--keep", "1"))
    assert len(json.loads(succeed(toy("checkpoint", "list", "--json")))) == 1
    assert succeed(toy("checkpoint", "list", "toy")).count("30") >= 1
    assert json.loads(succeed(toy("checkpoint", "list", "other", "--json"))) == []


def test_a_damaged_checkpoint(toy: Call, server: Any, conn: psycopg.Connection[Any]) -> None:
    if server.embedded is None:
        pytest.skip("the server may be on another machine")
    id_ = json.loads(succeed(toy("checkpoint", "save", "toy", "--json")))["id"]
    row = conn.execute("SELECT file_path FROM llm_checkpoint WHERE id = %s", (id_,)).fetchone()
    assert row is not None
    [path] = server.embedded.data_directory.rglob(Path(row[0]).name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refuse(toy("checkpoint", "load", "toy", str(id_)), 5, str(id_))


def test_an_unreachable_server_ends_with_3(call: Call, tmp_path: Path) -> None:
    """Whatever the command: no traceback, the same exit code."""
    file = tmp_path / "w.npz"
    np.savez(file, x=np.zeros(3, np.float32))
    (tmp_path / "a.txt").write_text("text")
    for command in (
        ("import", str(file), "-m", "toy"),
        ("export", str(tmp_path / "x.npz"), "-m", "toy"),
        ("checkpoint", "save", "toy"),
        ("checkpoint", "load", "toy", "1"),
        ("checkpoint", "list"),
        ("tokenizer", "load", "toy", str(VOCAB), str(MERGES)),
        ("tokenizer", "encode", "toy", "a"),
        ("dataset", "fill", "toy", "-i", str(tmp_path / "*.txt")),
        ("dataset", "show", "toy"),
        ("finetune", "toy", "-q", TEXT),
        ("evaluate", "-m", "toy"),
        ("train", "toy"),
        ("visualize", "loss", "toy"),
    ):
        refuse(call(*command, url="postgresql://127.0.0.1:1/none"), 3, "cannot use the database", "hint:")
    assert not (tmp_path / "x.npz").exists()


def test_unknown_models(run: Call, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    for command in (
        ("dataset", "fill", "nobody", "-q", TEXT),
        ("dataset", "fill", "nobody", "-i", str(tmp_path / "a.txt")),
        ("finetune", "nobody", "-q", TEXT, "-n", "2"),
        ("finetune", "nobody", "-i", str(tmp_path / "a.txt"), "-n", "2"),
        ("evaluate", "-m", "nobody"),
        ("evaluate", "-m", "nobody", "--text", "a"),
        ("generate", "a", "-m", "nobody"),
        ("tokenizer", "encode", "nobody", "a"),
    ):
        refuse(run(*command), 5, "nobody")


def test_several_quoted_globs(toy: Call, tmp_path: Path) -> None:
    """Patterns add up, a file that two of them match counts once, ** crosses folders."""
    deep = tmp_path / "more" / "deep"
    deep.mkdir(parents=True)
    for path, text in {
        "a.txt": "the cat sat ",
        "b.text": "a dog ran ",
        "more/deep/c.txt": "the end ",
    }.items():
        (tmp_path / path).write_text(text * 60)
    fill = ("dataset", "fill", "toy", "--block-size", "16", "--validation", "0.2", "--json")
    all_txt, b, a = str(tmp_path / "**" / "*.txt"), str(tmp_path / "*.text"), str(tmp_path / "a.*")
    first = json.loads(succeed(toy(*fill, "-i", all_txt, "-i", b)))
    again = json.loads(succeed(toy(*fill, "--restart", "--input", b, "--input", a, "--input", all_txt)))
    assert again == first
    only = json.loads(succeed(toy(*fill, "--restart", "-i", a)))
    assert 0 < only[0]["tokens"] < first[0]["tokens"]
    refuse(toy(*fill, "-i", a, "-i", str(tmp_path / "*.csv")), 2, "no file matches", "*.csv")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 10)
    refuse(toy(*fill, "--restart", "-i", str(tmp_path / "latin.txt")), 2, "latin.txt", "UTF-8")
    refuse(toy("finetune", "toy", "-i", str(tmp_path / "latin.txt")), 2, "latin.txt", "UTF-8")
