"""Decoders in Hugging Face's layout: what the config.json of each model_type asks for.

FAMILIES has an entry for each model_type that is computed. What a configuration asks for beyond that is
refused by its name, before a weight is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.models.config import ACTIVATIONS

SUPPORTED = (
    "Models of type gpt2 (GPT-2, DistilGPT2, Cerebras-GPT), llama (Llama, SmolLM2, TinyLlama), mistral, "
    "qwen2, qwen3, gpt_neox (Pythia) and opt can be loaded, and sentence encoders of type bert (MiniLM, BGE, "
    "E5, GTE)."
)

_TYPES: dict[str, type] = {"layer_norm_eps": float, "activation_function": object, "tied": bool}
# What no model here does, and what a configuration says that does not do it either.
NEVER: dict[str, Any] = {
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
    "auto_map": None,
    "position_embedding_type": "absolute",
}
_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


class Config:
    """The contents of a config.json, and for messages its path and what is supported."""

    def __init__(self, contents: Mapping[str, Any], where: str, hint: str | None = None) -> None:
        self.contents = contents
        self.where = where
        self.hint = hint

    def refuse(self, what: str, hint: str | None = None) -> NoReturn:
        raise LLMSQLError(f"{self.where} has {what}, which is not supported", hint=hint or self.hint)

    def get(self, name: str, default: Any = None) -> Any:
        return self.contents.get(name, default)

    def integer(self, name: str, default: int | None) -> int | None:
        """A positive number; the default where it is missing or null."""
        value = self.contents.get(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{self.where} has {value!r} for {name}")
        return value

    def number(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{self.where} has {value!r} for {name}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.contents.get(name, default)
        if not isinstance(value, bool):
            raise UsageError(f"{self.where} has {value!r} for {name}")
        return value

    def require(self, wanted: Mapping[str, Any]) -> None:
        """Refuse a value other than the wanted one; null stands for the default."""
        for name, value in wanted.items():
            if self.contents.get(name, value) not in (value, None):
                self.refuse(f"{name} = {self.contents[name]!r}")


Settings = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """How models of one model_type are read.

    `columns`: columns of llm_model_config, the names that the configuration has for them, and transformers'
    defaults. `settings` makes those of the architecture. `only`: names whose values are the only ones that
    are computed. `classes`: transformers' classes whose files are understood.
    """

    arch: str
    columns: Mapping[str, tuple[str, Any]]
    classes: tuple[str, ...]
    settings: Callable[[Config, dict[str, Any]], Settings] = lambda config, columns: {}
    only: Mapping[str, Any] = field(default_factory=dict)


def columns_of(
    contents: Mapping[str, Any], where: str, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The columns of llm_model_config, `settings` among them, that a decoder's config.json asks for.

    `where` names the file in messages; `settings` stand above those of the file.
    """
    config = Config(contents, where)
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise LLMSQLError(f"{where} describes a model of type {kind!r}", hint=SUPPORTED)
    names = config.get("architectures")
    for name in names if isinstance(names, list) else []:
        if name not in family.classes:
            config.refuse(f"the architecture {name}", f"Supported are {', '.join(family.classes)}.")
    config.require({**NEVER, **family.only})
    columns = {"arch": family.arch, **sizes(config, family.columns)}
    return columns | {"settings": family.settings(config, columns) | dict(settings or {})}


