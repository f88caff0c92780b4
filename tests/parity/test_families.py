"""Decoders of Hugging Face's types against transformers: logits, gradients, greedy tokens, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from llm_sql.cli import app

from ..support.training import gradients, relative_error, scalar
from .families import FAMILIES, MODEL, VOCAB, Family, as_ours, bring_in
from .hub_models import as_text, give_characters

Connection = psycopg.Connection[Any]
N_TOKENS = 20


@pytest.fixture(params=FAMILIES, ids=str)
def model(request: pytest.FixtureRequest, conn: Connection, db_url: str, tmp_path: Path) -> Any:
    family: Family = request.param
    model = family.make()
    model.save_pretrained(tmp_path / "saved")
    bring_in(db_url, tmp_path / "saved")
    return model


def tokens_of(shape: tuple[int, ...], seed: int = 3) -> torch.Tensor:
    return torch.randint(0, VOCAB - 1, shape, generator=torch.Generator().manual_seed(seed))


def test_logits_and_gradients(conn: Connection, model: Any) -> None:
    for shape in [(2, 31), (1, 1), (1, model.config.max_position_embeddings)]:
        ids = tokens_of(shape)
        with torch.no_grad():
            expected = model(ids).logits.numpy()
        assert (
            relative_error(scalar(conn, "SELECT llm_logits(%s, %s)", (ids.tolist(), MODEL)), expected) <= 2e-5
        )
    ids = tokens_of((3, 24), seed=5)
    loss = torch.nn.functional.cross_entropy(
        model(ids[:, :-1]).logits.reshape(-1, VOCAB), ids[:, 1:].reshape(-1)
    )
    loss.backward()
    theirs = {name: p.grad.numpy() for name, p in model.named_parameters()}
    expected = as_ours(conn, theirs, model.config.num_attention_heads)
    found, grads = gradients(conn, MODEL, ids[:, :-1].numpy(), ids[:, 1:].numpy())
    assert found == pytest.approx(loss.item(), rel=1e-6)
    assert set(grads) == set(expected)
    # Without rotary positions a bias of keys moves all scores of a query alike: its gradient is rounding.
    rounding = {name for name, value in expected.items() if np.linalg.norm(value) < 1e-5}
    assert all(name.endswith("k_proj.bias") for name in rounding), rounding
    assert all(np.linalg.norm(grads[name]) < 1e-5 for name in rounding)
    errors = {name: relative_error(grads[name], expected[name]) for name in expected.keys() - rounding}
    assert max(errors.values()) < 1e-4, errors


def continued(model: Any, prompt: list[int]) -> list[int]:
    """By transformers, greedily, up to the end token."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=N_TOKENS, do_sample=False, pad_token_id=VOCAB - 1,
        )  # fmt: skip
    ids: list[int] = out[0, len(prompt) :].tolist()
    return ids


def test_greedy_tokens(conn: Connection, model: Any) -> None:
    """With the cache, and as the most likely ones of whole passes."""
    give_characters(conn, VOCAB, MODEL)
    # The first that the model goes on with for so long.
    prompts = (tokens_of((6,), seed).tolist() for seed in range(20))
    prompt, expected = next(
        (prompt, ids) for prompt in prompts if len(ids := continued(model, prompt)) == N_TOKENS
    )
    rows = conn.execute(
        "SELECT token_id FROM llm_generate_stream(%s, %s, 0, model => %s)", (as_text(prompt), N_TOKENS, MODEL)
    ).fetchall()
    written = prompt + [row[0] for row in rows]
    assert written[len(prompt) :] == expected
    assert len(set(expected)) > 1
    for end in range(len(prompt), len(written)):
        logits = scalar(conn, "SELECT llm_logits(%s, %s)", (written[:end], MODEL))
        assert int(np.argmax(logits[-1])) == written[end]


def test_there_and_back(conn: Connection, db_url: str, model: Any, tmp_path: Path) -> None:
    """transformers loads what is exported, and it is what was imported."""
    target = tmp_path / "sent"
    result = CliRunner().invoke(app, ["export", str(target), "--model", MODEL, "--url", db_url])
    assert result.exit_code == 0, result.output
    back = AutoModelForCausalLM.from_pretrained(target, attn_implementation="eager").eval()
    assert type(back) is type(model) or type(model).__name__ == "MistralForCausalLM"
    before, after = model.state_dict(), back.state_dict()
    assert set(before) == set(after)
    for name, tensor in before.items():
        rows = slice(2, None) if name.endswith("embed_positions.weight") else slice(None)
        assert torch.equal(tensor[rows], after[name][rows]), name
    ids = tokens_of((2, 40))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, back(ids).logits)
