"""Tiny random BERTs, saved by transformers and sentence-transformers: hidden states, pooling, prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

import torch

from ..support.training import relative_error, scalar
from .encoders import Tiny, bring_in, embed_all, embed_one, settings_of, vocabulary

MODEL = "tiny"
CLOSE = 1e-5
Connection = psycopg.Connection[Any]

SHAPES = [
    Tiny("two layers"),
    Tiny("one head", num_hidden_layers=1, num_attention_heads=1, hidden_size=20, intermediate_size=7),
    Tiny("odd sizes", num_hidden_layers=3, num_attention_heads=7, hidden_size=77, intermediate_size=131,
         max_position_embeddings=53, max_tokens=41, std=0.1),
    Tiny("one type of token", type_vocab_size=1),
    Tiny("another eps", more={"layer_norm_eps": 1e-3}),
    Tiny("gelu_new", more={"hidden_act": "gelu_new"}),
    Tiny("relu", more={"hidden_act": "relu"}),
    Tiny("twelve layers", num_hidden_layers=12, num_attention_heads=4, hidden_size=48, std=0.1),
]  # fmt: skip
QUERY = "Represent this sentence for searching relevant passages: "
FORMS = [
    Tiny("as MiniLM", max_tokens=32),
    Tiny("as BGE", pooling="cls", prompts={"query": QUERY}),
    Tiny("as E5", prompts={"query": "query: ", "passage": "passage: "}, default_prompt="passage"),
    Tiny("not normalised", normalize=False),
    Tiny("CLS, not normalised", pooling="cls", normalize=False),
]
TEXTS = [
    "", " ", "a", "the number of rows", "TEXT, texting; texter!", "[CLS] the [MASK]", "unbekannt ÄÖÜ é",
    "x" * 101, "query " * 80, "1 2 3 4 5 6 7 8 9", "中文 the 😀", "passage: of passage",
]  # fmt: skip


@pytest.mark.parametrize("tiny", SHAPES, ids=str)
def test_hidden_states(conn: Connection, db_url: str, tmp_path: Path, tiny: Tiny) -> None:
    bert, _ = tiny.save(tmp_path / "saved")
    bring_in(db_url, tmp_path / "saved", MODEL)
    generator = torch.Generator().manual_seed(5)
    for shape in [(tiny.max_position_embeddings,), (3, 17), (1, 1)]:
        ids = torch.randint(0, len(vocabulary()), shape, generator=generator)
        with torch.no_grad():
            states = bert(ids.reshape(-1, shape[-1]), output_hidden_states=True).hidden_states
        for n_blocks, state in enumerate(states):
            ours = scalar(conn, "SELECT llm_hidden_bert(%s, %s::int[], %s)", (MODEL, ids.tolist(), n_blocks))
            assert ours.shape == (*shape, tiny.hidden_size)
            assert relative_error(ours, state.reshape(ours.shape).numpy()) <= 2e-5


@pytest.mark.parametrize("tiny", [*FORMS, *SHAPES[1:4]], ids=str)
def test_vectors(conn: Connection, db_url: str, tmp_path: Path, tiny: Tiny) -> None:
    _, sentences = tiny.save(tmp_path / "saved")
    bring_in(db_url, tmp_path / "saved", MODEL)
    for prompt in [None, *tiny.prompts]:
        theirs = np.asarray(sentences.encode(TEXTS, prompt_name=prompt), np.float32)
        ours = embed_all(conn, TEXTS, MODEL, prompt)
        scale = 1 if tiny.normalize else np.abs(theirs).max()
        assert np.abs(ours - theirs).max() <= CLOSE * scale, prompt
        for text, vector in zip(TEXTS, ours, strict=True):
            assert embed_one(conn, text, MODEL, prompt).tobytes() == vector.tobytes()
    if tiny.prompts:
        with pytest.raises(psycopg.Error, match="nobody") as error:
            embed_one(conn, "a", MODEL, "nobody")
        assert error.value.sqlstate == "22023"
        assert error.value.diag.message_hint


@pytest.mark.parametrize("tiny", FORMS, ids=str)
def test_settings_are_what_the_files_say(conn: Connection, db_url: str, tmp_path: Path, tiny: Tiny) -> None:
    tiny.save(tmp_path / "saved")
    bring_in(db_url, tmp_path / "saved", MODEL)
    settings = settings_of(conn, MODEL)
    assert settings.get("pooling", "mean") == tiny.pooling
    assert settings.get("normalize", True) == tiny.normalize
    assert (settings.get("max_tokens") or tiny.max_position_embeddings) == tiny.max_tokens
    assert {name: prompt for name, prompt in settings.get("prompts", {}).items() if prompt} == tiny.prompts
    assert settings.get("default_prompt") == tiny.default_prompt