def sizes(config: Config, columns: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Columns of llm_model_config by the names that the configuration has for them, with their defaults.

    UsageError for a value that is none for its column, LLMSQLError for an activation that is not known.
    """
    found = {column: config.get(name, default) for column, (name, default) in columns.items()}
    for column, value in found.items():
        wanted = _TYPES.get(column, int)
        is_right = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
        if not (is_right or (column == "d_ff" and value is None)):
            raise UsageError(f"{config.where} has {value!r} for {columns[column][0]}")
    activation = found["activation_function"]
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        config.refuse(f"the activation function {activation!r}", f"Supported are {', '.join(ACTIVATIONS)}.")
    return found


# ---- rotary positions ----


def _rope(config: Config, theta: str = "rope_theta", share: float = 1.0) -> tuple[Settings, float]:
    """The settings of the rotary embedding, and the share of each head that is turned.

    transformers 5 has them all in rope_parameters, earlier ones had rope_theta and rope_scaling.
    """
    newer, older = config.get("rope_parameters"), config.get("rope_scaling")
    found: dict[str, Any] = {}
    for name, part in (("rope_scaling", older), ("rope_parameters", newer)):
        if part is None:
            continue
        if not isinstance(part, dict):
            raise UsageError(f"{config.where} has {part!r} for {name}")
        if any(isinstance(value, dict) for value in part.values()):
            config.refuse(f"{name} that differ from layer to layer")
        found |= part
    base = config.number(theta, found.pop("rope_theta", config.get(theta, 10000.0)))
    turned = config.number("partial_rotary_factor", found.pop("partial_rotary_factor", share))
    older_kind = found.pop("type", "default")
    kind = found.pop("rope_type", older_kind)
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        config.refuse(f"rope_type {kind!r}", f"Supported are {', '.join(_ROPE_KEYS)}.")
    scaling: Settings = {} if kind == "default" else {"rope_type": kind}
    for key in _ROPE_KEYS[kind]:
        value = found.pop(key, None)
        if key == "original_max_position_embeddings":
            value = value or config.get(key)
        scaling[key] = config.number(f"{key} of rope_type {kind}", value)
    if kind != "llama3":
        # Told by files that have been lengthened and shortened again; it has no effect.
        found.pop("original_max_position_embeddings", None)
    for key, value in found.items():
        if value is not None:
            config.refuse(f"{key} = {value!r} of rope_type {kind}")
    return {"rope_theta": base, "rope_scaling": scaling}, turned


def _dims(config: Config, d_head: int, share: float) -> int:
    """How many numbers of a head are turned; 0 stands for all."""
    dims = int(d_head * share)
    if not 0 < share <= 1 or dims < 2 or dims % 2:
        config.refuse(f"a rotary embedding of {share:g} of a head's {d_head} numbers")
    return 0 if dims == d_head else dims


# ---- llama and its kin ----


def _llama(
    kv_heads: int | None = None,
    *,
    biases: Callable[[Config], Settings],
    window: Callable[[Config, int], int | None] = lambda config, n_layer: None,
    qk_norm: bool = False,
    d_head: int | None = None,
) -> Callable[[Config, dict[str, Any]], Settings]:
    def settings(config: Config, columns: dict[str, Any]) -> Settings:
        n_head, d_model = columns["n_head"], columns["d_model"]
        default = kv_heads if "num_key_value_heads" not in config.contents else None
        n_kv = config.integer("num_key_value_heads", default or n_head)
        width = config.integer("head_dim", d_head if "head_dim" not in config.contents else None)
        whole = d_model // n_head if n_head > 0 and d_model % n_head == 0 else None
        if width is None and whole is None:
            raise UsageError(f"{config.where}: hidden_size {d_model} is not a multiple of {n_head} heads")
        rope, share = _rope(config)
        share = config.number("partial_rotary_factor", config.get("partial_rotary_factor", share))
        if share != 1:
            config.refuse(f"partial_rotary_factor = {share:g}")
        plain: Settings = {"qkv_bias": False, "o_bias": False, "mlp_bias": False}
        return {
            "n_kv_head": None if n_kv == n_head else n_kv,
            "d_head": None if width == whole else width,
            **rope,
            "rope_dims": 0,
            "window": window(config, columns["n_layer"]),
            "qk_norm": qk_norm,
            **plain,
            **biases(config),
        }

    return settings


def _attention_bias(config: Config) -> Settings:
    bias = config.flag("attention_bias", False)
    return {"qkv_bias": bias, "o_bias": bias}


def _all_biases(config: Config) -> Settings:
    return {**_attention_bias(config), "mlp_bias": config.flag("mlp_bias", False)}


def _mistral_window(config: Config, n_layer: int) -> int | None:
    return config.integer("sliding_window", 4096 if "sliding_window" not in config.contents else None)


def _qwen_window(config: Config, n_layer: int) -> int | None:
    """One window for all layers, or none; transformers lists them, or counts those without."""
    size = config.integer("sliding_window", 4096 if "sliding_window" not in config.contents else None)
    if not config.flag("use_sliding_window", False):
        size = None
    kinds = config.get("layer_types")
    if kinds is None:
        first = config.get("max_window_layers", 28)
        if not isinstance(first, int):
            raise UsageError(f"{config.where} has {first!r} for max_window_layers")
        sliding = n_layer - min(first, n_layer) if size is not None else 0
        told = f"max_window_layers = {first}"
    else:
        known = ("full_attention", "sliding_attention")
        if not isinstance(kinds, list) or len(kinds) != n_layer or not all(kind in known for kind in kinds):
            config.refuse(f"layer_types = {kinds!r}")
        sliding = kinds.count("sliding_attention") if size is not None else 0
        told = "layer_types of both kinds"
    if 0 < sliding < n_layer:
        config.refuse(f"use_sliding_window with {told}", "Supported is one window for all layers, or none.")
    return size if sliding else None


def _sizes(**defaults: Any) -> dict[str, tuple[str, Any]]:
    names = {
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "d_model": "hidden_size",
        "n_positions": "max_position_embeddings",
        "vocab": "vocab_size",
        "d_ff": "intermediate_size",
        "layer_norm_eps": "rms_norm_eps",
        "activation_function": "hidden_act",
        "tied": "tie_word_embeddings",
    }
    common = {
        "n_layer": 32, "n_head": 32, "d_model": 4096, "layer_norm_eps": 1e-6, "activation_function": "silu",
        "tied": False,
    }  # fmt: skip
    return {column: (name, {**common, **defaults}[column]) for column, name in names.items()}


_QWEN = _sizes(n_positions=32768, vocab=151936, d_ff=22016)
_LLAMA_ONLY = {"layer_types": None}


# ---- gpt_neox ----


def _neox(config: Config, columns: dict[str, Any]) -> Settings:
    n_head, d_model = columns["n_head"], columns["d_model"]
    if n_head < 1 or d_model % n_head:
        raise UsageError(f"{config.where}: hidden_size {d_model} is not a multiple of {n_head} heads")
    rope, share = _rope(
        config, "rotary_emb_base", config.number("rotary_pct", config.get("rotary_pct", 0.25))
    )
    return {
        **rope,
        "rope_dims": _dims(config, d_model // n_head, share),
        "parallel": config.flag("use_parallel_residual", True),
    }


_NEOX = {
    **_sizes(
        n_layer=44,
        n_head=64,
        d_model=6144,
        n_positions=2048,
        vocab=50432,
        d_ff=24576,
        activation_function="gelu",
    ),
    "layer_norm_eps": ("layer_norm_eps", 1e-5),
}


# ---- opt ----


def _opt(config: Config, columns: dict[str, Any]) -> Settings:
    width = config.integer("word_embed_proj_dim", columns["d_model"])
    return {
        "norm_first": config.flag("do_layer_norm_before", True),
        "d_embed": None if width == columns["d_model"] else width,
    }


_OPT = {
    **_sizes(n_layer=12, n_head=12, d_model=768, n_positions=2048, vocab=50272, d_ff=3072, tied=True),
    "d_ff": ("ffn_dim", 3072),
    # No configuration says it: PyTorch's.
    "layer_norm_eps": ("layer_norm_eps", 1e-5),
    "activation_function": ("activation_function", "relu"),
}


# ---- gpt2 ----

_GPT2 = {
    "n_layer": ("n_layer", 12),
    "n_head": ("n_head", 12),
    "d_model": ("n_embd", 768),
    "n_positions": ("n_positions", 1024),
    "vocab": ("vocab_size", 50257),
    "d_ff": ("n_inner", None),
    "layer_norm_eps": ("layer_norm_epsilon", 1e-5),
    "activation_function": ("activation_function", "gelu_new"),
    "tied": ("tie_word_embeddings", True),
}

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "gpt2",
        _GPT2,
        ("GPT2LMHeadModel", "GPT2Model"),
        only={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    ),
    "llama": Family(
        "llama",
        _sizes(n_positions=2048, vocab=32000, d_ff=11008),
        ("LlamaForCausalLM", "LlamaModel"),
        _llama(biases=_all_biases),
        _LLAMA_ONLY,
    ),
    "mistral": Family(
        "llama",
        _sizes(n_positions=131072, vocab=32000, d_ff=14336),
        ("MistralForCausalLM", "MistralModel"),
        _llama(8, biases=lambda config: {}, window=_mistral_window),
        _LLAMA_ONLY,
    ),
    "qwen2": Family(
        "llama",
        _QWEN,
        ("Qwen2ForCausalLM", "Qwen2Model"),
        _llama(32, biases=lambda config: {"qkv_bias": True}, window=_qwen_window),
    ),
    "qwen3": Family(
        "llama",
        _QWEN,
        ("Qwen3ForCausalLM", "Qwen3Model"),
        _llama(32, biases=_attention_bias, window=_qwen_window, qk_norm=True, d_head=128),
    ),
    "gpt_neox": Family(
        "neox", _NEOX, ("GPTNeoXForCausalLM", "GPTNeoXModel"), _neox, {"attention_bias": True}
    ),
    "opt": Family(
        "opt",
        _OPT,
        ("OPTForCausalLM", "OPTModel"),
        _opt,
        {"enable_bias": True, "layer_norm_elementwise_affine": True, "_remove_final_layer_norm": False},
    ),
}
"""By model_type."""
