"""The ops: one declaration each of a Python function, the SQL function it stands for, and its arguments.

docs/develop/adding-an-operation.md tells how one is added: here, by a function whose body lists the SQL
arguments. Shapes are written as in NumPy; ... stands for any leading axes. The formulas stand at the kernels,
in kernels/core/llm_core.h.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.sql.elements import ColumnElement

from . import variables
from .declared import (
    OPS,
    Arguments,
    BoolLike,
    IntLike,
    IntsLike,
    RealLike,
    TensorLike,
    TextLike,
    boolean,
    choose,
    integer,
    integers,
    lengths_of,
    let,
    op,
    p,
    real,
    scalar_op,
    text,
)
from .elements import (
    BIGINT,
    INTEGERS,
    JSON,
    REAL,
    SLICE,
    Arg,
    TensorNode,
    coerce,
    tensor,
)

__all__ = [
    "OPS",
    "activation",
    "add",
    "attention",
    "bidirectional_attention",
    "causal_attention",
    "causal_attention_qkv",
    "choose",
    "cls_pool",
    "concat",
    "cross_entropy",
    "div",
    "dropout",
    "embedding",
    "gelu",
    "gelu_exact",
    "item",
    "l2_normalize",
    "last",
    "layer_norm",
    "let",
    "linear",
    "lm_head",
    "lm_head_loss",
    "matmul",
    "mean_all",
    "mean_pool",
    "mul",
    "neg",
    "norm",
    "ones_like",
    "op",
    "p",
    "pool",
    "positions",
    "relu",
    "reshape",
    "rms_norm",
    "rotary",
    "shape",
    "silu",
    "slice_axis",
    "softmax",
    "sub",
    "sum_all",
    "swiglu",
    "tensor_id",
    "track",
    "transpose",
    "zeros_like",
]

# ---- values ----


@op("pg_llm_autograd_track_tensor")
def track(x: TensorLike) -> Arguments:
    """`x` as a leaf whose gradient is wanted; parameters are leaves of their own accord."""
    return [tensor(x)]


@op("pg_llm_zeros_like")
def zeros_like(x: TensorLike) -> Arguments:
    """Zeros of x's shape."""
    return [tensor(x)]


@op("pg_llm_ones_like")
def ones_like(x: TensorLike) -> Arguments:
    """Ones of x's shape."""
    return [tensor(x)]


@scalar_op("pg_llm_tensor_id", BIGINT)
def tensor_id(x: TensorLike) -> Arguments:
    """The number of x in the recorded pass, bigint; NULL when it is not part of one."""
    return [tensor(x)]


# ---- tokens and positions ----


@op("pg_llm_embedding")
def embedding(w: TensorLike, ids: IntsLike) -> Arguments:
    """Rows of w [V, D] at ids [...] -> [..., D]. An id outside 0 .. V-1 is error 22003."""
    return [tensor(w), integers(ids)]


@scalar_op("pg_llm_positions", INTEGERS)
def positions(ids: IntsLike, lengths: IntsLike | None = None) -> Arguments:
    """0 .. T-1 in each row of ids [..., T], counted from the open key/value cache's end -> int[...].

    With lengths, ids [N] holds sequences of so many tokens end to end, each counted from 0.
    """
    return [integers(ids), lengths_of(lengths)]


@op("pg_llm_rotary")
def rotary(
    x: TensorLike,
    n_head: IntLike,
    theta: RealLike,
    dims: IntLike,
    positions: IntsLike,
    scaling: Mapping[str, Any] | ColumnElement[Any] | None = None,
) -> Arguments:
    """Rotary position embedding (Su et al. 2021) of queries or keys x [..., T, n_head * d_head].

    Of each head the first `dims` numbers (0: all d_head) are turned in pairs (i, i + dims/2), Hugging Face's
    half-split form, by the angle positions * theta**(-2i/dims). positions is int[T], or one number per row
    of x. `scaling` is a configuration's rope_scaling: rope_type "linear" or "llama3" with its factors.
    """
    if isinstance(scaling, Mapping):
        rope: Arg | None = text(json.dumps(dict(scaling)))
    else:
        rope = None if scaling is None else coerce(scaling, JSON)
    return [tensor(x), integer(n_head), real(theta), integer(dims), integers(positions), rope]


