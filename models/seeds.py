"""Seed rows: the built-in architectures and the shapes of published models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .settings import BERT, GPT3, Setting

_GPT2_VOCAB = 50257


def _architecture(
    arch: str, description: str, kind: str = "decoder", settings: Sequence[Setting] = ()
) -> dict[str, Any]:
    return {
        "arch": arch,
        "forward": f"public.llm_forward_{arch}",
        "parameters": f"public.llm_parameters_{arch}",
        "description": description,
        "kind": kind,
        "settings": {setting.name: setting.declaration() for setting in settings},
    }


ARCHITECTURE_ROWS: list[dict[str, Any]] = [
    _architecture(
        "gpt2", "GPT-2: pre-LayerNorm blocks, learned positions, tanh GELU, tied head (Radford et al. 2019)"
    ),
    _architecture(
        "gpt3",
        "GPT-3: GPT-2's equations at other sizes, odd layers banded if asked (Brown et al. 2020)",
        settings=GPT3,
    ),
    _architecture("microgpt", "microgpt: RMSNorm without gains, ReLU, no biases, head of its own (Karpathy)"),
    _architecture(
        "bert",
        "BERT as a sentence encoder: post-LayerNorm blocks, one vector for a text (Devlin et al. 2018)",
        "encoder",
        BERT,
    ),
]


def _model(
    model: str,
    arch: str,
    n_layer: int,
    n_head: int,
    d_model: int,
    n_positions: int,
    vocab: int = _GPT2_VOCAB,
    **settings: Any,
) -> dict[str, Any]:
    encoder = arch == "bert"
    return {
        "model": model,
        "arch": arch,
        "n_layer": n_layer,
        "n_head": n_head,
        "d_model": d_model,
        "n_positions": n_positions,
        "vocab": vocab,
        "layer_norm_eps": 1e-12 if encoder else 1e-5,
        "activation_function": "gelu" if encoder else "gelu_new",
        "tied": arch != "microgpt",
        "settings": settings,
    }


MODELS: list[dict[str, Any]] = [
    _model("gpt2-small", "gpt2", 12, 12, 768, 1024),
    _model("gpt2-medium", "gpt2", 24, 16, 1024, 1024),
    _model("gpt2-large", "gpt2", 36, 20, 1280, 1024),
    _model("gpt2-xl", "gpt2", 48, 25, 1600, 1024),
    _model("gpt3-125m", "gpt3", 12, 12, 768, 2048),
    _model("gpt3-350m", "gpt3", 24, 16, 1024, 2048),
    _model("gpt3-760m", "gpt3", 24, 16, 1536, 2048),
    # The paper prints 24 heads of 128, which is not 2048; 16 are.
    _model("gpt3-1.3b", "gpt3", 24, 16, 2048, 2048),
    _model("gpt3-2.7b", "gpt3", 32, 32, 2560, 2048),
    _model("gpt3-6.7b", "gpt3", 32, 32, 4096, 2048),
    # The paper prints d_model 5140, which 40 heads do not divide.
    _model("gpt3-13b", "gpt3", 40, 40, 5120, 2048),
    _model("gpt3-175b", "gpt3", 96, 96, 12288, 2048),
    _model("microgpt", "microgpt", 1, 4, 16, 16, vocab=27),
    _model("all-minilm-l6-v2", "bert", 6, 12, 384, 512, vocab=30522, max_tokens=256),
]
