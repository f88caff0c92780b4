"""Random GPT-2s that transformers saves as directories of the hub, and the ways they get into a database."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import torch
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from transformers import GPT2Config, GPT2LMHeadModel

from llm_sql import LanguageModel, hub

MODEL = "from-hub"
# Threads that wait for each other cost more than they bring at these sizes.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Recipe:
    """A configuration of transformers, by its own names; `std` is how far the weights are from nothing."""

    name: str
    n_layer: int = 2
    n_head: int = 2
    n_embd: int = 32
    n_positions: int = 256
    vocab_size: int = 101
    std: float = 0.2
    more: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.name

    def make(self, seed: int = 1) -> GPT2LMHeadModel:
        """Without dropout, every parameter away from its initial value, so that none can be mixed up."""
        torch.manual_seed(seed)
        sizes = {
            name: getattr(self, name) for name in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
        }
        end = self.vocab_size - 1
        config = GPT2Config(**sizes, bos_token_id=end, eos_token_id=end, **self.more)
        config._attn_implementation = "eager"
        model = GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.randn_like(parameter) * self.std)
                if "ln_" in name and name.endswith("weight"):
                    parameter.add_(1.0)
        return model


RECIPES = [
    Recipe("two layers"),
    Recipe("one head", n_layer=1, n_head=1, n_embd=20, vocab_size=300),
    Recipe("odd sizes", n_layer=3, n_head=7, n_embd=77, n_positions=223, vocab_size=131, std=0.1),
    Recipe("wide inside", n_head=4, n_embd=48, std=0.15, more={"n_inner": 100, "layer_norm_epsilon": 1e-3}),
    Recipe("six layers, as distilgpt2", n_layer=6, n_head=12, n_embd=96, vocab_size=997, std=0.1),
    Recipe("gelu_pytorch_tanh", std=0.3, more={"activation_function": "gelu_pytorch_tanh"}),
    Recipe("exact gelu", std=0.3, more={"activation_function": "gelu"}),
    Recipe("relu", std=0.3, more={"activation_function": "relu"}),
]


@contextmanager
def server_readable_folder() -> Iterator[Path]:
    """A directory that the server's account can read and write, too."""
    folder = Path(tempfile.mkdtemp(prefix="llm-sql-hub-", dir="/tmp"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def put_on_client(engine: Engine, folder: Path, model: str = MODEL) -> int:
    """What `llm-sql import DIRECTORY` does: register by config.json, then send the weights."""
    with Session(engine) as session, session.begin():
        hub.ensure_config(session.connection(), model, hub.read_config(folder))
        return LanguageModel(session, model).import_weights(folder)


def put_on_server(conn: psycopg.Connection[Any], engine: Engine, folder: Path, model: str = MODEL) -> int:
    """The file read by the server itself."""
    with Session(engine) as session, session.begin():
        hub.ensure_config(session.connection(), model, hub.read_config(folder))
    path = folder / "model.safetensors"
    path.chmod(0o644)
    row = conn.execute("SELECT pg_llm_import_safetensors(%s, %s)", (str(path), model)).fetchone()
    assert row is not None
    return int(row[0])


def give_characters(conn: psycopg.Connection[Any], vocab: int, model: str = MODEL) -> None:
    """Tokens 0 ... vocab - 2 are characters from U+4E00 on, the last one ends a text."""
    characters = "".join(chr(0x4E00 + i) for i in range(vocab - 1))
    conn.execute("SELECT llm_build_char_tokenizer(%s, %s)", (model, f"SELECT '{characters}'"))


def as_text(ids: list[int]) -> str:
    """The text of character tokens."""
    return "".join(chr(0x4E00 + i) for i in ids)
