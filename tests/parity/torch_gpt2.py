"""GPT-2 as transformers has it, trained by PyTorch: the other side of every parity test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GPT2Config, GPT2LMHeadModel

Array = NDArray[Any]


@dataclass(frozen=True)
class Shape:
    n_layer: int
    n_head: int
    d_model: int
    n_positions: int
    vocab: int


@dataclass(frozen=True)
class Optimizer:
    """llm_train's settings of the same names."""

    lr_max: float = 1e-2
    warmup: int = 5
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    wd: float = 0.1
    grad_clip: float = 1.0
    n_steps: int = 50


def make(shape: Shape, seed: int, std: float = 0.1) -> GPT2LMHeadModel:
    """A model without dropout whose every parameter, biases and gains too, is away from its initial value."""
    model = make_initial(shape, seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * std + (1.0 if "ln_" in name and "weight" in name else 0.0))
    return model


def make_initial(shape: Shape, seed: int) -> GPT2LMHeadModel:
    """A model without dropout, initialised as GPT-2 is."""
    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_embd=shape.d_model,
        n_positions=shape.n_positions,
        vocab_size=shape.vocab,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation="eager",
    )
    return GPT2LMHeadModel(config)


def parameters(model: GPT2LMHeadModel) -> dict[str, Array]:
    return {n.removeprefix("transformer."): p.detach().numpy().copy() for n, p in model.named_parameters()}


def loss_of(model: GPT2LMHeadModel, tokens: Array, targets: Array) -> torch.Tensor:
    """Mean cross-entropy in nats; targets below 0 are ignored."""
    logits = model(torch.from_numpy(tokens).long()).logits
    flat = torch.from_numpy(targets).long().reshape(-1)
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), flat, ignore_index=-1)


def gradients(model: GPT2LMHeadModel, tokens: Array, targets: Array) -> tuple[float, dict[str, Array]]:
    model.zero_grad()
    loss = loss_of(model, tokens, targets)
    loss.backward()
    named = {n.removeprefix("transformer."): p.grad for n, p in model.named_parameters()}
    return float(loss.detach()), {n: g.numpy().copy() for n, g in named.items() if g is not None}


def rate(step: int, o: Optimizer) -> float:
    """Linear warm-up, then a cosine from lr_max towards 0."""
    if step <= o.warmup:
        return o.lr_max * step / o.warmup
    progress = (step - o.warmup - 1) / (o.n_steps - o.warmup)
    return o.lr_max * 0.5 * (1 + math.cos(math.pi * progress))


def train(model: GPT2LMHeadModel, tokens: Array, targets: Array, o: Optimizer) -> list[float]:
    """The loss before each of n_steps AdamW steps on one and the same batch."""
    adamw = torch.optim.AdamW(
        model.parameters(), lr=o.lr_max, betas=(o.beta1, o.beta2), eps=o.eps, weight_decay=o.wd
    )
    losses = []
    for step in range(1, o.n_steps + 1):
        for group in adamw.param_groups:
            group["lr"] = rate(step, o)
        adamw.zero_grad(set_to_none=True)
        loss = loss_of(model, tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), o.grad_clip)
        adamw.step()
        losses.append(float(loss.detach()))
    return losses


def batch(shape: Shape, rows: int, length: int, seed: int) -> tuple[Array, Array]:
    """Random tokens [rows, length] and targets of the same shape, every seventh of them ignored."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, shape.vocab, (rows, length), dtype=np.int32)
    targets = rng.integers(0, shape.vocab, (rows, length), dtype=np.int32)
    targets.reshape(-1)[::7] = -1
    return tokens, targets
