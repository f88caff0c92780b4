"""Small models as GGUF files, written by the gguf library's own writer as llama.cpp's converter does.

`tensors` are Hugging Face's; what llama.cpp reorders is reordered here, with its converter's reshapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tensors = dict[str, Floats]
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gptneox", "gpt2")
LAYERS, HEADS, KV_HEADS, WIDTH, INSIDE, VOCAB, CONTEXT = 2, 4, 2, 32, 64, 40, 64
D_HEAD = {"qwen3": 16}  # free of the model's width
LLAMA = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
NEOX = {
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GPT2 = {
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
}
OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
}


def width_of(arch: str) -> int:
    return D_HEAD.get(arch, WIDTH // HEADS)


def shapes(arch: str, vocab: int = VOCAB) -> dict[str, tuple[int, ...]]:
    """Hugging Face's tensors."""
    d, ff, q, kv = WIDTH, INSIDE, HEADS * width_of(arch), KV_HEADS * width_of(arch)
    found: dict[str, tuple[int, ...]] = {}
    if arch == "gpt2":
        found |= {"transformer.wte.weight": (vocab, d), "transformer.wpe.weight": (CONTEXT, d)}
        found |= {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}
        linear = {
            "attn.c_attn": (d, 3 * d),
            "attn.c_proj": (d, d),
            "mlp.c_fc": (d, ff),
            "mlp.c_proj": (ff, d),
        }
        for n in range(LAYERS):
            at = f"transformer.h.{n}."
            for part, shape in linear.items():
                found |= {f"{at}{part}.weight": shape, f"{at}{part}.bias": shape[1:]}
            found |= {f"{at}ln_{i}.{kind}": (d,) for i in (1, 2) for kind in ("weight", "bias")}
        return found
    if arch == "gptneox":
        found |= {"gpt_neox.embed_in.weight": (vocab, d), "embed_out.weight": (vocab, d)}
        found |= {f"gpt_neox.final_layer_norm.{kind}": (d,) for kind in ("weight", "bias")}
        parts = {
            "attention.query_key_value": (3 * d, d),
            "attention.dense": (d, d),
            "mlp.dense_h_to_4h": (ff, d),
            "mlp.dense_4h_to_h": (d, ff),
            "input_layernorm": (d,),
            "post_attention_layernorm": (d,),
        }
        for n in range(LAYERS):
            for part, size in parts.items():
                found[f"gpt_neox.layers.{n}.{part}.weight"] = size
                found[f"gpt_neox.layers.{n}.{part}.bias"] = size[:1]
        return found
    found |= {"model.embed_tokens.weight": (vocab, d), "model.norm.weight": (d,)}
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        found |= {f"{at}{norm}.weight": (d,) for norm in ("input_layernorm", "post_attention_layernorm")}
        found |= {f"{at}mlp.{part}_proj.weight": (ff, d) for part in ("gate", "up")}
        found[f"{at}mlp.down_proj.weight"] = (d, ff)
        for part, rows in {"q": q, "k": kv, "v": kv}.items():
            found[f"{at}self_attn.{part}_proj.weight"] = (rows, d)
            if arch == "qwen2":
                found[f"{at}self_attn.{part}_proj.bias"] = (rows,)
        found[f"{at}self_attn.o_proj.weight"] = (d, q)
        if arch == "qwen3":
            found |= {f"{at}self_attn.{part}_norm.weight": (width_of(arch),) for part in ("q", "k")}
    return found


def tensors_of(arch: str, seed: int = 1, vocab: int = VOCAB) -> Tensors:
    """Numbers that F16 and BF16 hold too."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.integers(-64, 65, shape) / 64).astype(np.float32)
        for name, shape in shapes(arch, vocab).items()
    }


def metadata_of(arch: str, vocab: int | None = VOCAB) -> dict[str, Any]:
    """By keys below the architecture's name; whole numbers are uint32, others float32."""
    found: dict[str, Any] = {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": INSIDE,
        "attention.head_count": HEADS,
    }
    if arch in ("gpt2", "gptneox"):
        found["attention.layer_norm_epsilon"] = 1e-5
    if arch == "gptneox":
        found |= {"rope.dimension_count": width_of(arch) // 4, "use_parallel_residual": True}
    if arch in ("llama", "qwen2", "qwen3"):
        found |= {"attention.head_count_kv": KV_HEADS, "rope.freq_base": 10000.0}
        found["attention.layer_norm_rms_epsilon"] = 1e-6
    if arch == "llama":
        found |= {"rope.dimension_count": width_of(arch), "vocab_size": vocab}
    if arch == "qwen3":
        found |= {"attention.key_length": width_of(arch), "attention.value_length": width_of(arch)}
    return {key: value for key, value in found.items() if value is not None}


def _permuted(matrix: Floats, heads: int) -> Floats:
    """LlamaModel.permute of convert_hf_to_gguf.py."""
    split = matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, *matrix.shape[1:])
    return split.swapaxes(1, 2).reshape(matrix.shape)


def _fused(matrix: Floats) -> Floats:
    """GPTNeoXModel.modify_tensors of convert_hf_to_gguf.py."""
    split = matrix.reshape(HEADS, 3, WIDTH // HEADS, *matrix.shape[1:])
    return np.concatenate([split[:, i].reshape(WIDTH, *matrix.shape[1:]) for i in range(3)])


def converted(arch: str, tensors: Mapping[str, Floats]) -> Tensors:
    """Under llama.cpp's names, in its order."""
    blocks = {"gpt2": GPT2, "gptneox": NEOX}.get(arch, LLAMA)
    found = {}
    for name, value in tensors.items():
        stem, kind = name.rsplit(".", 1)
        if stem in OUTSIDE:
            found[f"{OUTSIDE[stem]}.{kind}"] = value
            continue
        layer = next(part for part in stem.split(".") if part.isdigit())
        ours = blocks[stem.split(f".{layer}.")[1]]
        if arch == "llama" and ours in ("attn_q", "attn_k"):
            value = _permuted(value, HEADS if ours == "attn_q" else KV_HEADS)
        if arch == "gptneox" and ours == "attn_qkv":
            value = _fused(value)
        if arch == "gpt2" and value.ndim == 2:
            value = value.T
        found[f"blk.{layer}.{ours}.{kind}"] = np.ascontiguousarray(value)
    return found


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


def write(
    path: Path,
    arch: str = "llama",
    *,
    tensors: Mapping[str, Floats] | None = None,
    metadata: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    elements: str = "F32",
) -> Path:
    """A file whose matrices have these elements. `metadata` below the architecture's name: None leaves a key
    out; `more` anywhere. `tensors` are already converted.
    """
    writer = gguf.GGUFWriter(path, arch)
    for key, value in {**metadata_of(arch), **(metadata or {})}.items():
        if value is not None:
            add(writer, f"{arch}.{key}", value)
    for key, value in (more or {}).items():
        add(writer, key, value)
    type_ = gguf.GGMLQuantizationType[elements]
    given = converted(arch, tensors_of(arch)) if tensors is None else tensors
    for name, value in given.items():
        if value.ndim > 1 and elements != "F32":
            writer.add_tensor(name, gguf.quantize(value, type_), raw_dtype=type_)
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