# ---- arithmetic ----


def add(a: TensorLike, b: TensorLike) -> TensorNode:
    """a + b with NumPy's broadcasting."""
    return TensorNode(OPS["add"], [tensor(a), tensor(b)])


def sub(a: TensorLike, b: TensorLike) -> TensorNode:
    """a - b with NumPy's broadcasting."""
    return TensorNode(OPS["sub"], [tensor(a), tensor(b)])


def mul(a: TensorLike, b: TensorLike) -> TensorNode:
    """a * b, elementwise, with NumPy's broadcasting."""
    return TensorNode(OPS["mul"], [tensor(a), tensor(b)])


def div(a: TensorLike, b: TensorLike) -> TensorNode:
    """a / b, elementwise, with NumPy's broadcasting."""
    return TensorNode(OPS["div"], [tensor(a), tensor(b)])


def neg(x: TensorLike) -> TensorNode:
    """-x."""
    return TensorNode(OPS["neg"], [tensor(x)])


def matmul(a: TensorLike, b: TensorLike) -> TensorNode:
    """a [..., M, K] @ b [..., K, N] -> [..., M, N], batched as numpy.matmul."""
    return TensorNode(OPS["matmul"], [tensor(a), tensor(b)])


@op("pg_llm_linear")
def linear(x: TensorLike, w: TensorLike, b: TensorLike | None = None) -> Arguments:
    """x [..., I] @ w [I, O] + b [O] -> [..., O]."""
    return [tensor(x), tensor(w), None if b is None else tensor(b)]


# ---- shape ----


@op("pg_llm_transpose")
def transpose(x: TensorLike) -> Arguments:
    """The last two axes exchanged: [..., M, N] -> [..., N, M]."""
    return [tensor(x)]


@op("pg_llm_reshape")
def reshape(x: TensorLike, shape: IntsLike) -> Arguments:
    """The same elements, row-major, in another shape of the same size."""
    return [tensor(x), integers(shape)]


def slice_axis(x: TensorLike, axis: IntLike, start: IntLike, stop: IntLike) -> TensorNode:
    """start .. stop-1 of one axis; negative numbers count from the end, as in Python."""
    return TensorNode(SLICE, [tensor(x), integer(axis), integer(start), integer(stop)])


@op("pg_llm_concat")
def concat(a: TensorLike, b: TensorLike, axis: IntLike) -> Arguments:
    """b after a along `axis`; the other axes agree."""
    return [tensor(a), tensor(b), integer(axis)]


@op("pg_llm_last")
def last(x: TensorLike) -> Arguments:
    """The last position of x [..., T, D] -> [..., 1, D]."""
    return [tensor(x)]


@scalar_op("shape", INTEGERS)
def shape(x: TensorLike) -> Arguments:
    """The dimensions, int[]."""
    return [tensor(x)]


@scalar_op("pg_llm_item", REAL)
def item(x: TensorLike) -> Arguments:
    """The number in a tensor of one element, double precision."""
    return [tensor(x)]


# ---- reductions ----


@scalar_op("norm", REAL)
def norm(x: TensorLike) -> Arguments:
    """The square root of the sum of squares of all elements, double precision."""
    return [tensor(x)]


@op("pg_llm_sum")
def sum_all(x: TensorLike) -> Arguments:
    """The sum of all elements, 0-d."""
    return [tensor(x)]


@op("pg_llm_mean")
def mean_all(x: TensorLike) -> Arguments:
    """The mean of all elements, 0-d."""
    return [tensor(x)]


# ---- per row of the last axis ----


