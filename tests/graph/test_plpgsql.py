"""Installed functions: what architectures compile to, and that built-in ones are committed as compiled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

import llm_sql.models.functions
from llm_sql import graph as g
from llm_sql.models.objects import parse_script

[FUNCTIONS] = map(Path, llm_sql.models.functions.__path__)


def tiny(**changes: Any) -> g.Architecture:
    normed = g.rms_norm(g.x)
    parts: dict[str, Any] = {
        "name": "tiny",
        "stem": g.embedding(g.p("wte"), g.tokens),
        "block": g.x + g.linear(normed, g.p("h.{layer}.a")) * g.linear(normed, g.p("h.{layer}.b")),
        "head": g.lm_head(g.x, g.p("wte")),
        "parameters": [
            g.ParameterSpec("wte", (g.vocab, g.d_model)),
            g.ParameterSpec("h.{layer}.a", (g.d_model, 2 * g.d_model), "residual", std=0.1),
            g.ParameterSpec("h.{layer}.b", (g.d_model, g.d_ff), "zeros"),
        ],
    }
    return g.Architecture(**{**parts, **changes})


@pytest.mark.parametrize("architecture", g.ARCHITECTURES, ids=lambda a: a.name)
def test_the_committed_text_is_what_the_graph_compiles_to(architecture: g.Architecture) -> None:
    path = FUNCTIONS / f"forward_{architecture.name}.sql"
    assert path.read_text() == architecture.script(), "run: python -m llm_sql.graph"


@pytest.mark.parametrize("architecture", g.ARCHITECTURES, ids=lambda a: a.name)
@pytest.mark.parametrize("kind", ["forward", "hidden"])
def test_the_installed_text_is_what_the_graph_compiles_to(
    conn: psycopg.Connection[Any], architecture: g.Architecture, kind: str
) -> None:
    row = conn.execute(
        "SELECT prosrc, provolatile, proparallel FROM pg_proc WHERE oid = %s::regproc",
        (f"public.llm_{kind}_{architecture.name}",),
    ).fetchone()
    assert row is not None
    source, volatility, parallel = row
    compiled = architecture.compile_function() if kind == "forward" else architecture.compile_hidden()
    [body] = re.findall(r"\$function\$\n(.*)\$function\$", compiled, re.DOTALL)
    assert source.strip() == body.strip()
    assert (volatility, parallel) == ("v", "r")


def test_a_block_becomes_assignments_in_a_loop() -> None:
    text = tiny().compile_function()
    loop = text[text.index("FOR layer") : text.index("END LOOP")]
    assert loop == (
        "FOR layer IN 0 .. config.n_layer - 1 LOOP\n"
        "        PERFORM public.pg_llm_tape_segment();\n"
        "        x1 := public.pg_llm_rmsnorm(x, 1e-05);\n"
        "        x := public.pg_llm_add(\n"
        "            x,\n"
        "            public.pg_llm_mul(\n"
        "                public.pg_llm_linear(x1, public.pg_llm_param(model, 'h.' || layer::text || '.a')),\n"
        "                public.pg_llm_linear(x1, public.pg_llm_param(model, 'h.' || layer::text || '.b'))\n"
        "            )\n"
        "        );\n"
        "    "
    )
    assert "x1 public.tensor;" in text


def test_a_head_that_ends_in_lm_head_gives_its_loss_and_last_position_cheaply() -> None:
    text = tiny().compile_function()
    assert "x := public.pg_llm_lm_head_loss(x, public.pg_llm_param(model, 'wte'), targets);" in text
    assert "x := public.pg_llm_lm_head(public.pg_llm_last(x), public.pg_llm_param(model, 'wte'));" in text


def test_any_other_head_gives_them_too() -> None:
    text = re.sub(r"\s+", "", tiny(head=g.linear(g.x, g.p("head"))).compile_function())
    call = "public.pg_llm_linear(x,public.pg_llm_param(model,'head'))"
    assert f"x:=public.pg_llm_cross_entropy({call},targets);" in text
    assert f"x:=public.pg_llm_last({call});" in text


def test_nothing_in_a_body_copies_a_tensor() -> None:
    for architecture in g.ARCHITECTURES:
        for text in (architecture.compile_function(), architecture.compile_hidden()):
            assert not re.search(r":= *x\w*;", text)
            assert "SELECT" not in text.replace(
                "tokens := ARRAY(SELECT t.id FROM unnest(tokens) t (id));", ""
            )


def test_parameters_are_listed_by_a_function() -> None:
    text = tiny().compile_parameters()
    wte = "name := 'wte';\n    init := 'normal'; std := 0.02;"
    assert f"{wte}\n    shape := ARRAY[config.vocab, config.d_model]::int[]; RETURN NEXT;" in text
    residual = (
        "name := 'h.' || layer::text || '.a';\n"
        "        init := 'residual'; std := 0.1 / sqrt(2.0 * config.n_layer);"
    )
    assert (
        f"{residual}\n        shape := ARRAY[config.d_model, 2 * config.d_model]::int[]; RETURN NEXT;" in text
    )
    assert "COALESCE(config.d_ff, 4 * config.d_model)" in text
    assert "init := 'zeros'; std := NULL;" in text


def test_scripts_are_what_the_schema_declares_functions_from() -> None:
    functions = parse_script(tiny().script())
    names = ["llm_forward_tiny", "llm_hidden_tiny", "llm_parameters_tiny"]
    assert [function.name for function in functions] == names
    assert [len(function.comments) for function in functions] == [1, 1, 1]


def test_parameters_are_listed_in_the_order_of_their_declaration_where_their_condition_holds() -> None:
    parameters = [
        g.ParameterSpec("wte", (g.vocab, g.d_model)),
        g.ParameterSpec("h.{layer}.a", (g.d_model,)),
        g.ParameterSpec("head", (g.d_model,), only_if=sa.not_(g.tied)),
    ]
    text = tiny(parameters=parameters).compile_parameters()
    assert text.index("'wte'") < text.index("LOOP") < text.index("END LOOP") < text.index("'head'")
    assert "IF NOT config.tied THEN\n        name := 'head';" in text


def test_an_architecture_of_the_same_graph_calls_its_functions() -> None:
    other = tiny().renamed("other", "Like tiny.")
    assert "RETURN public.llm_forward_tiny(model, tokens, training, targets, dropout_p, last_only);" in (
        other.compile_function()
    )
    assert "RETURN public.llm_hidden_tiny(model, tokens, n_blocks);" in other.compile_hidden()
    assert "FROM public.llm_parameters_tiny(model) p;" in other.compile_parameters()


@pytest.mark.parametrize("name", ["", "Tiny", "tiny; DROP TABLE t", "tiny'", "1st", "x" * 41])
def test_an_architectures_name_is_an_identifier(name: str) -> None:
    with pytest.raises(ArgumentError):
        tiny(name=name)


def test_names_of_parameters_are_quoted() -> None:
    hostile = "'); DROP TABLE llm_param; --\\$function$\n{layer}"
    text = tiny(block=g.x + g.p(hostile), parameters=[g.ParameterSpec(hostile, (1,))])
    for source in (text.compile_function(), text.compile_parameters()):
        assert "E'''); DROP TABLE llm_param; --\\\\$function$\\n' || layer" in source
        tag = source[source.index("AS $") + 3 :].split("\n", 1)[0]
        assert source.count(tag) == 2
    functions = parse_script(text.script())
    assert [f.name for f in functions] == ["llm_forward_tiny", "llm_hidden_tiny", "llm_parameters_tiny"]


def test_values_become_literals() -> None:
    text = tiny(block=g.x * 0.5 + [1.0, float("nan")]).compile_function()
    assert "public.pg_llm_mul(x, '0.5'::public.tensor), '[1.0,NaN]'::public.tensor" in text


def test_expressions_over_the_configuration_are_written_out() -> None:
    width = g.d_model / 2
    text = tiny(block=g.slice_axis(g.x, 1, 0, width)).compile_function()
    assert "config.d_model / " in text
    choice = sa.case((g.tied, "wte"), else_="it's")
    assert "CASE WHEN config.tied THEN 'wte' ELSE 'it''s' END" in tiny(stem=g.p(choice)).compile_function()


def test_what_an_installed_function_cannot_know_is_refused() -> None:
    unknown = g.Variable("temperature", sa.Double())
    with pytest.raises(ArgumentError, match="temperature"):
        tiny(block=g.dropout(g.x, unknown)).compile_function()
    table = sa.table("t", sa.column("w"))
    with pytest.raises(ArgumentError, match=r"t\.w"):
        tiny(block=g.x + table.c.w).compile_function()
    with pytest.raises(ArgumentError, match="x"):
        tiny(parameters=[g.ParameterSpec("a", (g.x,))]).compile_parameters()
    with pytest.raises(ArgumentError, match="twice"):
        tiny(parameters=[g.ParameterSpec("a", (1,)), g.ParameterSpec("a", (1,))])
    with pytest.raises(ArgumentError, match="stem"):
        tiny(stem=g.tokens)


def test_built_in_names_are_not_registered_anew(session: Any) -> None:
    with pytest.raises(ArgumentError, match="built in"):
        tiny(name="gpt2").register(session)
