"""Models saved by transformers, loaded and exported: logits, losses and weights agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("safetensors")

import torch
from safetensors.torch import load_file, save_file
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from transformers import GPT2LMHeadModel

from llm_sql import LanguageModel, hub
from llm_sql.errors import LLMSQLError

from ..support.training import relative_error, scalar
from .hub_models import MODEL, RECIPES, Recipe, put_on_client, put_on_server, server_readable_folder

Connection = psycopg.Connection[Any]
Tensors = dict[str, torch.Tensor]
SMALL = Recipe("small", n_layer=2, n_head=2, n_embd=24, n_positions=48, vocab_size=61)


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_readable_folder() as folder:
        yield folder


def expected(
    model: GPT2LMHeadModel, length: int, seed: int = 3
) -> tuple[list[int], np.ndarray[Any, Any], float]:
    """Random tokens, the logits after each of them and the mean loss, by transformers in float32."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, model.config.vocab_size, (1, length), generator=generator)
    with torch.no_grad():
        out = model(ids, labels=ids)
    return ids[0].tolist(), out.logits[0].numpy(), float(out.loss)


def check(conn: Connection, model: GPT2LMHeadModel, name: str = MODEL) -> None:
    ids, logits, loss = expected(model, model.config.n_positions)
    assert relative_error(scalar(conn, "SELECT llm_logits(%s, %s)", (ids, name)), logits) <= 2e-5
    assert scalar(conn, "SELECT llm_loss(%s, %s, %s)", (name, ids[:-1], ids[1:])) == pytest.approx(
        loss, rel=1e-6
    )


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_logits_loss_and_export(
    conn: Connection, engine: Engine, folder: Path, recipe: Recipe, side: str
) -> None:
    model = recipe.make()
    model.save_pretrained(folder)
    count = put_on_client(engine, folder) if side == "client" else put_on_server(conn, engine, folder)
    assert count == model.num_parameters()
    check(conn, model)
    before = model.state_dict()
    path = folder / "model.safetensors"
    path.unlink()
    if side == "client":
        with Session(engine) as session:
            LanguageModel(session, MODEL).export_weights(path)
    else:
        conn.execute("SELECT pg_llm_export_safetensors(%s, %s)", (str(path), MODEL))
    after = GPT2LMHeadModel.from_pretrained(folder).state_dict()
    assert set(after) == set(before)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_a_directory_of_several_files(conn: Connection, engine: Engine, folder: Path) -> None:
    model = SMALL.make()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    assert not (folder / "model.safetensors").exists()
    put_on_client(engine, folder)
    check(conn, model)
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(LLMSQLError, match="model-00002"):
        put_on_client(engine, folder)
    check(conn, model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(conn: Connection, engine: Engine, folder: Path, dtype: torch.dtype) -> None:
    """What is loaded is what the file says, as float32."""
    model = SMALL.make().to(dtype)
    model.save_pretrained(folder)
    put_on_client(engine, folder)
    check(conn, model.float())


def test_a_head_of_its_own(conn: Connection, engine: Engine, folder: Path) -> None:
    recipe = Recipe("untied", n_embd=24, n_positions=48, vocab_size=61, more={"tie_word_embeddings": False})
    model = recipe.make()
    assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    model.save_pretrained(folder)
    put_on_client(engine, folder)
    check(conn, model)
    (folder / "model.safetensors").unlink()
    with Session(engine) as session:
        LanguageModel(session, MODEL).export_weights(folder / "model.safetensors")
    back = GPT2LMHeadModel.from_pretrained(folder)
    assert torch.equal(back.lm_head.weight, model.lm_head.weight)
    assert torch.equal(back.transformer.wte.weight, model.transformer.wte.weight)


def test_a_head_that_is_the_embedding(conn: Connection, engine: Engine, folder: Path) -> None:
    """Some files spell the tied head out."""
    model = SMALL.make()
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}, path)
    put_on_client(engine, folder)
    assert scalar(conn, "SELECT tied FROM llm_model_config WHERE model = %s", (MODEL,))
    check(conn, model)


