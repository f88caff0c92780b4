"""The variables that trees run over.

In a SELECT each is a bind parameter of its name; in an architecture the first few are arguments of the
installed function, and those from n_layer on are read from the model's row of llm_model_config. What an
architecture needs besides is a `setting(...)`, read from that row's settings.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.types import TypeEngine

from .elements import BOOLEAN, INTEGER, INTEGERS, REAL, TEXT, TensorVariable, Variable

x = TensorVariable("x")
"""The residual stream: what the stem made and each block hands on."""
model = Variable("model", TEXT)
"""The model's name: in scope for every parameter `p(...)`."""
tokens = Variable("tokens", INTEGERS)
"""Token ids, [T] or [B, T]."""
targets = Variable("targets", INTEGERS)
"""Next tokens, shaped as `tokens`; those below 0 are ignored by losses."""
lengths = Variable("lengths", INTEGERS, value=None)
"""The number of tokens of each sequence, where `tokens` [N] holds several end to end."""
training = Variable("training", BOOLEAN, value=False)
"""Whether dropout acts."""
dropout_p = Variable("dropout_p", REAL, value=0.1)
"""The probability with which dropout zeroes an element."""
layer = Variable("layer", INTEGER, structural=True)
"""The number of a block, from 0."""
n_layer = Variable("n_layer", INTEGER)
n_head = Variable("n_head", INTEGER)
d_model = Variable("d_model", INTEGER)
n_positions = Variable("n_positions", INTEGER)
vocab = Variable("vocab", INTEGER)
d_ff = Variable("d_ff", INTEGER)
"""Width of the feed-forward layer; 4 * d_model unless the model's configuration says otherwise."""
layer_norm_eps = Variable("layer_norm_eps", REAL, value=1e-5)
activation_function = Variable("activation_function", TEXT, value="gelu_new")
"""What acts inside the feed-forward layer, as Hugging Face names it."""
tied = Variable("tied", BOOLEAN, value=True)
"""Whether the token embedding is the output head too."""


def setting(name: str, type_: TypeEngine[Any], **default: Any) -> Variable:
    """A setting of the model's configuration, which the architecture declares (Architecture.settings).

    In a SELECT it is a variable like others; `value` is its default there.
    """
    return Variable(name, type_, **default)
