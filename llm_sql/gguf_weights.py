"""The tensors of a GGUF file under Hugging Face's names, in Hugging Face's order of rows, as float32.

One tensor, or some rows of it, is read and taken out of its blocks at a time. The gguf library does that.
llama.cpp reorders some matrices; here that is undone: the rows of `llama`'s queries and keys, which it turns
in neighbouring pairs, GPT-NeoX's fused queries, keys and values, and GPT-2's layers, which it transposes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.gguf_header import Entry, Header, library

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Order = Callable[[Indices], Indices]
"""For rows as Hugging Face has them, where they are in the file."""


class Part(NamedTuple):
    """A tensor that is expected: its names in both worlds, its shape in the file, and how it is reordered."""

    name: str
    theirs: str
    shape: tuple[int, ...]
    order: Order | None = None
    transposed: bool = False


class Held(NamedTuple):
    """A tensor that is there."""

    entry: Entry
    order: Order | None
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape[::-1] if self.transposed else self.entry.shape


class GGUFSource:
    """The tensors of a file as an import reads them (weights.Tensors)."""

    def __init__(self, header: Header, config: dict[str, Any]) -> None:
        self.path = header.path
        self._held = _arranged(header, config)
        self.tensors = [(name, _dtype(held.entry), held.shape) for name, held in self._held.items()]
        self._whole: tuple[str, Floats] | None = None
        self._gguf = library()
        self._file: BinaryIO | None = None

    def close(self) -> None:
        """Let the file go; it is opened again when a tensor is read."""
        self._whole = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, name: str, first_row: int = 0, rows: int | None = None) -> Floats:
        """A tensor, or some of its rows, as float32."""
        held = self._held[name]
        last = held.shape[0] if rows is None else first_row + rows
        if held.transposed:
            if self._whole is None or self._whole[0] != name:
                self._whole = name, np.ascontiguousarray(self._rows(held.entry, 0, held.entry.shape[0]).T)
            return self._whole[1][first_row:last]
        if held.order is None:
            return self._rows(held.entry, first_row, last)
        places = held.order(np.arange(first_row, last))
        start = int(places.min())
        return self._rows(held.entry, start, int(places.max()) + 1, places - start)

    def _rows(self, entry: Entry, first: int, last: int, chosen: Indices | None = None) -> Floats:
        """Rows of the file from the first to before the last one, of these the chosen ones."""
        if len(entry.shape) == 1:
            # A vector is one row of numbers, each of which is a row to those who read it.
            values = self._floats(entry, self._bytes(entry, 0, entry.row_bytes))[0, first:last]
            return np.ascontiguousarray(values if chosen is None else values[chosen])
        each = math.prod(entry.shape[1:-1]) * entry.row_bytes
        blocks = self._bytes(entry, first * each, (last - first) * each).reshape(last - first, each)
        if chosen is not None:
            blocks = blocks[chosen]
        return self._floats(entry, blocks).reshape(len(blocks), *entry.shape[1:])

    def _bytes(self, entry: Entry, start: int, n: int) -> NDArray[np.uint8]:
        try:
            if self._file is None:
                self._file = self.path.open("rb", buffering=0)
            found = os.pread(self._file.fileno(), n, entry.offset + start)
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror}") from error
        if len(found) != n:
            raise LLMSQLError(f"{self.path} has become shorter while it was read")
        return np.frombuffer(found, np.uint8)

    def _floats(self, entry: Entry, blocks: NDArray[np.uint8]) -> Floats:
        rows = blocks.reshape(-1, entry.row_bytes)
        if entry.type == "F32":
            return rows.view("<f4").astype(np.float32)
        # A damaged file may hold infinite scales; whoever stores the numbers refuses what comes of them.
        with np.errstate(all="ignore"):
            if entry.type == "F16":
                return rows.view("<f2").astype(np.float32)
            if entry.type == "BF16":
                return (rows.view("<u2").astype(np.uint32) << 16).view(np.float32)
            type_ = self._gguf.GGMLQuantizationType[entry.type]
            return np.asarray(self._gguf.dequantize(rows, type_), np.float32)


def _dtype(entry: Entry) -> str:
    """As safetensors calls it: what has been quantized becomes float32."""
    return entry.type if entry.type in ("F16", "BF16") else "F32"


def _arranged(header: Header, config: dict[str, Any]) -> dict[str, Held]:
    """The file's tensors by Hugging Face's names, in the order of the file."""
    parts = {part.name: part for part in _PARTS[config["model_type"]](header, config)}
    for name, part in parts.items():
        entry = header.tensors.get(name)
        if entry is None:
            raise LLMSQLError(f"{header.path} is refused: it lacks the tensor {name}")
        if entry.shape != part.shape:
            raise LLMSQLError(
                f"{header.path} is refused: tensor {name} has the shape {list(entry.shape)},"
                f" its metadata says {list(part.shape)}"
            )
    held = {}
    for name, entry in header.tensors.items():
        if name in parts:
            part = parts[name]
            held[part.theirs] = Held(entry, part.order, part.transposed)
        elif name != "rope_freqs.weight":  # gguf_config.py has read it
            raise LLMSQLError(f'{header.path} has the tensor "{name[:100]}", which is not supported')
    return held


def _half_split(heads: int, width: int) -> Order:
    """The rows of each head of `llama`: in the file number i of both halves are neighbours."""

    def order(rows: Indices) -> Indices:
        head, row = np.divmod(rows, width)
        half, i = np.divmod(row, width // 2)
        return np.asarray(head * width + 2 * i + half)

    return order


def _head_by_head(heads: int, width: int) -> Order:
    """GPT-NeoX's fused rows are [head, q k v, width], in the file [q k v, head, width]."""

    def order(rows: Indices) -> Indices:
        head, row = np.divmod(rows, 3 * width)
        which, i = np.divmod(row, width)
        return np.asarray((which * heads + head) * width + i)

    return order