# ---- other names for the same weights ----


def megatron(tensors: Tensors, n_head: int, version: float) -> Tensors:
    """As Megatron-LM saves them: linear weights [out, in], queries, keys and values fused per head."""
    renamed: Tensors = {}
    parts = {
        "ln_1": "input_layernorm", "ln_2": "post_attention_layernorm",
        "attn.c_attn": "attention.query_key_value", "attn.c_proj": "attention.dense",
        "mlp.c_fc": "mlp.dense_h_to_4h", "mlp.c_proj": "mlp.dense_4h_to_h",
    }  # fmt: skip
    for name, tensor in tensors.items():
        short = name.removeprefix("transformer.")
        block, _, rest = short.removeprefix("h.").partition(".")
        part, _, kind = rest.rpartition(".")
        if not short.startswith("h."):
            outer = {
                "wte": "word_embeddings",
                "wpe": "position_embeddings",
                "ln_f": "transformer.final_layernorm",
            }
            stem, _, kind = short.partition(".")
            where = "embedding." if stem in ("wte", "wpe") else ""
            renamed[f"model.language_model.{where}{outer[stem]}.{kind}"] = tensor
            continue
        if tensor.ndim == 2:
            tensor = tensor.T
        if part == "attn.c_attn":
            # [3, heads, d_head, ...] becomes heads x 3 x d_head, in version 1.0 heads x d_head x 3.
            split = tensor.reshape(3, n_head, -1, *tensor.shape[1:])
            order = (1, 0, 2) if version >= 2 else (1, 2, 0)
            tensor = split.permute(*order, *range(3, split.ndim)).reshape(tensor.shape)
        renamed[f"model.language_model.transformer.layers.{block}.{parts[part]}.{kind}"] = tensor.contiguous()
    pad = torch.full((27, tensors["transformer.wte.weight"].shape[1]), 9.0)
    words = "model.language_model.embedding.word_embeddings.weight"
    return renamed | {words: torch.cat([renamed[words], pad])}


