"""Types of the Cython module. Shapes and formulas stand in the docstrings of the *.pxi files."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, overload

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

BPE_FLAGS: dict[str, int]
PRE_TOKENIZERS: tuple[str, ...]

class BPE:
    def __init__(
        self,
        tokens: Iterable[tuple[int, bytes]],
        merges: Iterable[tuple[bytes, bytes]],
        special: Iterable[int] = (),
        flags: Mapping[int, int] | None = None,
        *,
        pre_tokenizer: str = "gpt2",
        normalizer: str | None = None,
        ignore_merges: bool = False,
        drop_unknown: bool = False,
        prefix_space: str | None = None,
        split: bool = False,
        strip: bool = False,
    ) -> None: ...
    def encode(self, text: str | bytes, *, special: bool = False) -> npt.NDArray[np.int32]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def decode_bytes(self, ids: Iterable[int]) -> bytes: ...

def nfc(text: str | bytes) -> bytes: ...
def bpe_pieces(text: str | bytes, pre_tokenizer: str = "gpt2") -> list[bytes]: ...
def bpe_alphabet(token: bytes) -> str: ...
def bpe_alphabet_bytes(token: str) -> bytes: ...
def parse_bpe_vocab(contents: bytes) -> list[tuple[int, str]]: ...
def parse_bpe_merges(contents: bytes) -> list[tuple[str, str]]: ...
def parse_tiktoken(contents: bytes) -> list[tuple[int, bytes]]: ...
def recover_merges(tokens: Iterable[tuple[int, bytes]]) -> list[tuple[bytes, bytes]]: ...
def train_bpe(texts: Iterable[str], n_merges: int, min_count: int = 2) -> list[tuple[int, int]]: ...

class WordPiece:
    def __init__(
        self,
        tokens: Iterable[tuple[int, str]],
        *,
        flags: Mapping[int, int] | None = None,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        lowercase: bool = True,
        unk_token: str = "[UNK]",
        continuing_subword_prefix: str = "##",
        max_input_chars_per_word: int = 100,
        cleanup: bool = True,
    ) -> None: ...
    def encode(self, text: str | bytes, *, special: bool = False) -> npt.NDArray[np.int32]: ...
    def decode(self, ids: Iterable[int]) -> str: ...

def bert_normalize(
    text: str | bytes,
    *,
    clean_text: bool = True,
    handle_chinese_chars: bool = True,
    strip_accents: bool | None = None,
    lowercase: bool = True,
) -> str: ...
def parse_wordpiece_vocab(contents: bytes) -> list[tuple[int, str]]: ...

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
    def fma_burst(self, tasks: int) -> float: ...

class LinearOps(EngineState):
    def gemm(
        self,
        a: Floats,
        b: Floats,
        *,
        ta: bool = False,
        tb: bool = False,
        c: Floats | None = None,
        out: Floats | None = None,
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
    def gelu_exact_forward(self, x: FloatsLike) -> Floats: ...
    def gelu_exact_backward(self, dout: Floats, x: Floats, *, dx: Floats | None = None) -> Floats: ...
    def relu_forward(self, x: FloatsLike) -> Floats: ...
    def relu_backward(self, dout: Floats, x: Floats, *, dx: Floats | None = None) -> Floats: ...
    def silu_forward(self, x: FloatsLike) -> Floats: ...
    def silu_backward(self, dout: Floats, x: Floats, *, dx: Floats | None = None) -> Floats: ...
    def swiglu_forward(self, gate: Floats, up: Floats) -> Floats: ...
    def swiglu_backward(
        self, dout: Floats, gate: Floats, up: Floats, *, dgate: Gradient = None, dup: Gradient = None
    ) -> tuple[Floats, Floats]: ...
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
    def rmsnorm_forward(
        self, x: Floats, gain: Floats | None = None, *, eps: float = 1e-5
    ) -> tuple[Floats, Floats]: ...
    @overload
    def rmsnorm_backward(
        self, dout: Floats, x: Floats, rstd: Floats, gain: None = None, *, dx: Floats | None = None
    ) -> Floats: ...
    @overload
    def rmsnorm_backward(
        self,
        dout: Floats,
        x: Floats,
        rstd: Floats,
        gain: Floats,
        *,
        dx: Floats | None = None,
        dgain: Gradient = None,
    ) -> tuple[Floats, Floats]: ...
    def l2_normalize_forward(self, x: Floats) -> tuple[Floats, Floats]: ...
    def l2_normalize_backward(
        self, dout: Floats, out: Floats, norm: Floats, *, dx: Floats | None = None
    ) -> Floats: ...
    def mean_pool_forward(self, x: Floats, lengths: Ids) -> Floats: ...
    def mean_pool_backward(self, dout: Floats, lengths: Ids, *, dx: Floats | None = None) -> Floats: ...
    def cls_pool_forward(self, x: Floats, lengths: Ids) -> Floats: ...
    def cls_pool_backward(self, dout: Floats, lengths: Ids, *, dx: Floats | None = None) -> Floats: ...
    def softmax_forward(self, x: Floats) -> Floats: ...
    def softmax_backward(self, dout: Floats, out: Floats, *, dx: Floats | None = None) -> Floats: ...
    def sum_rows(self, x: Floats, *, out: Floats | None = None) -> Floats: ...
    def sum(self, x: FloatsLike) -> float: ...
    def sum_squares(self, x: FloatsLike) -> float: ...
    def all_finite(self, x: FloatsLike) -> bool: ...

class AttentionOps(RowOps):
    def rotary_forward(
        self,
        x: Floats,
        positions: Ids,
        n_head: int,
        *,
        theta: float = 10000.0,
        dims: int = 0,
        scaling: tuple[str | float, ...] | None = None,
    ) -> tuple[Floats, Floats, Floats]: ...
    def rotary_backward(
        self, dout: Floats, cosine: Floats, sine: Floats, n_head: int, *, dx: Floats | None = None
    ) -> Floats: ...
    def attention_forward(
        self,
        q: Floats,
        k: Floats,
        v: Floats,
        n_head: int,
        *,
        n_kv_head: int | None = None,
        window: int | None = None,
        bidirectional: bool = False,
        lengths: Ids | None = None,
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
        n_kv_head: int | None = None,
        window: int | None = None,
        bidirectional: bool = False,
        lengths: Ids | None = None,
        dropout_p: float = 0.0,
        seed: int = 0,
        step: int = 0,
        site: str | int = 0,
        first: int = 0,
    ) -> tuple[Floats, Floats, Floats]: ...
    def attention_cached(
        self,
        cache: KVCache,
        q: Floats,
        k: Floats,
        v: Floats,
        past: int | None = None,
        *,
        n_head: int | None = None,
        window: int | None = None,
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

class PackedWeights:
    inputs: int
    outputs: int
    precision: str
    @property
    def nbytes(self) -> int: ...
    def tobytes(self) -> bytes: ...
    @staticmethod
    def view(
        data: bytes | npt.NDArray[np.uint8],
        inputs: int,
        outputs: int,
        precision: Literal["bf16", "int8", "int4"],
    ) -> PackedWeights: ...

class PackedOps(LossOps):
    def pack(
        self, w: Floats, precision: Literal["bf16", "int8", "int4"], *, transposed: bool = False
    ) -> PackedWeights: ...
    def packed_forward(self, x: Floats, w: PackedWeights, b: Floats | None = None) -> Floats: ...

class Engine(PackedOps): ...

class DecodeLoop:
    n_positions: int
    def __init__(
        self,
        engine: Engine,
        *,
        n_layer: int,
        n_head: int,
        d_model: int,
        n_positions: int,
        vocab: int,
        precision: str = "float32",
    ) -> None: ...
    def prompt(self, n: int) -> None: ...
    def tokens(self, past: int, n: int) -> int: ...

class WeightsFileError(ValueError): ...

class WeightsFile:
    path: str
    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> WeightsFile: ...
    def __exit__(self, *_: object) -> None: ...
    @property
    def format(self) -> str: ...
    def tensors(self) -> list[tuple[str, str, tuple[int, ...]]]: ...
    def metadata(self, key: str) -> str | None: ...
    def read(self, name: str, first_row: int = 0, rows: int | None = None) -> Floats: ...

class WeightsWriter:
    def __init__(
        self,
        fd: int,
        format: str,
        tensors: Iterable[tuple[str, Sequence[int]] | tuple[str, Sequence[int], str]],
        metadata: Mapping[str, str] | None = None,
    ) -> None: ...
    def write(self, data: Floats | bytes | memoryview) -> None: ...
    def finish(self) -> None: ...

def megatron_rows(n_head: int, d_head: int, version: float) -> npt.NDArray[np.int64]: ...
