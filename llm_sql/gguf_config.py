"""What the metadata of a GGUF file says of its model, as Hugging Face's config.json has it.

A key of the architecture that is not known here would change what is computed: it is refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from llm_sql.errors import LLMSQLError
from llm_sql.gguf_header import Header

_SUPPORTED = "Supported are llama (Llama, SmolLM2, Mistral), qwen2, qwen3, gptneox (Pythia) and gpt2."
_KNOWN = (
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "tensor_data_layout",
    "use_parallel_residual",
    "vocab_size",
)
# Of another value they change nothing.
_NOTHING: dict[str, Any] = {
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "expert_count": 0,
    "expert_used_count": 0,
    "logit_scale": 1.0,
    "pooling_type": 0,
}


@dataclass(frozen=True)
class Metadata:
    """The metadata of a file, by keys below its architecture's name, each of the type that is asked for."""

    path: Path
    values: dict[str, Any]
    prefix: str = ""

    def refuse(self, key: str, hint: str | None = None) -> NoReturn:
        value = self.values.get(self.prefix + key)
        shown = f"{len(value)} values" if isinstance(value, list | np.ndarray) else repr(value)[:100]
        raise LLMSQLError(f"{self.path} has {self.prefix}{key} = {shown}, which is not supported", hint=hint)

    def __contains__(self, key: str) -> bool:
        return self.prefix + key in self.values

    def _get(self, key: str, kinds: type | tuple[type, ...], what: str, default: Any) -> Any:
        value = self.values.get(self.prefix + key, default)
        if value is None:
            raise LLMSQLError(f"{self.path} is refused: it lacks the metadata key {self.prefix}{key}")
        if value is default:
            return value
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool):
            shown = f"{len(value)} values" if isinstance(value, list | np.ndarray) else repr(value)[:100]
            raise LLMSQLError(f"{self.path} is refused: {self.prefix}{key} is {shown}, not {what}")
        return value

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number, perhaps the same one for each layer."""
        value = self.values.get(self.prefix + key)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size:
            if (value != value[0]).any():
                self.refuse(key, "Its layers differ; all layers of a model have the same shape here.")
            value = int(value[0])
        else:
            value = self._get(key, int, "a whole number", default)
        if not least <= value < 1 << 31:
            raise LLMSQLError(f"{self.path} is refused: {self.prefix}{key} is {value}")
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, (int, float), "a number", default)
        if not math.isfinite(value) or value <= 0:
            raise LLMSQLError(f"{self.path} is refused: {self.prefix}{key} is {value}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._get(key, bool, "true or false", default))

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._get(key, str, "a text", default))

    def texts(self, key: str) -> list[str]:
        value: list[str] = self._get(key, list, "a list of texts", None)
        return value

    def numbers(self, key: str, kinds: str) -> Any:
        """An array of numbers, None where there is none."""
        value = self.values.get(self.prefix + key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
            what = "whole numbers" if "i" in kinds else "numbers"
            raise LLMSQLError(f"{self.path} is refused: {self.prefix}{key} is no list of {what}")
        return value


def architecture(header: Header) -> str:
    """LLMSQLError for files that hold no model of a known kind."""
    metadata = Metadata(header.path, header.metadata)
    if metadata.text("general.type", "model") != "model":
        metadata.refuse("general.type", "It holds no model of its own.")
    if metadata.count("split.count", 1, 0) > 1:
        metadata.refuse("split.count", "Join the parts first: llama-gguf-split --merge FIRST-PART OUTPUT.")
    name = metadata.text("general.architecture")
    if name not in _CONFIGS:
        metadata.refuse("general.architecture", _SUPPORTED)
    return name


def config_of(header: Header) -> dict[str, Any]:
    """What config.json would hold. LLMSQLError for what is not supported."""
    name = architecture(header)
    metadata = Metadata(header.path, header.metadata, f"{name}.")
    for key in header.metadata:
        if key.startswith(metadata.prefix):
            _check_known(metadata, key.removeprefix(metadata.prefix))
    if metadata.count("block_count") > len(header.tensors):
        raise LLMSQLError(
            f"{header.path} is refused: {name}.block_count is {metadata.count('block_count')},"
            f" but there are {len(header.tensors)} tensors"
        )
    return _CONFIGS[name](metadata, header)


def _check_known(metadata: Metadata, key: str) -> None:
    if key in _NOTHING:
        value = metadata.values[metadata.prefix + key]
        if isinstance(value, list | np.ndarray) or value != _NOTHING[key]:
            metadata.refuse(key)
    elif key not in _KNOWN:
        metadata.refuse(key, "llm-sql does not know what it changes in the model.")


def _sizes(metadata: Metadata, *, free: bool = False) -> tuple[int, int]:
    """Heads, and the width of each, which may be free of the model's width."""
    heads, width = metadata.count("attention.head_count"), metadata.count("embedding_length")
    if "attention.key_length" not in metadata and width % heads:
        metadata.refuse("attention.head_count", f"embedding_length is {width}.")
    d_head = metadata.count("attention.key_length", width // heads)
    if metadata.count("attention.value_length", d_head) != d_head:
        metadata.refuse("attention.value_length", f"attention.key_length is {d_head}.")
    if not free and heads * d_head != width:
        metadata.refuse("attention.key_length", f"embedding_length is {width}, and there are {heads} heads.")
    return heads, d_head


def _vocab(metadata: Metadata, header: Header) -> int:
    """As many tokens as the embedding has rows; metadata may count fewer, and may be missing."""
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise LLMSQLError(f"{header.path} is refused: it lacks the matrix token_embd.weight")
    rows = embedding.shape[0]
    if metadata.count("vocab_size", rows) > rows:
        metadata.refuse("vocab_size", f"token_embd.weight has {rows} rows.")
    return rows


def _llama(metadata: Metadata, header: Header) -> dict[str, Any]:
    heads, d_head = _sizes(metadata, free=True)
    if metadata.count("rope.dimension_count", d_head) != d_head:
        metadata.refuse("rope.dimension_count", f"A head is {d_head} wide: all of it is turned.")
    window = metadata.count("attention.sliding_window", 0, 0)
    name = metadata.prefix[:-1]
    config: dict[str, Any] = {
        "model_type": "mistral" if name == "llama" and window else name,
        "num_hidden_layers": metadata.count("block_count"),
        "hidden_size": metadata.count("embedding_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.count("attention.head_count_kv", heads),
        "head_dim": d_head,
        "intermediate_size": metadata.count("feed_forward_length"),
        "max_position_embeddings": metadata.count("context_length"),
        "vocab_size": _vocab(metadata, header),
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
        "rope_theta": metadata.number("rope.freq_base", 10000.0),
        "rope_scaling": _scaling(metadata, header, d_head),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }
    if name != "qwen2":
        config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    if name == "llama":
        config["mlp_bias"] = "blk.0.ffn_up.bias" in header.tensors
    if window:
        config["sliding_window"] = window
        if name != "llama":
            config |= {"use_sliding_window": True, "max_window_layers": 0}
    return config


def _scaling(metadata: Metadata, header: Header, d_head: int) -> dict[str, Any] | None:
    """How the positions' frequencies are stretched."""
    kind = metadata.text("rope.scaling.type", "none")
    if "rope.scale_linear" in metadata and "rope.scaling.type" not in metadata:
        factor = metadata.number("rope.scale_linear")
        return None if factor == 1 else {"rope_type": "linear", "factor": factor}
    factors = factors_of_llama3(header, metadata.number("rope.freq_base", 10000.0), d_head)
    if kind == "none":
        return factors
    if factors is not None:
        metadata.refuse("rope.scaling.type", "The file has factors for each frequency, too.")
    scaling: dict[str, Any] = {"rope_type": kind, "factor": metadata.number("rope.scaling.factor")}
    if "rope.scaling.attn_factor" in metadata:
        scaling["attention_factor"] = metadata.number("rope.scaling.attn_factor")
    if kind == "linear" and scaling["factor"] == 1:
        return None
    if "rope.scaling.original_context_length" in metadata and kind != "linear":
        key = "rope.scaling.original_context_length"
        scaling["original_max_position_embeddings"] = metadata.count(key)
    return scaling


def factors_of_llama3(header: Header, theta: float, d_head: int) -> dict[str, Any] | None:
    """Llama 3's scaling from the tensor of factors by which llama.cpp divides the frequencies.

    Below one wavelength it is 1, above another `factor`, in between smooth. The four numbers of config.json
    are told by the factors but for one, as which the 8,192 positions of all of Llama 3 are taken.
    """
    entry = header.tensors.get("rope_freqs.weight")
    if entry is None:
        return None
    if entry.type != "F32" or entry.shape != (d_head // 2,):
        raise LLMSQLError(
            f"{header.path} is refused: rope_freqs.weight is {entry.type} of shape {list(entry.shape)},"
            f" not F32 of shape {[d_head // 2]}"
        )
    with header.path.open("rb") as file:
        file.seek(entry.offset)
        factors = np.frombuffer(file.read(entry.n_bytes), "<f4").astype(np.float64)
    if (factors == 1).all():
        return None
    found = _fit(factors, theta, d_head)
    if found is None:
        raise LLMSQLError(
            f"{header.path} has rope_freqs.weight with other factors than Llama 3's, which are not supported"
        )
    return found


def _wavelengths(theta: float, d_head: int) -> Any:
    with np.errstate(all="ignore"):
        return 2 * math.pi * theta ** (np.arange(0, d_head, 2) / d_head)


def llama3_factors(scaling: dict[str, Any], theta: float, d_head: int) -> Any:
    """What llama.cpp computes from config.json."""
    place = scaling["original_max_position_embeddings"] / _wavelengths(theta, d_head)
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = (place - low) / (high - low)
    with np.errstate(all="ignore"):
        between = 1 / ((1 - smooth) / factor + smooth)
    return np.where(place > high, 1.0, np.where(place < low, factor, between))


def _fit(factors: Any, theta: float, d_head: int) -> dict[str, Any] | None:
    """Llama 3.1's and 3.2's numbers, or others of the same form that give these factors."""
    if not np.isfinite(factors).all() or factors.min() < 1:
        return None
    factor = float(factors.max())
    candidates = [(1.0, 4.0)]
    [between] = np.nonzero((factors > 1.0001) & (factors < factor * 0.9999))
    if len(between) >= 2:
        # 1 / f = (1 - s) / factor + s, where s grows with 8192 / wavelength, from 0 at low to 1 at high.
        ends = [between[0], between[-1]]
        s = (1 / factors[ends] - 1 / factor) / (1 - 1 / factor)
        place = 8192 / _wavelengths(theta, d_head)[ends]
        slope = (s[0] - s[1]) / (place[0] - place[1]) if place[0] != place[1] else 0.0
        if slope > 0:
            low = place[1] - s[1] / slope
            candidates.append((round(float(low), 4), round(float(low + 1 / slope), 4)))
    for low, high in candidates:
        scaling = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": 8192,
        }
        if 0 < low < high and np.allclose(llama3_factors(scaling, theta, d_head), factors, rtol=1e-5, atol=0):
            return scaling
    return None


def _neox(metadata: Metadata, header: Header) -> dict[str, Any]:
    heads, d_head = _sizes(metadata)
    turned = metadata.count("rope.dimension_count", d_head)
    if turned > d_head:
        metadata.refuse("rope.dimension_count", f"A head is {d_head} wide.")
    if metadata.text("rope.scaling.type", "none") != "none":
        metadata.refuse("rope.scaling.type")
    share = turned / d_head
    return {
        "model_type": "gpt_neox",
        "num_hidden_layers": metadata.count("block_count"),
        "hidden_size": metadata.count("embedding_length"),
        "num_attention_heads": heads,
        "intermediate_size": metadata.count("feed_forward_length"),
        "max_position_embeddings": metadata.count("context_length"),
        "vocab_size": _vocab(metadata, header),
        "layer_norm_eps": metadata.number("attention.layer_norm_epsilon"),
        "hidden_act": "gelu",
        # transformers takes the whole part of their product.
        "rotary_pct": share if int(d_head * share) == turned else math.nextafter(share, 2),
        "rotary_emb_base": metadata.number("rope.freq_base", 10000.0),
        "use_parallel_residual": metadata.flag("use_parallel_residual", True),
        "attention_bias": True,
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }


def _gpt2(metadata: Metadata, header: Header) -> dict[str, Any]:
    heads, _ = _sizes(metadata)
    width = metadata.count("embedding_length")
    return {
        "model_type": "gpt2",
        "n_layer": metadata.count("block_count"),
        "n_embd": width,
        "n_head": heads,
        "n_inner": metadata.count("feed_forward_length", 4 * width),
        "n_positions": metadata.count("context_length"),
        "vocab_size": _vocab(metadata, header),
        "layer_norm_epsilon": metadata.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }


_CONFIGS: dict[str, Callable[[Metadata, Header], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "gptneox": _neox,
    "gpt2": _gpt2,
}
