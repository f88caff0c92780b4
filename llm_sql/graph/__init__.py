"""Models as SQL expression trees.

Every function here builds a SQLAlchemy column element of type tensor, so that trees compose with each other,
with columns, bind parameters and ordinary select() statements. Nodes used more than once are evaluated once.

A tree over a stored model's parameters, run ad hoc, and its gradients:

    from llm_sql import graph as g

    wte = g.p("wte.weight")
    hidden = g.embedding(wte, g.tokens)
    hidden = hidden + g.gelu(g.linear(hidden, g.p("h.0.mlp.c_fc.weight"))) @ g.p("h.0.mlp.c_proj.weight")
    logits = g.lm_head(hidden, wte)
    session.execute(g.select({"logits": logits}), {"model": "gpt", "tokens": [3, 1, 2]}).one()
    loss = g.cross_entropy(logits, [1, 2, 0])
    g.gradients(session, loss, {"wte": wte}, model="gpt", tokens=[3, 1, 2]).of["wte"]

An architecture of one's own, trained like a built-in one (`{layer}` is the block's number):

    from llm_sql import functions

    attended = g.causal_attention_qkv(g.linear(g.rms_norm(g.x), g.p("h.{layer}.qkv")))
    mine = g.Architecture(
        "mine",
        stem=g.embedding(g.p("wte"), g.tokens) + g.embedding(g.p("wpe"), g.positions(g.tokens)),
        block=g.x + g.linear(attended, g.p("h.{layer}.out")),
        head=g.lm_head(g.rms_norm(g.x), g.p("wte")),
        parameters=[
            g.ParameterSpec("wte", (g.vocab, g.d_model)),
            g.ParameterSpec("wpe", (g.n_positions, g.d_model)),
            g.ParameterSpec("h.{layer}.qkv", (g.d_model, 3 * g.d_model)),
            g.ParameterSpec("h.{layer}.out", (g.d_model, g.d_model), "residual"),
        ],
    )
    mine.register(session)
    session.scalar(select(functions.llm_create_model("tiny", arch="mine", n_layer=2, n_head=2, d_model=32)))
    session.scalar(select(functions.llm_loss("tiny", [3, 1, 2], [1, 2, 0])))

Variables (`tokens`, `targets`, `model`, `training`, ...) are bind parameters of their own name in a SELECT,
and the arguments of the installed function, or the model's configuration, in an architecture.
"""

from llm_sql.models import Setting

from . import ops
from .adhoc import select
from .architecture import Architecture, ParameterSpec
from .bert import bert
from .built_in import ARCHITECTURES
from .elements import BOOLEAN, INTEGER, JSON, REAL, TEXT, Node, TensorNode, Variable
from .gpt import gpt2, gpt3, microgpt
from .gradients import Gradients, gradients
from .llama import llama
from .neox import neox
from .ops import *  # noqa: F403 (what ops.__all__ lists)
from .opt import opt
from .substitute import bind
from .variables import (
    activation_function,
    d_ff,
    d_model,
    dropout_p,
    layer,
    layer_norm_eps,
    lengths,
    model,
    n_head,
    n_layer,
    n_positions,
    setting,
    targets,
    tied,
    tokens,
    training,
    vocab,
    x,
)

__all__ = [
    "ARCHITECTURES",
    "BOOLEAN",
    "INTEGER",
    "JSON",
    "REAL",
    "TEXT",
    "Architecture",
    "Gradients",
    "Node",
    "ParameterSpec",
    "Setting",
    "TensorNode",
    "Variable",
    "activation_function",
    "bert",
    "bind",
    "d_ff",
    "d_model",
    "dropout_p",
    "gpt2",
    "gpt3",
    "gradients",
    "layer",
    "layer_norm_eps",
    "lengths",
    "llama",
    "microgpt",
    "model",
    "n_head",
    "n_layer",
    "n_positions",
    "neox",
    "opt",
    "select",
    "setting",
    "targets",
    "tied",
    "tokens",
    "training",
    "vocab",
    "x",
]
__all__ += ops.__all__