def _llama_parts(header: Header, config: dict[str, Any]) -> Iterator[Part]:
    d_model, d_ff, d_head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    permuted = config["model_type"] in ("llama", "mistral")
    if permuted and d_head % 2:
        raise LLMSQLError(f"{header.path} is refused: its heads are {d_head} wide, which is odd")
    q_order = _half_split(heads, d_head) if permuted else None
    k_order = _half_split(kv_heads, d_head) if permuted else None
    qkv_bias = config.get("attention_bias", config["model_type"] == "qwen2")
    o_bias, mlp_bias = config.get("attention_bias", False), config.get("mlp_bias", False)
    linear = [
        ("attn_q", "self_attn.q_proj", heads * d_head, d_model, q_order, qkv_bias),
        ("attn_k", "self_attn.k_proj", kv_heads * d_head, d_model, k_order, qkv_bias),
        ("attn_v", "self_attn.v_proj", kv_heads * d_head, d_model, None, qkv_bias),
        ("attn_output", "self_attn.o_proj", d_model, heads * d_head, None, o_bias),
        ("ffn_gate", "mlp.gate_proj", d_ff, d_model, None, mlp_bias),
        ("ffn_up", "mlp.up_proj", d_ff, d_model, None, mlp_bias),
        ("ffn_down", "mlp.down_proj", d_model, d_ff, None, mlp_bias),
    ]
    norms = [("attn_norm", "input_layernorm", d_model), ("ffn_norm", "post_attention_layernorm", d_model)]
    if config["model_type"] == "qwen3":
        norms += [("attn_q_norm", "self_attn.q_norm", d_head), ("attn_k_norm", "self_attn.k_norm", d_head)]
    yield Part("token_embd.weight", "model.embed_tokens.weight", (config["vocab_size"], d_model))
    yield Part("output_norm.weight", "model.norm.weight", (d_model,))
    if not config["tie_word_embeddings"]:
        yield Part("output.weight", "lm_head.weight", (config["vocab_size"], d_model))
    for n in range(config["num_hidden_layers"]):
        for ours, theirs, rows, columns, order, has_bias in linear:
            yield Part(f"blk.{n}.{ours}.weight", f"model.layers.{n}.{theirs}.weight", (rows, columns), order)
            if has_bias:
                yield Part(f"blk.{n}.{ours}.bias", f"model.layers.{n}.{theirs}.bias", (rows,), order)
        for ours, theirs, size in norms:
            yield Part(f"blk.{n}.{ours}.weight", f"model.layers.{n}.{theirs}.weight", (size,))