@op("pg_llm_layernorm")
def layer_norm(x: TensorLike, gamma: TensorLike, beta: TensorLike, eps: RealLike = 1e-5) -> Arguments:
    """(x - mean) / sqrt(var + eps) * gamma [D] + beta [D] over rows of x [..., D] (Ba et al. 2016)."""
    return [tensor(x), tensor(gamma), tensor(beta), real(eps)]


@op("pg_llm_rmsnorm")
def rms_norm(x: TensorLike, eps: RealLike = 1e-5, gain: TensorLike | None = None) -> Arguments:
    """x / sqrt(mean(x^2) + eps) over the last axis (Zhang & Sennrich 2019), times gain if there is one.

    A gain [G] whose G divides the axis normalises each G numbers by themselves, as norms of heads do.
    """
    return [tensor(x), real(eps)] if gain is None else [tensor(x), tensor(gain), real(eps)]


@op("pg_llm_l2_normalize")
def l2_normalize(x: TensorLike, enabled: BoolLike = True) -> Arguments:
    """x / max(|x|, 1e-12) over the last axis, |x| the 2-norm; x itself when not enabled."""
    return [tensor(x), boolean(enabled)]


@op("pg_llm_softmax")
def softmax(x: TensorLike) -> Arguments:
    """exp(x) / sum(exp(x)) over the last axis."""
    return [tensor(x)]


# ---- activations, dropout ----


@op("pg_llm_gelu")
def gelu(x: TensorLike) -> Arguments:
    """GELU in the tanh form that GPT-2 has (Hendrycks & Gimpel 2016)."""
    return [tensor(x)]


@op("pg_llm_gelu_exact")
def gelu_exact(x: TensorLike) -> Arguments:
    """GELU itself: x times the normal distribution's Phi(x) (Hendrycks & Gimpel 2016)."""
    return [tensor(x)]


@op("pg_llm_activation")
def activation(x: TensorLike, name: TextLike = variables.activation_function) -> Arguments:
    """The activation of that name in Hugging Face's configurations: gelu_new, gelu, relu, ..."""
    return [tensor(x), text(name)]


@op("pg_llm_relu")
def relu(x: TensorLike) -> Arguments:
    """max(x, 0)."""
    return [tensor(x)]


@op("pg_llm_silu")
def silu(x: TensorLike) -> Arguments:
    """x sigmoid(x) (Hendrycks & Gimpel 2016), also called swish."""
    return [tensor(x)]


@op("pg_llm_swiglu")
def swiglu(gate: TensorLike, up: TensorLike) -> Arguments:
    """silu(gate) * up, of one shape: the middle of a gated feed-forward layer (Shazeer 2020)."""
    return [tensor(gate), tensor(up)]


@op("pg_llm_dropout")
def dropout(
    x: TensorLike,
    p: RealLike = variables.dropout_p,
    training: BoolLike = variables.training,
    site: TextLike = "",
) -> Arguments:
    """x, and in training with a share p of its elements zeroed and the others scaled by 1 / (1 - p).

    `site` names the place in the model, which keys the random numbers: no two places share a name.
    """
    return [tensor(x), real(p), boolean(training), text(site)]


# ---- attention ----


@op("pg_llm_causal_attention")
def causal_attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    n_head: IntLike = variables.n_head,
    dropout_p: RealLike = variables.dropout_p,
    training: BoolLike = variables.training,
    site: TextLike = "",
    n_kv_head: IntLike | None = None,
    window: IntLike | None = None,
) -> Arguments:
    """Causal multi-head attention of q [..., T, D] to k, v [..., T, D / n_head * n_kv_head] -> [..., T, D].

    Scores are scaled by 1 / sqrt(D / n_head); dropout acts on the weights. With a key/value cache open, the
    tokens attend to those in the cache too. Each of k's and v's n_kv_head heads (None: n_head) serves
    n_head / n_kv_head of q's in a row. With a window a token sees itself and the window - 1 before it; None
    or 0: all before it.
    """
    if window is not None and n_kv_head is None:
        n_kv_head = n_head
    shared = [None if n is None else integer(n) for n in (n_kv_head, window)]
    return [
        *(tensor(x) for x in (q, k, v)),
        integer(n_head),
        real(dropout_p),
        boolean(training),
        text(site),
        *shared,
    ]


