"""GPT-2's tokenizer of transformers, tiktoken and the database: 200,000 strings, the same ids and back."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from sqlalchemy import Engine
from sqlalchemy.orm import Session
from transformers import GPT2TokenizerFast

from llm_sql import LanguageModel

from ..reference import bpe as reference
from ..support.training import scalar
from .hub_models import MODEL, Recipe, put_on_client, server_readable_folder

Connection = psycopg.Connection[Any]
STRINGS = int(os.environ.get("LLM_SQL_TEST_STRINGS", "200000"))
BATCH = 5000
ENCODE = """SELECT array_agg(to_jsonb(e.ids) ORDER BY e.number),
    array_agg(llm_decode(e.ids, %(model)s) ORDER BY e.number)
FROM llm_encode_documents(%(texts)s::text[], %(model)s) e"""


@pytest.fixture
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with vocab.json and merges.txt: GPT-2's own where they are at hand, else a small one."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    try:
        shared: Callable[[str], Path] = request.getfixturevalue("shared_data")
        sources = [shared("gpt2/vocab.json"), shared("gpt2/merges.txt")]
    except pytest.skip.Exception:
        sources = [reference.GOLDEN / "bpe_vocab.json", reference.GOLDEN / "bpe_merges.txt"]
    for source, name in zip(sources, ("vocab.json", "merges.txt"), strict=True):
        shutil.copyfile(source, folder / name)
    return folder


def test_two_hundred_thousand_strings(conn: Connection, files: Path) -> None:
    theirs = GPT2TokenizerFast.from_pretrained(str(files))
    tiktoken = reference.tiktoken_encoding(files / "vocab.json")
    vocab, merges = (files / "vocab.json").read_bytes(), (files / "merges.txt").read_bytes()
    assert scalar(conn, "SELECT llm_load_bpe('gpt2', %s, %s)", (vocab, merges)) == len(json.loads(vocab))
    hard = [text for text in reference.HARD if text]
    texts = itertools.chain(hard, reference.random_strings(20, STRINGS))
    count = 0
    while batch := [text for text in itertools.islice(texts, BATCH) if text]:
        row = conn.execute(ENCODE, {"model": "gpt2", "texts": batch}).fetchone()
        assert row is not None
        expected = theirs(batch)["input_ids"]
        if row[0] != expected:  # name the first string rather than show a list of thousands
            [(text, ids, other), *_] = [x for x in zip(batch, row[0], expected, strict=True) if x[1] != x[2]]
            assert ids == other, repr(text)
        assert row[0] == tiktoken.encode_ordinary_batch(batch)
        assert row[1] == batch
        count += len(batch)
    assert count > 0.98 * STRINGS


def test_a_hundred_kilobytes_without_a_space(conn: Connection, files: Path) -> None:
    theirs = GPT2TokenizerFast.from_pretrained(str(files))
    conn.execute(
        "SELECT llm_load_bpe('gpt2', %s, %s)",
        ((files / "vocab.json").read_bytes(), (files / "merges.txt").read_bytes()),
    )
    for text in (
        "a" * 100_000,
        "thequickbrownfox" * 6250,
        "日本語" * 11_111,
        "1234567890" * 10_000,
        "-=" * 50_000,
    ):
        ours = scalar(conn, "SELECT llm_encode(%s, 'gpt2', special => true)", (text,))
        assert ours == theirs(text)["input_ids"]


def test_special_tokens(conn: Connection, files: Path) -> None:
    """transformers takes <|endoftext|> in a text for the token, as llm_encode does when asked."""
    theirs = GPT2TokenizerFast.from_pretrained(str(files))
    conn.execute(
        "SELECT llm_load_bpe('gpt2', %s, %s)",
        ((files / "vocab.json").read_bytes(), (files / "merges.txt").read_bytes()),
    )
    for text in (
        reference.END,
        f"a {reference.END} b",
        f"{reference.END}{reference.END}\n",
        "<|endoftext| >",
    ):
        ours = scalar(conn, "SELECT llm_encode(%s, 'gpt2', special => true)", (text,))
        assert ours == theirs(text)["input_ids"]


def test_what_transformers_saves_comes_with_the_weights(
    conn: Connection, engine: Engine, files: Path
) -> None:
    """A model and its tokenizer, saved by save_pretrained and imported as one directory."""
    theirs = GPT2TokenizerFast.from_pretrained(str(files))
    recipe = Recipe("with a tokenizer", n_layer=1, n_embd=16, n_positions=64, vocab_size=len(theirs))
    with server_readable_folder() as folder:
        recipe.make().save_pretrained(folder)
        theirs.save_pretrained(folder)
        assert (folder / "tokenizer.json").exists()
        put_on_client(engine, folder)
    text = "The relational model, naïvely: 日本 42!\n\n  <|endoftext|>"
    with Session(engine) as session:
        ids = LanguageModel(session, MODEL).encode(text, special=True)
        assert ids == theirs(text)["input_ids"]
        assert LanguageModel(session, MODEL).decode(ids) == text
        assert isinstance(LanguageModel(session, MODEL).generate("The", max_tokens=3, seed=1), str)
