"""What is bound where: sharing, growth, variables, constants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import ArgumentError

from llm_sql import graph as g
from llm_sql.graph.elements import Constant, Node, linearise, quote_literal
from llm_sql.graph.program import MAX_NESTING, Program, render


def residual(n: int) -> g.TensorNode:
    stream = g.relu(g.p("start"))
    for i in range(n):
        stream = stream + g.relu(g.linear(stream, g.p(f"w{i}")))
    return stream


def calls(program: Program) -> list[str]:
    """The SQL of every binding, then of the outputs."""
    leaf = str
    bound = [render(b.node, program=program, leaf=leaf, bind=False) for b in program.bindings]
    return bound + [render(output, program=program, leaf=leaf) for output in program.outputs]


def test_a_node_used_twice_is_bound_once() -> None:
    shared = g.gelu(g.p("a"))
    program = Program([shared + shared])
    assert calls(program) == [
        "public.pg_llm_gelu(public.llm_weight(:model, 'a'))",
        "public.pg_llm_add(x1, x1)",
    ]


def test_equal_nodes_that_are_not_one_are_evaluated_each() -> None:
    program = Program([g.gelu(g.p("a")) + g.gelu(g.p("a"))])
    assert program.bindings == []


def test_a_residual_stream_grows_linearly() -> None:
    sizes = [sum(map(len, calls(Program([residual(n)])))) for n in (10, 20, 40)]
    assert sizes[1] < 2.2 * sizes[0]
    assert sizes[2] < 2.2 * sizes[1]


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_every_op_of_a_residual_stream_is_called_once(n: int) -> None:
    text = " ".join(calls(Program([residual(n)])))
    assert text.count("pg_llm_linear(") == n
    assert text.count("pg_llm_add(") == n
    assert text.count("pg_llm_relu(") == n + 1


def test_bindings_stand_after_what_they_use_and_one_level_above() -> None:
    program = Program([residual(6)])
    level = {id(b.node): b.level for b in program.bindings}
    done: set[int] = set()
    for binding in program.bindings:
        for node in linearise([binding.node]):
            if node is not binding.node and id(node) in level:
                assert id(node) in done
                assert level[id(node)] < binding.level
        done.add(id(binding.node))
        assert binding.level < program.last_use(binding) <= program.levels + 1


def test_a_long_chain_is_cut() -> None:
    chain = g.p("a")
    for _ in range(10 * MAX_NESTING):
        chain = g.relu(chain)
    program = Program([chain])
    assert 9 <= len(program.bindings) <= 11
    assert max(call.count("(") for call in calls(program)) <= MAX_NESTING + 2


def test_let_names_a_binding_and_names_never_clash() -> None:
    first = g.let("hidden", g.relu(g.p("a")))
    second = g.let("hidden", g.gelu(first))
    assert [b.name for b in Program([second]).bindings] == ["hidden", "hidden1"]
    assert [b.name for b in Program([second], reserved={"hidden"}).bindings] == ["hidden1", "hidden2"]


@pytest.mark.parametrize("name", ["", "1x", "a b", "X", "x;", 'a"b', "é"])
def test_let_refuses_what_is_no_identifier(name: str) -> None:
    with pytest.raises(ArgumentError):
        g.let(name, g.relu(g.p("a")))


def test_layer_is_part_of_a_name() -> None:
    tree = g.p("h.{layer}.w")
    assert calls(Program([tree])) == ["public.llm_weight(:model, 'h.' || :layer::text || '.w')"]
    assert calls(Program([g.bind(tree, {"layer": 3})])) == ["public.llm_weight(:model, 'h.3.w')"]


def test_bind_replaces_a_variable_by_a_tree_and_leaves_the_original_alone() -> None:
    block = g.x + g.relu(g.x)
    once = g.bind(block, {g.x: g.p("a")})
    twice = g.bind(block, {g.x: once})
    assert " ".join(calls(Program([twice]))).count("pg_llm_add(") == 2
    assert calls(Program([block])) == ["public.pg_llm_add(:x, public.pg_llm_relu(:x))"]


def test_bind_refuses_a_variable_the_tree_does_not_have() -> None:
    with pytest.raises(ArgumentError, match="targets"):
        g.bind(g.embedding(g.p("w"), g.tokens), {"targets": [1]})


def test_a_value_given_twice_is_one_parameter() -> None:
    tree = g.bind(g.embedding(g.p("a"), g.tokens) + g.embedding(g.p("b"), g.tokens), {"tokens": [1, 2]})
    values = [leaf for leaf in tree.leaves if getattr(leaf, "value", None) == [1, 2]]
    assert len(values) == 1


def test_python_operators_are_ops() -> None:
    a, b = g.p("a"), g.p("b")
    by_operator = [a + b, a - b, a * b, a / b, a @ b, -a, 2.0 * a, 1 - a, a[1:3], a[:, -1:]]
    names = [node.call.name for node in by_operator if isinstance(node, Node)]
    expected = ["add", "sub", "mul", "div", "matmul", "neg", "mul", "sub", "slice_axis", "slice_axis"]
    assert names == expected


def test_an_index_that_is_no_slice_is_refused() -> None:
    with pytest.raises(IndexError):
        g.p("a")[0]
    with pytest.raises(IndexError):
        g.p("a")[::2]


def test_only_trailing_arguments_can_be_left_out() -> None:
    assert len(g.linear(g.p("a"), g.p("b")).args) == 2
    assert len(g.linear(g.p("a"), g.p("b"), g.p("c")).args) == 3


def test_a_fraction_is_no_head_count() -> None:
    with pytest.raises(TypeError):
        g.causal_attention_qkv(g.p("a"), n_head=2.5)  # type: ignore[arg-type]


@given(st.text())
def test_a_literal_cannot_be_left(text: str) -> None:
    if "\x00" in text:
        with pytest.raises(ArgumentError):
            quote_literal(text)
        return
    literal = quote_literal(text)
    assert "\n" not in literal
    escaped = literal.startswith("E'")
    body = literal[2 if escaped else 1 : -1]
    read, i = "", 0
    while i < len(body):
        if body[i] == "'":
            assert body[i + 1] == "'"
            i += 1
        elif body[i] == "\\":
            assert escaped
            i += 1
            read += {"\\": "\\", "n": "\n", "r": "\r"}[body[i]]
            i += 1
            continue
        read += body[i]
        i += 1
    assert read == text


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        (None, "NULL"),
        (True, "true"),
        (3, "3"),
        (-3, "(-3)"),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (float("nan"), "'NaN'::double precision"),
        (float("-inf"), "'-Infinity'::double precision"),
        ("it's", "'it''s'"),
    ],
)
def test_constants(value: object, sql: str) -> None:
    assert Constant.of(value).sql() == sql  # type: ignore[arg-type]


def test_every_op_says_what_it_does() -> None:
    for name in g.OPS:
        function = getattr(g, name)
        assert function.__doc__, name