def split(tensors: Tensors) -> Tensors:
    """Blocks called layers.N with a projection each for queries, keys and values, as nn.Linear keeps them."""
    renamed: Tensors = {}
    names = {"attn.c_proj": "attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for name, tensor in tensors.items():
        short = name.removeprefix("transformer.").replace("h.", "layers.", 1)
        if ".c_attn." in short:
            for letter, third in zip("qkv", tensor.chunk(3, dim=-1), strict=True):
                renamed[short.replace("c_attn", f"{letter}_proj")] = (
                    third.mT.contiguous() if third.ndim == 2 else third
                )
            continue
        for theirs, other in names.items():
            if f".{theirs}." in short:
                short = short.replace(theirs, other)
                tensor = tensor.T.contiguous()
        renamed[short] = tensor
    return renamed


@pytest.mark.parametrize("layout", ["megatron 1.0", "megatron 2.0", "split"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_other_layouts(conn: Connection, engine: Engine, folder: Path, layout: str, side: str) -> None:
    model = Recipe("of blocks", n_head=4, n_embd=24, n_positions=48, vocab_size=61).make()
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    version = float(layout.split()[1]) if layout.startswith("megatron") else None
    tensors = load_file(path)
    save_file(split(tensors) if version is None else megatron(tensors, 4, version), path)
    path.chmod(0o644)
    with Session(engine) as session, session.begin():
        hub.ensure_config(session.connection(), MODEL, hub.read_config(folder))
        if side == "client":
            LanguageModel(session, MODEL).import_weights(folder, megatron_version=version)
    if side == "server":
        conn.execute("SELECT pg_llm_import_safetensors(%s, %s, %s)", (str(path), MODEL, version))
    check(conn, model)
    if version is not None:  # the other order loads as well, and is another model
        conn.execute("SELECT pg_llm_import_safetensors(%s, %s, %s)", (str(path), MODEL, 3 - version))
        ids, logits, _ = expected(model, 20)
        assert relative_error(scalar(conn, "SELECT llm_logits(%s, %s)", (ids, MODEL)), logits) > 1e-2


# ---- configurations of the hub ----

# distilgpt2's config.json as it was uploaded, reduced to a width for tests.
DISTILGPT2 = {
    "_num_labels": 1, "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1, "bos_token_id": 60, "embd_pdrop": 0.1, "eos_token_id": 60,
    "id2label": {"0": "LABEL_0"}, "initializer_range": 0.02,
    "label2id": {"LABEL_0": 0}, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
    "n_ctx": 48, "n_embd": 24, "n_head": 12, "n_layer": 6, "n_positions": 48, "resid_pdrop": 0.1,
    "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 61,
}  # fmt: skip


def test_distilgpt2s_configuration(conn: Connection, engine: Engine, folder: Path) -> None:
    """It says neither n_inner nor tie_word_embeddings, and more than is needed."""
    model = Recipe("distil", n_layer=6, n_head=12, n_embd=24, n_positions=48, vocab_size=61).make()
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(DISTILGPT2))
    put_on_client(engine, folder)
    row = conn.execute(
        "SELECT n_layer, n_head, d_model, n_positions, vocab, tied FROM llm_model_config WHERE model = %s",
        (MODEL,),
    ).fetchone()
    assert row == (6, 12, 24, 48, 61, True)
    check(conn, model)


# Cerebras-GPT 111M's config.json, reduced to a width for tests.
CEREBRAS = {
    "_name_or_path": "", "activation_function": "gelu", "architectures": ["GPT2Model"], "attn_pdrop": 0.0,
    "bos_token_id": 60, "embd_pdrop": 0.0, "eos_token_id": 60, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_embd": 24, "n_head": 12, "n_inner": 96,
    "n_layer": 10, "n_positions": 2048, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0,
    "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "use_cache": True, "vocab_size": 61,
}  # fmt: skip


def test_cerebras_gpts_configuration(conn: Connection, engine: Engine, folder: Path) -> None:
    """The exact GELU, 2048 positions; the tanh form would be told apart."""
    more = {"activation_function": "gelu", "n_inner": 96}
    model = Recipe("cerebras", 10, 12, 24, 2048, 61, std=0.3, more=more).make()
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CEREBRAS))
    put_on_client(engine, folder)
    ids, logits, _ = expected(model, 300)
    query = "SELECT llm_logits(%s, %s)"
    assert relative_error(scalar(conn, query, (ids, MODEL)), logits) <= 2e-5
    config = json.dumps(CEREBRAS | {"activation_function": "gelu_new"})
    (folder / "config.json").write_text(config)
    put_on_client(engine, folder, "other")
    assert relative_error(scalar(conn, query, (ids, "other")), logits) > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "mish"}, "mish"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"scale_attn_weights": False}, "scale_attn_weights"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"model_type": "gpt_neo"}, "gpt_neo"),
        ({"n_layer": 3}, "lacks tensors"),
        ({"n_layer": 1}, "does not"),
        ({"vocab_size": 60}, r"\[61, 24\]"),
        ({"n_head": 5}, "d_model"),
        ({"n_embd": "wide"}, "has 'wide' for n_embd"),
        ({"n_layer": True}, "has True for n_layer"),
    ],
)
def test_what_is_computed_otherwise_is_refused(
    conn: Connection, engine: Engine, folder: Path, change: dict[str, Any], message: str
) -> None:
    SMALL.make().save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Exception, match=message):
        put_on_client(engine, folder)
    assert scalar(conn, "SELECT count(*) FROM llm_param WHERE model = %s", (MODEL,)) == 0
    assert scalar(conn, "SELECT count(*) FROM llm_model_config WHERE model = %s", (MODEL,)) == 0
