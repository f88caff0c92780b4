"""What plpgsql.py is for decoders, for encoders: functions that make one vector of each sequence.

An encoder's trees run over sequences laid end to end: `tokens` is [N], and `lengths` says how many of them
each sequence has. What the functions take besides, one sequence or a batch of equally long ones, is laid out
so.
"""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

from . import variables as v
from .elements import SCHEMA, TensorNode
from .plpgsql import LOCALS, READ_CONFIG, SEARCH_PATH, Body, configuration, fill, function

if TYPE_CHECKING:
    from .architecture import Architecture

# One sequence [T] or a batch [B, T], end to end.
_LAY_OUT = f"""
PERFORM {SCHEMA}.llm_require(
    array_ndims(tokens) BETWEEN 1 AND 2,
    format('tokens must be one sequence or a batch of them, got shape %s', {SCHEMA}.llm_shape_text(tokens))
);
width := array_length(tokens, array_ndims(tokens));
lengths := array_fill(width, ARRAY[cardinality(tokens) / width]);
tokens := ARRAY(SELECT t.id FROM unnest(tokens) t (id));"""


def embed_function(arch: Architecture) -> str:
    """CREATE FUNCTION public.llm_embed_<arch>(...), without a semicolon."""
    head = f"""CREATE FUNCTION {SCHEMA}.{arch.embed_name}(
    model text,
    tokens int[],
    lengths int[],
    training boolean DEFAULT false,
    dropout_p double precision DEFAULT 0.1
) RETURNS {SCHEMA}.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
{SEARCH_PATH}"""
    if arch.same_as is not None:
        call = f"{arch.same_as.embed_name}(model, tokens, lengths, training, dropout_p)"
        return function(head, [], f"RETURN {SCHEMA}.{call};")
    arguments = (v.model, v.tokens, v.lengths, v.training, v.dropout_p)
    scope = {**{a.key: a.key for a in arguments}, **configuration(arch), **LOCALS}
    body = Body(scope, f"architecture {arch.name}")
    pieces = {part: body.assign(tree) for part, tree in _trees(arch).items()}
    pieces["config"] = READ_CONFIG + body.read_settings(arch)
    source = f"""
        IF model IS NULL OR tokens IS NULL OR lengths IS NULL THEN
            RETURN NULL;
        END IF;
        @config
        -- A caller that computes many passes pins the version once for all of them.
        pinned := {SCHEMA}.pg_llm_arena_pinned(model);
        IF NOT pinned THEN
            PERFORM {SCHEMA}.llm_pin(model);
        END IF;

        @stem
        FOR layer IN 0 .. config.n_layer - 1 LOOP
            PERFORM {SCHEMA}.pg_llm_tape_segment();
            @block
        END LOOP;
        PERFORM {SCHEMA}.pg_llm_tape_segment();
        @head

        IF NOT pinned THEN
            PERFORM {SCHEMA}.pg_llm_arena_close(model);
        END IF;
        RETURN x;"""
    return function(head, _variables(body), fill(dedent(source).strip("\n"), pieces))


def encoder_forward_function(arch: Architecture) -> str:
    """CREATE FUNCTION public.llm_forward_<arch>(...), what llm_arch.forward names, without a semicolon."""
    head = f"""CREATE FUNCTION {SCHEMA}.{arch.forward_name}(
    model text,
    tokens int[],
    training boolean DEFAULT false,
    targets int[] DEFAULT NULL,
    dropout_p double precision DEFAULT 0.1,
    last_only boolean DEFAULT false
) RETURNS {SCHEMA}.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
{SEARCH_PATH}"""
    source = f"""
        IF model IS NULL OR tokens IS NULL THEN
            RETURN NULL;
        END IF;
        PERFORM {SCHEMA}.llm_require(
            last_only IS NOT TRUE,
            format('model "%s" is an encoder: it has no logits of a last position', model)
        );
        IF targets IS NOT NULL THEN
            RETURN {SCHEMA}.llm_contrastive_loss(model, tokens, targets, training, dropout_p);
        END IF;
        @layout
        RETURN {SCHEMA}.{arch.embed_name}(model, tokens, lengths, training, dropout_p);"""
    pieces = {"layout": _LAY_OUT.strip("\n")}
    return function(head, ["width int;", "lengths int[];"], fill(dedent(source).strip("\n"), pieces))


def encoder_hidden_function(arch: Architecture) -> str:
    """CREATE FUNCTION public.llm_hidden_<arch>(model, tokens, layer), without a semicolon."""
    head = f"""CREATE FUNCTION {SCHEMA}.{arch.hidden_name}(
    model text,
    tokens int[],
    n_blocks int DEFAULT NULL
) RETURNS {SCHEMA}.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
{SEARCH_PATH}"""
    if arch.same_as is not None:
        call = f"{arch.same_as.hidden_name}(model, tokens, n_blocks)"
        return function(head, [], f"RETURN {SCHEMA}.{call};")
    scope = {a.key: a.key for a in (v.model, v.tokens, v.lengths)}
    scope |= {v.training.key: "false", v.dropout_p.key: "0.0", **configuration(arch), **LOCALS}
    body = Body(scope, f"architecture {arch.name}")
    pieces = {part: body.assign(tree) for part, tree in _trees(arch).items() if part != "head"}
    pieces["layout"] = _LAY_OUT.strip("\n")
    pieces["config"] = READ_CONFIG + body.read_settings(arch)
    source = f"""
        IF model IS NULL OR tokens IS NULL THEN
            RETURN NULL;
        END IF;
        is_batch := array_ndims(tokens) = 2;
        @layout
        @config
        n_blocks := COALESCE(n_blocks, config.n_layer);
        pinned := {SCHEMA}.pg_llm_arena_pinned(model);
        IF NOT pinned THEN
            PERFORM {SCHEMA}.llm_pin(model);
        END IF;

        @stem
        FOR layer IN 0 .. least(n_blocks, config.n_layer) - 1 LOOP
            @block
        END LOOP;

        IF NOT pinned THEN
            PERFORM {SCHEMA}.pg_llm_arena_close(model);
        END IF;
        IF is_batch THEN
            RETURN {SCHEMA}.pg_llm_reshape(x, ARRAY[cardinality(lengths), width, config.d_model]);
        END IF;
        RETURN x;"""
    variables = ["is_batch boolean;", "width int;", "lengths int[];", *_variables(body)]
    return function(head, variables, fill(dedent(source).strip("\n"), pieces))


def _trees(arch: Architecture) -> dict[str, TensorNode]:
    return {"stem": arch.stem, "block": arch.block, "head": arch.head}


def _variables(body: Body) -> list[str]:
    declared = [f"config {SCHEMA}.llm_model_config;", "pinned boolean;", f"x {SCHEMA}.tensor;"]
    return declared + [f"{name} {type_};" for name, type_ in body.locals.items()]