def _neox_parts(header: Header, config: dict[str, Any]) -> Iterator[Part]:
    d_model, d_ff, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    order = _head_by_head(heads, d_model // heads)
    yield Part("token_embd.weight", "gpt_neox.embed_in.weight", (config["vocab_size"], d_model))
    if not config["tie_word_embeddings"]:
        yield Part("output.weight", "embed_out.weight", (config["vocab_size"], d_model))
    layers = [
        ("attn_norm", "input_layernorm", (d_model,), None),
        ("ffn_norm", "post_attention_layernorm", (d_model,), None),
        ("attn_qkv", "attention.query_key_value", (3 * d_model, d_model), order),
        ("attn_output", "attention.dense", (d_model, d_model), None),
        ("ffn_up", "mlp.dense_h_to_4h", (d_ff, d_model), None),
        ("ffn_down", "mlp.dense_4h_to_h", (d_model, d_ff), None),
    ]
    for kind in ("weight", "bias"):
        yield Part(f"output_norm.{kind}", f"gpt_neox.final_layer_norm.{kind}", (d_model,))
        for n in range(config["num_hidden_layers"]):
            for ours, theirs, shape, rows in layers:
                shape = shape if kind == "weight" else shape[:1]
                yield Part(f"blk.{n}.{ours}.{kind}", f"gpt_neox.layers.{n}.{theirs}.{kind}", shape, rows)


def _gpt2_parts(header: Header, config: dict[str, Any]) -> Iterator[Part]:
    d_model, d_ff = config["n_embd"], config["n_inner"]
    yield Part("token_embd.weight", "transformer.wte.weight", (config["vocab_size"], d_model))
    yield Part("position_embd.weight", "transformer.wpe.weight", (config["n_positions"], d_model))
    if not config["tie_word_embeddings"]:
        yield Part("output.weight", "lm_head.weight", (config["vocab_size"], d_model))
    layers = [
        ("attn_norm", "ln_1", (d_model,)),
        ("ffn_norm", "ln_2", (d_model,)),
        ("attn_qkv", "attn.c_attn", (3 * d_model, d_model)),
        ("attn_output", "attn.c_proj", (d_model, d_model)),
        ("ffn_up", "mlp.c_fc", (d_ff, d_model)),
        ("ffn_down", "mlp.c_proj", (d_model, d_ff)),
    ]
    for kind in ("weight", "bias"):
        yield Part(f"output_norm.{kind}", f"transformer.ln_f.{kind}", (d_model,))
        for n in range(config["n_layer"]):
            for ours, theirs, shape in layers:
                shape = shape if kind == "weight" else shape[:1]
                yield Part(
                    f"blk.{n}.{ours}.{kind}",
                    f"transformer.h.{n}.{theirs}.{kind}",
                    shape,
                    transposed=len(shape) == 2,
                )


_PARTS: dict[str, Callable[[Header, dict[str, Any]], Iterator[Part]]] = {
    "llama": _llama_parts,
    "mistral": _llama_parts,
    "qwen2": _llama_parts,
    "qwen3": _llama_parts,
    "gpt_neox": _neox_parts,
    "gpt2": _gpt2_parts,
}
