"""The contrastive loss and its gradients against autograd, on a tiny random BERT of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import BertConfig, BertModel

from ..support.encoder_pairs import make_bert
from ..support.small_models import train
from ..support.training import gradients, losses_of_run, relative_error

Connection = psycopg.Connection[Any]
Rows = list[list[list[int]]]

VOCAB, N_POSITIONS, D_MODEL, N_LAYER, N_HEAD = 97, 24, 48, 2, 3
LINEAR = {
    "attention.self.query": "attn.q_proj",
    "attention.self.key": "attn.k_proj",
    "attention.self.value": "attn.v_proj",
    "attention.output.dense": "attn.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
NORMS = {"attention.output.LayerNorm": "ln_1", "output.LayerNorm": "ln_2"}
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "wte.weight",
    "embeddings.position_embeddings.weight": "wpe.weight",
    "embeddings.token_type_embeddings.weight": "wtt.weight",
    "embeddings.LayerNorm.weight": "ln_embd.weight",
    "embeddings.LayerNorm.bias": "ln_embd.bias",
}


def our_name(name: str) -> tuple[str, bool]:
    """A parameter's name in the database, and whether it is transposed there."""
    if name in EMBEDDINGS:
        return EMBEDDINGS[name], False
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    if part in NORMS:
        return f"h.{layer}.{NORMS[part]}.{kind}", False
    return f"h.{layer}.{LINEAR[part]}.{kind}", kind == "weight"


def ours(name: str, value: torch.Tensor) -> tuple[str, np.ndarray[Any, Any]]:
    named, is_transposed = our_name(name)
    array = value.detach().numpy()
    return named, np.ascontiguousarray(array.T if is_transposed else array)


@pytest.fixture(scope="module")
def bert() -> BertModel:
    torch.manual_seed(5)
    model = BertModel(
        BertConfig(
            vocab_size=VOCAB, hidden_size=D_MODEL, num_hidden_layers=N_LAYER, num_attention_heads=N_HEAD,
            intermediate_size=4 * D_MODEL, max_position_embeddings=N_POSITIONS, hidden_dropout_prob=0,
            attention_probs_dropout_prob=0, initializer_range=0.1,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    # Gains and biases are ones and zeros at first, which would hide a mistake.
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.train()


@pytest.fixture(params=["mean", "cls"])
def pooling(conn: Connection, bert: BertModel, request: pytest.FixtureRequest) -> str:
    settings = f'{{"pooling": "{request.param}", "temperature": 0.1}}'
    make_bert(
        conn,
        vocab=VOCAB,
        d_model=D_MODEL,
        n_layer=N_LAYER,
        n_head=N_HEAD,
        n_positions=N_POSITIONS,
        settings=settings,
    )
    for name, value in bert.named_parameters():
        changed = conn.execute(
            "UPDATE llm_param SET data = %s WHERE model = 'bert' AND name = %s", ours(name, value)[::-1]
        )
        assert changed.rowcount == 1, name
    return str(request.param)


def some_rows(seed: int, n: int, negatives: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    return [
        # Not 0: to transformers that is padding, whose embedding has no gradient.
        [rng.integers(1, VOCAB, rng.integers(1, N_POSITIONS + 1)).tolist() for _ in range(2 + negatives)]
        for _ in range(n)
    ]


def packed(rows: Rows) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    width = max(sum(map(len, row)) for row in rows)
    tokens, targets = np.zeros((len(rows), width), np.int64), np.full((len(rows), width), -1)
    for i, row in enumerate(rows):
        ids = [id_ for sequence in row for id_ in sequence]
        tokens[i, : len(ids)] = ids
        targets[i, : len(ids)] = [n for n, sequence in enumerate(row) for _ in sequence]
    return tokens, targets


def reference_loss(bert: BertModel, rows: Rows, pooling: str) -> torch.Tensor:
    """Every sequence in a pass of its own, so that no mask can be wrong."""

    def embedded(ids: list[int]) -> torch.Tensor:
        states = bert(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return torch.nn.functional.normalize(states.mean(0) if pooling == "mean" else states[0], dim=0)

    anchors = torch.stack([embedded(row[0]) for row in rows])
    texts = [row[1] for row in rows] + [text for row in rows for text in row[2:]]
    candidates = torch.stack([embedded(text) for text in texts])
    return torch.nn.functional.cross_entropy(anchors @ candidates.T / 0.1, torch.arange(len(rows)))


@pytest.mark.parametrize("negatives", [0, 2])
def test_loss_and_gradients(conn: Connection, bert: BertModel, pooling: str, negatives: int) -> None:
    rows = some_rows(11, 5, negatives)
    bert.zero_grad()
    expected_loss = reference_loss(bert, rows, pooling)
    expected_loss.backward()
    loss, grads = gradients(conn, "bert", *packed(rows))
    assert loss == pytest.approx(expected_loss.item(), rel=2e-6)
    expected = dict(ours(name, p.grad) for name, p in bert.named_parameters() if p.grad is not None)
    assert set(grads) == set(expected)
    # Keys are compared up to a constant, so the gradient of their bias is zero but for rounding.
    scale = max(float(np.linalg.norm(g)) for g in expected.values())
    for name, grad in expected.items():
        if name.endswith("k_proj.bias"):
            assert np.linalg.norm(grads[name]) < 1e-5 * scale, name
        else:
            assert relative_error(grads[name], grad) < 2e-5, name


def test_twenty_steps(conn: Connection, bert: BertModel, pooling: str) -> None:
    """AdamW from the same weights over the same batches follows PyTorch's losses."""
    rows = some_rows(12, 12)
    for row in rows:
        tokens, targets = packed([row])
        conn.execute(
            "INSERT INTO llm_dataset (model, tokens, target) VALUES ('bert', %s, %s)",
            (tokens[0].tolist(), targets[0].tolist()),
        )
    stored = {name: value.detach().clone() for name, value in bert.named_parameters()}
    optimizer = torch.optim.AdamW(bert.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    expected = []
    for step in range(20):
        optimizer.zero_grad()
        first = step * 4 % 12
        loss = reference_loss(bert, rows[first : first + 4], pooling)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    with torch.no_grad():
        for name, value in bert.named_parameters():
            value.copy_(stored[name])
    run = train(
        conn,
        "bert",
        20,
        batch_size=4,
        data_order="by_id",
        dropout_p=0,
        lr_max=1e-3,
        schedule="constant",
        warmup=0,
    )
    np.testing.assert_allclose(losses_of_run(conn, run), expected, rtol=2e-3, atol=1e-5)
