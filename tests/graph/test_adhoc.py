"""Trees inside SELECT statements: the text, SQLAlchemy's traversals and statement cache."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.exc import ArgumentError

from llm_sql import graph as g
from llm_sql.models import Dataset
from llm_sql.models.types import Tensor

from ..amount import extended

DIALECT = psycopg.dialect()  # type: ignore[attr-defined]


def compiled(statement: Any) -> str:
    return " ".join(str(statement.compile(dialect=DIALECT)).split())


def tree() -> g.TensorNode:
    hidden = g.embedding(g.p("wte"), g.tokens)
    return hidden + g.gelu(hidden)


def test_a_shared_node_stands_in_a_derived_table() -> None:
    assert compiled(g.select(tree(), model="m", tokens=[1, 2])) == (
        "SELECT graph.value FROM (SELECT public.pg_llm_add(x1, public.pg_llm_gelu(x1)) AS value FROM (SELECT "
        "public.pg_llm_embedding(public.llm_weight(%(param_1)s::VARCHAR, 'wte'), %(param_2)s::INTEGER[]) "
        "AS x1 OFFSET 0) AS llm_sql_1 OFFSET 0) AS graph"
    )


def test_as_a_column_element_it_is_a_scalar_subquery() -> None:
    statement = sa.select(tree().label("h"), sa.literal(1).label("one"))
    assert compiled(statement) == (
        "SELECT (SELECT public.pg_llm_add(x1, public.pg_llm_gelu(x1)) FROM (SELECT public.pg_llm_embedding("
        "public.llm_weight(%(model)s::VARCHAR, 'wte'), %(tokens)s::INTEGER[]) AS x1 OFFSET 0) AS llm_sql_1) "
        "AS h, %(param_1)s::INTEGER AS one"
    )


def test_without_sharing_it_is_a_plain_call() -> None:
    assert compiled(sa.select(g.relu(g.p("a")).label("r"))) == (
        "SELECT public.pg_llm_relu(public.llm_weight(%(model)s::VARCHAR, 'a')) AS r"
    )


def test_a_passed_on_binding_is_dropped_after_its_last_use() -> None:
    a = g.let("a", g.relu(g.p("a")))
    b = g.let("b", g.relu(a))
    c = g.let("c", b + a)
    text = compiled(g.select(g.relu(c), model="m"))
    assert "SELECT a, public.pg_llm_relu(a) AS b FROM" in text
    assert "SELECT public.pg_llm_add(b, a) AS c FROM" in text


def test_trees_of_one_select_share_nodes() -> None:
    hidden = g.relu(g.p("a"))
    text = compiled(g.select({"loss": g.mean_all(hidden), "Hidden": hidden}, model="m"))
    assert text.count("pg_llm_relu") == 1
    assert 'x1 AS "Hidden"' in text


def test_columns_of_tables_are_correlated() -> None:
    hidden = g.embedding(g.p("wte", model="m"), Dataset.tokens)
    text = compiled(sa.select(Dataset.id, hidden + hidden))
    assert text.endswith("AS x1 OFFSET 0) AS llm_sql_1) AS anon_1 FROM public.llm_dataset")
    assert "public.llm_dataset.tokens" in text


def test_columns_of_tables_have_no_place_in_graph_select() -> None:
    with pytest.raises(ArgumentError, match="llm_dataset"):
        g.select(g.embedding(g.p("wte"), Dataset.tokens), model="m")


def test_column_expressions_take_part() -> None:
    table = sa.table("t", sa.column("w", Tensor()))
    shared = g.relu(g.p("a"))
    text = compiled(sa.select(g.gelu(table.c.w + shared) + shared))
    assert text.count("pg_llm_relu") == 1
    assert "public.pg_llm_add(t.w, x1)" in text


def test_statements_that_differ_in_values_share_a_cache_entry() -> None:
    def key(statement: Any) -> Any:
        return statement._generate_cache_key().key

    one = g.select(tree() * 2.0, model="a", tokens=[1])
    assert key(one) == key(g.select(tree() * 3.0, model="b", tokens=[1, 2, 3]))
    hidden, again = (g.embedding(g.p("wte"), g.tokens) for _ in range(2))
    unshared = g.select((hidden + g.gelu(again)) * 2.0, model="a", tokens=[1])
    assert key(one) != key(unshared)
    assert key(g.select(g.p("a"), model="m")) != key(g.select(g.p("b"), model="m"))
    assert key(sa.select(g.dropout(g.x, 1.0))) != key(sa.select(g.rms_norm(g.x, 1.0)))


def test_constants_that_python_holds_equal_are_kept_apart() -> None:
    one, true = (g.dropout(g.p("a"), 0.5, training=flag, site="s") for flag in (False, True))
    assert one.structure != true.structure
    zero = g.rms_norm(g.p("a"), 0)
    assert zero.structure == g.rms_norm(g.p("a"), 0.0).structure


def test_parameters_can_be_given_later() -> None:
    statement = g.select(tree())
    assert statement.params(model="m", tokens=[5]).compile(dialect=DIALECT).params["tokens"] == [5]
    nested = sa.select(tree()).params(tokens=[7])
    assert nested.compile(dialect=DIALECT).params["tokens"] == [7]


def test_a_subquery_can_be_aliased_and_adapted() -> None:
    table = sa.table("t", sa.column("w", Tensor()))
    hidden = g.relu(table.c.w)
    inner = sa.select(table.c.w, (hidden + hidden).label("h")).subquery()
    assert "FROM t) AS anon_1" in compiled(sa.select(inner.c.h))


def test_a_percent_sign_survives_the_driver() -> None:
    assert "'100%%'" in compiled(sa.select(g.p("100%")))


@extended
def test_depth_needs_no_python_stack() -> None:
    stream = g.p("a")
    for _ in range(3 * sys.getrecursionlimit()):
        stream = stream + stream
    statement = g.select(stream, model="m")
    assert compiled(statement).count("pg_llm_add") == 3 * sys.getrecursionlimit()
    assert statement._generate_cache_key() is not None


def test_gpt2_ad_hoc_calls_each_op_once_per_layer() -> None:
    loss = g.gpt2.loss(12, model="m", tokens=[1, 2], targets=[2, 3], n_head=2)
    text = compiled(g.select(loss))
    assert text.count("pg_llm_causal_attention(") == 12
    assert text.count("pg_llm_layernorm(") == 25
    assert text.count("'h.11.mlp.c_proj.weight'") == 1
    assert text.count("pg_llm_lm_head_loss(") == 1
