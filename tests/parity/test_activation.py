"""The activations that a configuration can name, against transformers: logits and loss."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("safetensors")

import torch
from sqlalchemy import Engine

from ..support.training import relative_error, scalar
from .hub_models import MODEL, Recipe, put_on_client, server_readable_folder

NAMES = ["gelu", "gelu_python", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu"]


@pytest.mark.parametrize("name", NAMES)
def test_like_transformers(conn: psycopg.Connection[Any], engine: Engine, name: str) -> None:
    """Weights so large that another activation shows: its logits are further off than 2e-5."""
    model = Recipe(name, n_positions=64, std=0.3, more={"activation_function": name}).make()
    ids = torch.randint(0, model.config.vocab_size, (1, 64), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        out = model(ids, labels=ids)
    with server_readable_folder() as folder:
        model.save_pretrained(folder)
        put_on_client(engine, folder)
        put_on_client(engine, folder)  # what is registered agrees with the file
    tokens = ids[0].tolist()
    logits = scalar(conn, "SELECT llm_logits(%s, %s)", (tokens, MODEL))
    assert relative_error(logits, out.logits[0].numpy()) <= 2e-5
    loss = scalar(conn, "SELECT llm_loss(%s, %s, %s)", (MODEL, tokens[:-1], tokens[1:]))
    assert loss == pytest.approx(float(out.loss), rel=1e-6)
    assert scalar(conn, "SELECT activation_function FROM llm_model_config WHERE model = %s", (MODEL,)) == name
    other = "gelu_new" if name in ("gelu", "gelu_python") else "gelu"
    conn.execute("UPDATE llm_model_config SET activation_function = %s WHERE model = %s", (other, MODEL))
    logits = scalar(conn, "SELECT llm_logits(%s, %s)", (tokens, MODEL))
    assert relative_error(logits, out.logits[0].numpy()) > 2e-5
