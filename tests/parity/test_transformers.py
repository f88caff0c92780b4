"""The database against transformers with the same weights: beam search, hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from ..support.training import put_model, relative_error, scalar
from . import torch_gpt2
from .torch_gpt2 import Shape

SHAPES = [
    Shape(n_layer=2, n_head=3, d_model=48, n_positions=64, vocab=97),
    Shape(n_layer=3, n_head=4, d_model=64, n_positions=40, vocab=40),
]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> Shape:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def model(conn: psycopg.Connection[Any], shape: Shape) -> Any:
    """A random model in both places; its tokens are characters, the last one the end."""
    model = torch_gpt2.make(shape, seed=11)
    put(conn, model, shape)
    return model


def put(conn: psycopg.Connection[Any], model: Any, shape: Shape) -> None:
    sizes = (shape.n_layer, shape.n_head, shape.d_model, shape.n_positions, shape.vocab)
    put_model(conn, "parity", sizes, torch_gpt2.parameters(model))
    characters = "".join(chr(0x4E00 + i) for i in range(shape.vocab - 1))
    scalar(conn, "SELECT llm_build_char_tokenizer('parity', %s)", (f"SELECT '{characters}'",))


@pytest.fixture
def decided(conn: psycopg.Connection[Any], shape: Shape) -> Any:
    """As `model`, with predictions that differ enough to be told apart."""
    model = torch_gpt2.make(shape, seed=11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    put(conn, model, shape)
    return model


@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize(("penalty", "early"), [(1.0, False), (0.0, False), (2.0, False), (1.0, True)])
def test_beam_search(
    conn: psycopg.Connection[Any], decided: Any, shape: Shape, width: int, penalty: float, early: bool
) -> None:
    for seed in range(4):
        prompt = np.random.default_rng(seed).integers(0, shape.vocab - 1, 5).tolist()
        out = decided.generate(
            torch.tensor([prompt]), num_beams=width, num_return_sequences=width, max_new_tokens=20,
            do_sample=False, length_penalty=penalty, early_stopping=early, eos_token_id=shape.vocab - 1,
            pad_token_id=shape.vocab - 1, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        rows = conn.execute(
            "SELECT token_ids, score FROM llm_beam_search(llm_decode(%s, 'parity'), %s, 20, 'parity',"
            " length_penalty => %s, early_stopping => %s) ORDER BY rank",
            (prompt, width, penalty, early),
        ).fetchall()
        expected = [_until_end(ids[5:].tolist(), shape.vocab - 1) for ids in out.sequences]
        assert [row[0] for row in rows] == expected
        if width > 1:
            np.testing.assert_allclose([row[1] for row in rows], out.sequences_scores.numpy(), rtol=2e-5)


def test_hidden_states(conn: psycopg.Connection[Any], model: Any, shape: Shape) -> None:
    tokens, _ = torch_gpt2.batch(shape, rows=2, length=shape.n_positions, seed=3)
    with torch.no_grad():
        out = model.transformer(torch.from_numpy(tokens).long(), output_hidden_states=True)
    for layer, expected in enumerate(out.hidden_states):
        states = scalar(conn, "SELECT llm_hidden('parity', %s, %s)", (tokens.tolist(), layer))
        assert relative_error(states, expected.numpy()) < 2e-6
    text = "SELECT llm_embed_text(llm_decode(%s, 'parity'), 'parity', pooling => %s)"
    ids = [int(token) % (shape.vocab - 1) for token in tokens[0]]
    with torch.no_grad():
        last = model.transformer(torch.tensor([ids])).last_hidden_state[0].numpy()
    assert relative_error(scalar(conn, text, (ids, "none")), last) < 2e-6
    assert relative_error(scalar(conn, text, (ids, "last")), last[-1]) < 2e-6
    assert relative_error(scalar(conn, text, (ids, "mean")), last.mean(0)) < 2e-6


def _until_end(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids
