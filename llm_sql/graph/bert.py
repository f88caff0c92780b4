"""The built-in encoder: bert (Devlin et al. 2018), pooled as sentence-transformers pools (Reimers & Gurevych
2019).
"""

from __future__ import annotations

from llm_sql.models.settings import BERT

from .architecture import Architecture, ParameterSpec
from .elements import BOOLEAN, INTEGER, TEXT
from .layers import affine, affine_parameters, norm_parameters, normed
from .ops import activation, bidirectional_attention, dropout, embedding, l2_normalize, p, pool, positions
from .variables import d_ff, d_model, lengths, n_positions, setting, tokens, vocab, x

# Every weight begins normal with standard deviation 0.02, as transformers has it: nothing is scaled by depth.
_PARAMETERS = (
    ParameterSpec("wte.weight", (vocab, d_model)),
    ParameterSpec("wpe.weight", (n_positions, d_model)),
    ParameterSpec("wtt.weight", (setting("type_vocab", INTEGER), d_model)),
    *norm_parameters("ln_embd"),
    *(
        spec
        for part in "qkvo"
        for spec in affine_parameters(f"h.{{layer}}.attn.{part}_proj", d_model, d_model)
    ),
    *norm_parameters("h.{layer}.ln_1"),
    *affine_parameters("h.{layer}.mlp.fc1", d_model, d_ff),
    *affine_parameters("h.{layer}.mlp.fc2", d_ff, d_model),
    *norm_parameters("h.{layer}.ln_2"),
)


def _bert() -> Architecture:
    """LayerNorm after each residual sum; all tokens are of the first type."""
    first_type = p("wtt.weight")[:1]
    embedded = embedding(p("wte.weight"), tokens) + first_type
    placed = embedded + embedding(p("wpe.weight"), positions(tokens, lengths))
    stem = dropout(normed(placed, "ln_embd"), site="embd")
    q, k, v = (affine(x, f"h.{{layer}}.attn.{part}_proj") for part in "qkv")
    attention = bidirectional_attention(q, k, v, site="h.{layer}.attn", lengths=lengths)
    mixed = dropout(affine(attention, "h.{layer}.attn.o_proj"), site="h.{layer}.resid_attn")
    attended = normed(x + mixed, "h.{layer}.ln_1")
    mlp = affine(activation(affine(attended, "h.{layer}.mlp.fc1")), "h.{layer}.mlp.fc2")
    block = normed(attended + dropout(mlp, site="h.{layer}.resid_mlp"), "h.{layer}.ln_2")
    pooled = pool(x, lengths, setting("pooling", TEXT))
    return Architecture(
        "bert",
        stem,
        block,
        l2_normalize(pooled, setting("normalize", BOOLEAN)),
        _PARAMETERS,
        "BERT: a sentence encoder with LayerNorm after each sum, learned positions (Devlin et al. 2018).",
        kind="encoder",
        settings=BERT,
    )


bert = _bert()
