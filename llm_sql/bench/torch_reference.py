# mypy: disable-error-code="import-not-found,misc,no-any-return,no-untyped-call"
"""The same models in PyTorch's eager mode, written as its users write them: modules, SDPA, fused AdamW.

Imported by worker.py's child only.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_sql.bench.gemm import Array, Products

if TYPE_CHECKING:
    from llm_sql.bench.shapes import Layer, Shape


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)


class Block(nn.Module):
    """A pre-norm transformer block: GPT-2's, or microgpt's without biases and gains and with ReLU."""

    def __init__(self, d_model: int, n_head: int, dropout: float, micro: bool) -> None:
        super().__init__()
        self.n_head, self.dropout, self.micro = n_head, dropout, micro
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=not micro)
        self.project = nn.Linear(d_model, d_model, bias=not micro)
        self.expand = nn.Linear(d_model, 4 * d_model, bias=not micro)
        self.contract = nn.Linear(4 * d_model, d_model, bias=not micro)
        self.norm_1, self.norm_2 = make_norm(d_model, micro), make_norm(d_model, micro)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = self.qkv(self.norm_1(x)).view(batch, length, 3, self.n_head, width // self.n_head)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout, is_causal=True)
        mixed = self.project(attended.transpose(1, 2).reshape(batch, length, width))
        x = x + functional.dropout(mixed, self.dropout)
        hidden = self.expand(self.norm_2(x))
        hidden = functional.relu(hidden) if self.micro else functional.gelu(hidden, approximate="tanh")
        return x + functional.dropout(self.contract(hidden), self.dropout)


class GPT(nn.Module):
    """Embeddings, blocks and head; the head is tied to the embedding except in microgpt."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        micro = shape.arch == "microgpt"
        self.dropout = dropout
        self.tokens = nn.Embedding(shape.vocab, shape.d_model)
        self.positions = nn.Embedding(shape.n_positions, shape.d_model)
        self.stem_norm = make_norm(shape.d_model, micro) if micro else nn.Identity()
        self.blocks = nn.ModuleList(
            [Block(shape.d_model, shape.n_head, dropout, micro) for _ in range(shape.n_layer)]
        )
        self.norm = nn.Identity() if micro else make_norm(shape.d_model, micro)
        self.head = nn.Linear(shape.d_model, shape.vocab, bias=False)
        if not micro:
            self.head.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.08 if micro else 0.02)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        x = self.stem_norm(functional.dropout(x, self.dropout))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def make_norm(d_model: int, micro: bool) -> Any:
    return (
        nn.RMSNorm(d_model, eps=1e-5, elementwise_affine=False) if micro else nn.LayerNorm(d_model, eps=1e-5)
    )


class TorchStepper:
    """Training steps in this process; the loss is read every step, as the database logs it."""

    def __init__(self, shape: Shape, *, dropout: float, grad_clip: float) -> None:
        self._model = GPT(shape, dropout)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
        self._grad_clip = grad_clip
        size = (64, shape.batch_size, shape.tokens + 1)
        self._batches = torch.randint(shape.vocab, size)
        self._step = 0

    def time_steps(self, n_steps: int) -> float:
        started = time.perf_counter()
        for _ in range(n_steps):
            batch = self._batches[self._step % len(self._batches)]
            self._step += 1
            loss = self._model(batch[:, :-1], batch[:, 1:].contiguous())
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self._model.parameters(), self._grad_clip)
            self._optimizer.step()
            if not math.isfinite(loss.item()):
                raise ArithmeticError("the reference's loss is not finite")
        return time.perf_counter() - started


class TorchLayer:
    """One transformer layer: forward, and the gradients of its input and of every weight."""

    def __init__(self, layer: Layer, dropout: float) -> None:
        self._block = Block(layer.d_model, layer.n_head, dropout, micro=False)
        self._x = torch.randn(1, layer.tokens, layer.d_model, requires_grad=True)
        self._dout = torch.randn(1, layer.tokens, layer.d_model)

    def seconds(self) -> float:
        self._block.zero_grad(set_to_none=True)
        self._x.grad = None
        started = time.perf_counter()
        self._block(self._x).backward(self._dout)
        return time.perf_counter() - started


class TorchProducts(Products):
    """Matrix products of NumPy arrays that torch.mm sees as tensors."""

    def multiply(self, a: Array, b: Array, out: Array, form: str) -> None:
        left, right = torch.from_numpy(a), torch.from_numpy(b)
        torch.mm(
            left.T if form == "TN" else left, right.T if form == "NT" else right, out=torch.from_numpy(out)
        )
