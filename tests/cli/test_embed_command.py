"""embed: from arguments and files, as text, JSON and NumPy, and what it says of what was cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import psycopg
import pytest

from ..support.small_models import Connection, make_encoder
from ..support.tensors import value
from .test_cli import Call, call, refuse, run, succeed

__all__ = ["call", "run"]


@pytest.fixture
def enc(run: Call, db_url: str) -> Connection:
    conn: Connection = psycopg.connect(db_url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True)
    prompts = '{"prompts": {"query": "ask "}}'
    make_encoder(conn, settings=prompts)
    return conn


def test_texts_files_and_forms(run: Call, enc: Connection, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("ava\r\n\nolivia and mia", encoding="utf-8")
    texts = ["emma", "ava", "", "olivia and mia"]
    expected = np.stack([value(enc, "SELECT llm_embed(%s, 'enc')::real[]", (text,)) for text in texts])
    given = ("embed", "emma", "--file", str(file), "-m", "enc")
    printed = succeed(run(*given)).splitlines()
    np.testing.assert_array_equal(np.float32([json.loads(line) for line in printed]), np.float32(expected))
    found = json.loads(succeed(run(*given, "--json")))
    assert found["model"] == "enc"
    np.testing.assert_array_equal(np.float32(found["embeddings"]), np.float32(expected))
    said = succeed(run(*given, "--npy", str(tmp_path / "out.npy")))
    assert "4 embeddings of width 16" in said
    loaded = np.load(tmp_path / "out.npy")
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, np.float32(expected))
    prompted = json.loads(succeed(run("embed", "emma", "-m", "enc", "--prompt", "query", "--json")))
    by_hand = value(enc, "SELECT llm_embed('emma', 'enc', 'query')::real[]")
    np.testing.assert_array_equal(np.float32(prompted["embeddings"][0]), np.float32(by_hand))
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert json.loads(succeed(run("embed", "--file", str(empty), "-m", "enc", "--json")))["embeddings"] == []


def test_what_is_refused(run: Call, enc: Connection, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"abc\xff\xfe")
    refuse(run("embed", "-m", "enc"), 2, "nothing to embed")
    refuse(run("embed", "a", "-m", "enc", "--json", "--npy", str(tmp_path / "x")), 2, "--npy or --json")
    refuse(run("embed", "-m", "enc", "--file", str(binary)), 2, "not UTF-8", "byte 3")
    refuse(run("embed", "-m", "enc", "--file", str(tmp_path / "none")), 2, "cannot read")
    refuse(run("embed", "a", "-m", "enc", "--npy", str(tmp_path / "no" / "x.npy")), 2, "cannot write")
    refuse(run("embed", "a", "-m", "nobody"), 5, "nobody")
    refuse(run("embed", "a", "-m", "enc", "--prompt", "answer"), 5, "answer", "query")


def test_what_was_cut_is_said(run: Call, enc: Connection) -> None:
    result = run("embed", "e" * 80, "-m", "enc", "--json")
    assert "1 of 1 texts are longer than the 16 tokens" in result.stderr
    assert len(json.loads(succeed(result))["embeddings"]) == 1
