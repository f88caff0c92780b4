"""Types of the Cython module. Shapes and formulas stand in the docstrings of the *.pxi files."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
FloatsLike: TypeAlias = Floats | Sequence[float]
Ids: TypeAlias = npt.NDArray[np.integer] | Sequence[int]
Shape: TypeAlias = int | tuple[int, ...]
# None: a new gradient; an array: a gradient so far; False: not wanted.
Gradient: TypeAlias = Floats | Literal[False] | None

def available_isas() -> list[str]: ...
def best_isa() -> str: ...
def cpu_count() -> int: ...
def numerics_version() -> int: ...
def site(name: str) -> int: ...
def philox(counter: Sequence[int], key: Sequence[int]) -> npt.NDArray[np.uint32]: ...
def uniform(seed: int, stream: int, index: int) -> float: ...
def permutation(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]: ...
def lr_schedule(kind: str, i: int, warmup: int, total: int, lr_max: float, min_lr: float = 0.0) -> float: ...
def mean_loss(losses: Floats, targets: Ids) -> tuple[float, int]: ...
def penalize(
    logits: Floats, seen: Ids, *, repetition: float = 1.0, presence: float = 0.0, frequency: float = 0.0
) -> Floats: ...
def sample(
    logits: Floats, *, uniform: float, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> int: ...

class KVCache:
    def __init__(self, n_head: int, d_head: int, capacity: int) -> None: ...
    @property
    def n_head(self) -> int: ...
    @property
    def d_head(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class EngineState:
    isa: str
    threads: int
    def __init__(
        self, isa: str | None = None, threads: int = 1, attention_chunk: int | None = None
    ) -> None: ...
    def set_attention_chunk(self, query_rows: int) -> None: ...

class LinearOps(EngineState):
    def gemm(
        self, a: Floats, b: Floats, *, ta: bool = False, tb: bool = False, c: Floats | None = None
    ) -> Floats: ...
    def linear_forward(self, x: Floats, w: Floats, b: Floats | None = None) -> Floats: ...
    def linear_backward(
        self,
        dout: Floats,
        x: Floats,
        w: Floats,
        *,
        dx: Gradient = None,
        dw: Gradient = None,
        db: Gradient = None,
    ) -> tuple[Floats, Floats, Floats]: ...
    def transpose(self, x: Floats) -> Floats: ...
    def embedding_forward(self, w: Floats, ids: Ids) -> Floats: ...
    def embedding_backward(
        self, dout: Floats, ids: Ids, rows: int, *, dw: Floats | None = None
    ) -> Floats: ...

class ElementwiseOps(LinearOps):
    def fill(self, shape: Shape, value: float) -> Floats: ...
    def copy(self, x: FloatsLike, *, out: Floats | None = None) -> Floats: ...
    def add(self, a: FloatsLike, b: FloatsLike) -> Floats: ...
    def sub(self, a: FloatsLike, b: FloatsLike) -> Floats: ...
    def mul(self, a: FloatsLike, b: FloatsLike) -> Floats: ...
    def div(self, a: FloatsLike, b: FloatsLike) -> Floats: ...
    def neg(self, x: FloatsLike) -> Floats: ...
    def scale(self, x: FloatsLike, s: float, *, out: Floats | None = None) -> Floats: ...
    def mul_acc(self, a: FloatsLike, b: FloatsLike, *, out: Floats | None = None) -> Floats: ...
    def gelu_forward(self, x: FloatsLike) -> Floats: ...
    def gelu_backward(self, dout: Floats, x: Floats, *, dx: Floats | None = None) -> Floats: ...
    def relu_forward(self, x: FloatsLike) -> Floats: ...
    def relu_backward(self, dout: Floats, x: Floats, *, dx: Floats | None = None) -> Floats: ...
    def dropout(
        self,
        x: FloatsLike,
        p: float,
        *,
        seed: int,
        step: int,
        site: str | int,
        first: int = 0,
        out: Floats | None = None,
    ) -> Floats: ...
    def normal(
        self, shape: Shape, *, mean: float = 0.0, std: float = 1.0, seed: int, stream: int
    ) -> Floats: ...

class RowOps(ElementwiseOps):
    def layernorm_forward(
        self, x: Floats, gamma: Floats | None = None, beta: Floats | None = None, *, eps: float = 1e-5
    ) -> tuple[Floats, Floats, Floats]: ...
    def layernorm_backward(
        self,
        dout: Floats,
        x: Floats,
        gamma: Floats | None,
        mean: Floats,
        rstd: Floats,
        *,
        dx: Gradient = None,
        dgamma: Gradient = None,
        dbeta: Gradient = None,
    ) -> tuple[Floats, Floats, Floats]: ...
    def rmsnorm_forward(self, x: Floats, *, eps: float = 1e-5) -> tuple[Floats, Floats]: ...
    def rmsnorm_backward(
        self, dout: Floats, x: Floats, rstd: Floats, *, dx: Floats | None = None
    ) -> Floats: ...
    def softmax_forward(self, x: Floats) -> Floats: ...
    def softmax_backward(self, dout: Floats, out: Floats, *, dx: Floats | None = None) -> Floats: ...
    def sum_rows(self, x: Floats, *, out: Floats | None = None) -> Floats: ...
    def sum(self, x: FloatsLike) -> float: ...
    def sum_squares(self, x: FloatsLike) -> float: ...
    def all_finite(self, x: FloatsLike) -> bool: ...

class AttentionOps(RowOps):
    def attention_forward(
        self,
        q: Floats,
        k: Floats,
        v: Floats,
        n_head: int,
        *,
        dropout_p: float = 0.0,
        seed: int = 0,
        step: int = 0,
        site: str | int = 0,
        first: int = 0,
    ) -> tuple[Floats, Floats, Floats]: ...
    def attention_backward(
        self,
        dout: Floats,
        out: Floats,
        row_max: Floats,
        row_sum: Floats,
        q: Floats,
        k: Floats,
        v: Floats,
        n_head: int,
        *,
        into: tuple[Floats, Floats, Floats] | None = None,
        dropout_p: float = 0.0,
        seed: int = 0,
        step: int = 0,
        site: str | int = 0,
        first: int = 0,
    ) -> tuple[Floats, Floats, Floats]: ...
    def attention_cached(
        self, cache: KVCache, q: Floats, k: Floats, v: Floats, past: int | None = None
    ) -> Floats: ...

class LossOps(AttentionOps):
    def cross_entropy_forward(self, logits: Floats, targets: Ids) -> tuple[Floats, Floats]: ...
    def cross_entropy_backward(
        self,
        logits: Floats,
        log_sum: Floats,
        targets: Ids,
        scale: float,
        *,
        dlogits: Floats | None = None,
    ) -> Floats: ...
    def lm_head_loss_forward(self, x: Floats, w: Floats, targets: Ids) -> tuple[Floats, Floats]: ...
    def lm_head_loss_backward(
        self,
        x: Floats,
        w: Floats,
        log_sum: Floats,
        targets: Ids,
        scale: float,
        *,
        dx: Gradient = None,
        dw: Gradient = None,
    ) -> tuple[Floats, Floats]: ...
    def adamw_step(
        self,
        w: Floats,
        m: Floats,
        v: Floats,
        grad: Floats,
        *,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        step: int,
        grad_scale: float = 1.0,
    ) -> tuple[Floats, Floats, Floats]: ...

class Engine(LossOps): ...