@op("pg_llm_causal_attention")
def causal_attention_qkv(
    qkv: TensorLike,
    n_head: IntLike = variables.n_head,
    dropout_p: RealLike = variables.dropout_p,
    training: BoolLike = variables.training,
    site: TextLike = "",
    window: IntLike | None = None,
) -> Arguments:
    """`causal_attention` over one tensor qkv [..., T, 3D], per token [q | k | v] -> [..., T, D]."""
    seen = None if window is None else integer(window)
    return [tensor(qkv), integer(n_head), real(dropout_p), boolean(training), text(site), seen]


@op("pg_llm_bidirectional_attention")
def bidirectional_attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    n_head: IntLike = variables.n_head,
    dropout_p: RealLike = variables.dropout_p,
    training: BoolLike = variables.training,
    site: TextLike = "",
    lengths: IntsLike | None = None,
) -> Arguments:
    """Attention of every token to all of its sequence over q, k, v, each [..., T, D] -> [..., T, D].

    With lengths, q, k, v [N, D] hold sequences of so many tokens end to end. Scores and dropout are those of
    `causal_attention`.
    """
    inputs = [tensor(q), tensor(k), tensor(v), integer(n_head), real(dropout_p), boolean(training)]
    return [*inputs, text(site), lengths_of(lengths)]


@op("pg_llm_attention")
def attention(
    x: TensorLike,
    w_qkv: TensorLike,
    b_qkv: TensorLike,
    w_o: TensorLike,
    b_o: TensorLike,
    n_head: IntLike,
    T: IntLike,
    D: IntLike,
) -> Arguments:
    """GPT-2's attention with its projections w_qkv [D, 3D] and w_o [D, D]: x [..., T, D] -> [..., T, D]."""
    weights = [tensor(x), tensor(w_qkv), tensor(b_qkv), tensor(w_o), tensor(b_o)]
    return [*weights, integer(n_head), integer(T), integer(D)]


# ---- one row for each sequence ----


@op("pg_llm_mean_pool")
def mean_pool(x: TensorLike, lengths: IntsLike | None = None) -> Arguments:
    """The mean over each sequence of x [..., T, D] -> [..., D].

    With lengths, x [N, D] holds sequences of so many tokens end to end -> [sequences, D].
    """
    return [tensor(x), lengths_of(lengths)]


@op("pg_llm_cls_pool")
def cls_pool(x: TensorLike, lengths: IntsLike | None = None) -> Arguments:
    """The first row of each sequence, which are those of `mean_pool`."""
    return [tensor(x), lengths_of(lengths)]


@op("pg_llm_pool")
def pool(x: TensorLike, lengths: IntsLike | None, pooling: TextLike) -> Arguments:
    """`mean_pool` or `cls_pool`, by the name "mean" or "cls"."""
    return [tensor(x), integers(lengths), text(pooling)]


# ---- heads and losses ----


@op("pg_llm_lm_head")
def lm_head(x: TensorLike, w: TensorLike) -> Arguments:
    """Logits x [..., D] @ transpose(w [V, D]) -> [..., V]."""
    return [tensor(x), tensor(w)]


@op("pg_llm_lm_head_loss")
def lm_head_loss(x: TensorLike, w: TensorLike, targets: IntsLike = variables.targets) -> Arguments:
    """cross_entropy(lm_head(x, w), targets), the same bits, without holding the logits."""
    return [tensor(x), tensor(w), integers(targets)]


@op("pg_llm_cross_entropy")
def cross_entropy(logits: TensorLike, targets: IntsLike = variables.targets) -> Arguments:
    """The mean of -log softmax(logits [..., V])[targets [...]] over targets >= 0, 0-d."""
    return [tensor(logits), integers(targets)]
