"""pg_llm_apply: an op as two SQL functions, beside the built-in ones on the tape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import errors

from ..support.small_models import Connection, make_model
from ..support.tensors import value

Connect = Callable[..., Connection]
Array = NDArray[Any]

ON = "UPDATE llm_autograd_mode SET flag = true"
GATE = """
    CREATE FUNCTION gate_forward(a tensor, b tensor) RETURNS tensor LANGUAGE sql
        RETURN pg_llm_silu(a) * b;
    CREATE FUNCTION gate_backward(dout tensor, a tensor, b tensor, y tensor) RETURNS tensor[] LANGUAGE sql
        RETURN ARRAY[pg_llm_silu_backward(dout * b, a), dout * pg_llm_silu(a)];
    CREATE FUNCTION gate(a tensor, b tensor) RETURNS tensor LANGUAGE sql
        RETURN pg_llm_apply('gate_forward(tensor, tensor)',
            'gate_backward(tensor, tensor, tensor, tensor)', a, b);
    CREATE FUNCTION square_forward(x tensor) RETURNS tensor LANGUAGE plpgsql AS $$ BEGIN RETURN x * x; END $$;
    CREATE FUNCTION square_backward(dout tensor, x tensor, y tensor) RETURNS tensor LANGUAGE plpgsql
        AS $$ BEGIN RETURN dout * x * 2; END $$;
    CREATE FUNCTION square(x tensor) RETURNS tensor LANGUAGE sql
        RETURN pg_llm_apply('square_forward(tensor)', 'square_backward(tensor, tensor, tensor)', x);
"""


OWN = "SET search_path = own, public"


@pytest.fixture
def ops(conn: Connection) -> Iterator[Connection]:
    conn.execute(f"CREATE SCHEMA own; {OWN}")
    conn.execute(GATE)
    conn.execute(ON)
    yield conn
    conn.execute("DROP SCHEMA own CASCADE")


def gradients(conn: Connection, expression: str, *, begin: str = "NULL", **leaves: Array) -> list[Array]:
    """An expression's value, and the gradients of the sum of it for each leaf."""
    declared = "".join(
        f"{name} tensor := pg_llm_autograd_track_tensor(%({name})s::tensor);\n" for name in leaves
    )
    results = ", ".join(f"pg_llm_grad({name})" for name in leaves)
    conn.execute("CREATE TEMP TABLE IF NOT EXISTS got (grads tensor[])")
    conn.execute("TRUNCATE got")
    psycopg.ClientCursor(conn).execute(
        f"""DO $$ DECLARE {declared} r tensor;
        BEGIN
            PERFORM {begin};
            r := {expression};
            PERFORM llm_backprop(pg_llm_tensor_id(pg_llm_sum(r)));
            INSERT INTO got VALUES (ARRAY[r, {results}]);
        END $$""",
        {name: str(leaf.tolist()) for name, leaf in leaves.items()},
    )
    return list(value(conn, "SELECT grads FROM got"))


def applied(forward: str, backward: str, *inputs: str) -> str:
    types = ", ".join(["tensor"] * len(inputs))
    return f"pg_llm_apply('{forward}({types})', '{backward}(tensor, {types}, tensor)', {', '.join(inputs)})"


def random(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same(ours: list[Array], theirs: list[Array]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_gradients_of_its_backward(ops: Connection) -> None:
    a, b = random(1, 3, 4), random(2, 3, 4)
    got = gradients(ops, "gate(a, b)", a=a, b=b)
    same(got, gradients(ops, "pg_llm_silu(a) * b", a=a, b=b))
    wide, sigmoid = a.astype(np.float64), 1 / (1 + np.exp(-a.astype(np.float64)))
    np.testing.assert_allclose(got[1], b * (sigmoid + wide * sigmoid * (1 - sigmoid)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[2], wide * sigmoid, rtol=1e-5, atol=1e-6)


def test_among_other_ops(ops: Connection) -> None:
    """Between ops, twice, with one input in both places, and one op of users' in another."""
    x, w = random(3, 2, 4), random(4, 4, 4)
    for ours, theirs in (
        ("gate(x @ w, gate(x, x)) + square(x)", "pg_llm_silu(x @ w) * (pg_llm_silu(x) * x) + x * x"),
        ("square(square(x @ w))", "((x @ w) * (x @ w)) * ((x @ w) * (x @ w))"),
    ):
        got, expected = gradients(ops, ours, x=x, w=w), gradients(ops, theirs, x=x, w=w)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_it_is_one_op_of_the_tape(ops: Connection) -> None:
    ops.execute("SELECT pg_llm_sum(gate(pg_llm_autograd_track_tensor('[1,2]'), '[3,4]'))")
    names = value(ops, "SELECT array_agg(name ORDER BY position) FROM pg_llm_tape()")
    assert names == ["gate_forward", "sum"]
    assert value(ops, "SELECT llm_backprop()") == 2
    # What is not recorded is the same function.
    ops.execute("UPDATE llm_autograd_mode SET flag = false")
    assert value(ops, "SELECT square('[1,2,3]')").tolist() == [1, 4, 9]
    assert value(ops, "SELECT square(NULL)") is None


def test_it_is_computed_again_within_a_budget(ops: Connection) -> None:
    x = random(5, 8, 64)
    begin = "pg_llm_pass_begin(7, 1, 0)"
    ops.execute(
        """CREATE SEQUENCE called;
        CREATE FUNCTION noisy_forward(x tensor) RETURNS tensor LANGUAGE plpgsql
            AS $$ BEGIN PERFORM nextval('called'); RETURN pg_llm_dropout(x, 0.5, true); END $$;
        CREATE FUNCTION noisy_backward(dout tensor, x tensor, y tensor) RETURNS tensor LANGUAGE sql
            RETURN pg_llm_dropout_backward(dout, x, 0.5, true);
        CREATE FUNCTION noisy(x tensor) RETURNS tensor LANGUAGE sql
            RETURN pg_llm_apply('noisy_forward(tensor)', 'noisy_backward(tensor, tensor, tensor)', x);
        CREATE FUNCTION after_segment(x tensor) RETURNS tensor LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_llm_tape_segment(); RETURN x; END $$"""
    )
    theirs = "pg_llm_dropout(pg_llm_silu(x) * x, 0.5, true)"
    theirs = f"pg_llm_dropout(pg_llm_silu({theirs}) * x, 0.5, true)"
    expected = gradients(ops, theirs, begin=begin, x=x)
    ours = "after_segment(noisy(gate(after_segment(noisy(gate(x, x))), x))) * 1"
    kept = gradients(ops, ours, begin=begin, x=x)
    for one, other in zip(kept, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert np.count_nonzero(kept[0]) < x.size / 2
    assert value(ops, "SELECT last_value FROM called") == 2
    ops.execute("SELECT pg_llm_tape_clear(); SET pg_llm.recompute_budget = '1kB'")
    same(gradients(ops, ours, begin=begin, x=x), kept)
    assert value(ops, "SELECT last_value FROM called") > 2 + 2


def test_dropout_has_the_same_mask_backward(ops: Connection) -> None:
    """Without a key, and with the key of another pass meanwhile."""
    ops.execute(
        """CREATE FUNCTION masked_forward(x tensor) RETURNS tensor LANGUAGE sql
            RETURN pg_llm_dropout(x, 0.5, true);
        CREATE FUNCTION masked_backward(dout tensor, x tensor, y tensor) RETURNS tensor LANGUAGE sql
            RETURN pg_llm_dropout_backward(dout, x, 0.5, true)"""
    )
    x = np.ones(64, np.float32)
    call = applied("masked_forward", "masked_backward", "x")
    for begin in ("NULL", "pg_llm_pass_begin(7, 1, 0)"):
        same(*[[found] for found in gradients(ops, call, begin=begin, x=x)])
    ops.execute("CREATE FUNCTION later(x tensor) RETURNS tensor LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM pg_llm_pass_begin(8, 1, 0); RETURN x; END $$")  # fmt: skip
    same(*[[found] for found in gradients(ops, f"later({call})", begin="pg_llm_pass_begin(7, 1, 0)", x=x)])


def test_another_shape_the_second_time(ops: Connection) -> None:
    """Gradients are on the way for the first."""
    ops.execute(
        """CREATE SEQUENCE times;
        CREATE FUNCTION fickle_forward(x tensor) RETURNS tensor LANGUAGE plpgsql AS $$ BEGIN
            RETURN CASE nextval('times') WHEN 1 THEN '[1]' ELSE pg_llm_full('{200000}', 1) END; END $$;
        CREATE FUNCTION fickle_backward(dout tensor, x tensor, y tensor) RETURNS tensor LANGUAGE sql
            RETURN x"""
    )
    ops.execute("SET pg_llm.recompute_budget = '1kB'")
    message = r"fickle_forward.* returned shape \[200000\] when it was computed again, and \[1\] before"
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match=message):
        ops.execute(
            f"""DO $$ DECLARE x tensor := pg_llm_autograd_track_tensor(pg_llm_full('{{1000}}', 1)); z tensor;
            BEGIN
                z := pg_llm_sum({applied("fickle_forward", "fickle_backward", "x")});
                PERFORM pg_llm_tape_segment();
                PERFORM llm_backprop(pg_llm_tensor_id(z + pg_llm_sum(x * x)));
            END $$"""
        )


def test_in_a_generation(ops: Connection) -> None:
    """Attention goes on from the cache in a user's op; a generation inside of one has its own."""
    make_model(ops, "tiny", d_model=8, n_head=2)
    ops.execute(
        """CREATE FUNCTION look_forward(x tensor) RETURNS tensor LANGUAGE sql
            RETURN pg_llm_causal_attention(x, 1, 0.0, false);
        CREATE FUNCTION step(x tensor, own boolean) RETURNS tensor LANGUAGE plpgsql AS $$
        DECLARE y tensor; h int;
        BEGIN
            PERFORM llm_pin('tiny');
            h := pg_llm_gen_open('tiny', '{1,2}', 16);
            FOR i IN 1..2 LOOP
                PERFORM pg_llm_gen_use(ARRAY[h]);
                y := CASE i WHEN 1 THEN x ELSE pg_llm_full('{1,1,6}', 1) END;
                IF own THEN
                    y := pg_llm_apply('look_forward(tensor)', 'square_backward(tensor, tensor, tensor)', y);
                ELSE
                    y := pg_llm_causal_attention(y, 1, 0.0, false);
                END IF;
                PERFORM pg_llm_gen_done();
            END LOOP;
            PERFORM pg_llm_gen_close(h);
            RETURN y;
        END $$;
        CREATE FUNCTION write_forward(x tensor) RETURNS tensor LANGUAGE sql RETURN step(x, false)"""
    )
    x = "pg_llm_full('{1,2,6}', 0.5)"
    outside = value(ops, f"SELECT step({x}, false)")
    assert not (outside == 1).all()
    inside = applied("write_forward", "square_backward", x)
    same([outside, outside], [value(ops, f"SELECT step({x}, true)"), value(ops, f"SELECT {inside}")])


def test_null_is_no_gradient(ops: Connection) -> None:
    ops.execute(
        """CREATE FUNCTION first_forward(a tensor, b tensor) RETURNS tensor LANGUAGE sql RETURN a;
        CREATE FUNCTION first_backward(dout tensor, a tensor, b tensor, y tensor) RETURNS tensor[]
            LANGUAGE sql RETURN ARRAY[dout, NULL]"""
    )
    call = applied("first_forward", "first_backward", "a", "b")
    a, b = random(6, 3), random(7, 3)
    assert [g.tolist() for g in gradients(ops, call, a=a, b=b)[1:]] == [[1, 1, 1], [0, 0, 0]]
    assert [g.tolist() for g in gradients(ops, f"{call} + b", a=a, b=b)[1:]] == [[1, 1, 1], [1, 1, 1]]


def test_five_inputs_and_no_more(ops: Connection) -> None:
    names = [f"x{i}" for i in range(1, 6)]
    types = ", ".join(["tensor"] * 5)
    ops.execute(
        f"""CREATE FUNCTION five_forward({types}) RETURNS tensor LANGUAGE sql
            RETURN $1 + $2 * 2 + $3 * 3 + $4 * 4 + $5 * 5;
        CREATE FUNCTION five_backward(tensor, {types}, tensor) RETURNS tensor[] LANGUAGE sql
            RETURN ARRAY[$1, $1 * 2, $1 * 3, $1 * 4, $1 * 5]"""
    )
    call = applied("five_forward", "five_backward", *names)
    leaves: dict[str, Any] = {name: random(i, 2) for i, name in enumerate(names)}
    got = gradients(ops, call, **leaves)
    assert [g.tolist() for g in got[1:]] == [[i, i] for i in range(1, 6)]
    with pytest.raises(errors.UndefinedFunction, match="pg_llm_apply"):
        ops.execute("SELECT " + applied("five_forward", "five_backward", *["'[1]'::tensor"] * 6))


BACKWARD = "'square_backward(tensor, tensor, tensor)'"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (f"pg_llm_apply('length(text)', {BACKWARD}, x)", errors.InvalidFunctionDefinition,
         r"length\(text\) cannot be the forward function of this op"),
        (f"pg_llm_apply('square_forward(tensor)', {BACKWARD}, x, x)", errors.InvalidFunctionDefinition,
         "square_forward.* cannot be the forward"),
        ("pg_llm_apply('square_forward(tensor)', 'square_forward(tensor)', x)",
         errors.InvalidFunctionDefinition,
         "cannot be the backward function.*\nHINT:  It takes 3 tensors"),
        (f"pg_llm_apply(0::regprocedure, {BACKWARD}, x)", errors.UndefinedObject,
         "does not exist: it has the OID 0"),
        (applied("nothing_forward", "square_backward", "x"), errors.NullValueNotAllowed,
         "nothing_forward.* returned NULL"),
        (applied("square_forward", "wide_backward", "x"),
         errors.InvalidParameterValue, r"returned a gradient of shape \[2,2\] for input 1 of shape \[2\]"),
        (applied("square_forward", "many_backward", "x"),
         errors.ArraySubscriptError, "returned 2 gradients for 1 input"),
        (applied("square_forward", "none_backward", "x"),
         errors.NullValueNotAllowed, "returned NULL"),
        (applied("deep_forward", "square_backward", "x"), errors.StatementTooComplex, "stack depth"),
        (applied("clear_forward", "square_backward", "x"), errors.ObjectNotInPrerequisiteState,
         "a function of an op cannot change the pass"),
        (applied("square_forward", "again_backward", "x"),
         errors.ObjectNotInPrerequisiteState, "a function of an op cannot change the pass"),
        (applied("gate_forward", "lone_backward", "x", "x"), errors.InvalidFunctionDefinition,
         "cannot be the backward function"),
    ],
)  # fmt: skip
def test_what_is_refused(ops: Connection, call: str, error: type[Exception], message: str) -> None:
    ops.execute(
        """CREATE FUNCTION nothing_forward(x tensor) RETURNS tensor LANGUAGE sql RETURN NULL::tensor;
        CREATE FUNCTION wide_backward(dout tensor, x tensor, y tensor) RETURNS tensor LANGUAGE sql
            RETURN '[[1,2],[3,4]]'::tensor;
        CREATE FUNCTION many_backward(dout tensor, x tensor, y tensor) RETURNS tensor[] LANGUAGE sql
            RETURN ARRAY[x, x];
        CREATE FUNCTION none_backward(dout tensor, x tensor, y tensor) RETURNS tensor LANGUAGE sql
            RETURN NULL::tensor;
        CREATE FUNCTION lone_backward(dout tensor, a tensor, b tensor, y tensor) RETURNS tensor LANGUAGE sql
            RETURN dout;
        CREATE FUNCTION clear_forward(x tensor) RETURNS tensor LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_llm_tape_clear(); RETURN x; END $$;
        CREATE FUNCTION again_backward(dout tensor, x tensor, y tensor) RETURNS tensor LANGUAGE plpgsql
            AS $$ BEGIN PERFORM llm_backprop(); RETURN x; END $$;
        CREATE FUNCTION deep_forward(x tensor) RETURNS tensor LANGUAGE plpgsql AS $$ BEGIN RETURN
            pg_llm_apply('deep_forward(tensor)', 'square_backward(tensor, tensor, tensor)', x); END $$"""
    )
    with pytest.raises(error, match=message) as caught:
        gradients(ops, call, x=np.ones(2, np.float32))
    assert isinstance(caught.value, psycopg.Error)
    # Nothing is left of it.
    assert gradients(ops, "square(x)", x=np.ones(2, np.float32))[1].tolist() == [2, 2]


def test_an_error_that_is_caught(ops: Connection) -> None:
    """In forward: the rest of the pass goes on, recorded as before."""
    ops.execute(
        """CREATE FUNCTION careful_forward(x tensor) RETURNS tensor LANGUAGE plpgsql AS $$ BEGIN
            BEGIN PERFORM pg_llm_tape_clear(); EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END;
            RETURN x * x; END $$"""
    )
    call = applied("careful_forward", "square_backward", "x")
    x = random(8, 4)
    same(gradients(ops, f"square({call})", x=x), gradients(ops, "square(square(x))", x=x))
    # An op that fails where the pass catches it is no part of it.
    ops.execute(
        """CREATE FUNCTION tried(x tensor) RETURNS tensor LANGUAGE plpgsql AS $$ BEGIN
            RETURN pg_llm_apply('square_forward(tensor)', 'gate_forward(tensor, tensor)', x);
            EXCEPTION WHEN invalid_function_definition THEN RETURN square(x); END $$"""
    )
    same(gradients(ops, "tried(square(x))", x=x), gradients(ops, "square(square(x))", x=x))


def test_functions_that_have_changed(ops: Connection) -> None:
    with ops.transaction(force_rollback=True):
        ops.execute("SELECT pg_llm_sum(square(pg_llm_autograd_track_tensor('[1,2]')))")
        ops.execute("DROP FUNCTION square(tensor); DROP FUNCTION square_backward(tensor, tensor, tensor)")
        message = "the backward function of an op does not exist"
        with pytest.raises(errors.UndefinedObject, match=message), ops.transaction():
            ops.execute("SELECT llm_backprop()")
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="cannot be differentiated"):
            ops.execute("SELECT llm_backprop()")


def test_who_may_call_it(ops: Connection, connect: Connect) -> None:
    """Who may execute both functions; a function that changes the role is refused."""
    ops.execute("DROP ROLE IF EXISTS op_user; CREATE ROLE op_user LOGIN IN ROLE llm_reader")
    try:
        ops.execute("REVOKE EXECUTE ON FUNCTION square_backward(tensor, tensor, tensor) FROM PUBLIC")
        ops.execute("GRANT USAGE ON SCHEMA own TO op_user")
        other = connect(user="op_user")
        other.execute(OWN)
        with pytest.raises(errors.InsufficientPrivilege, match="function square_backward"):
            other.execute("SELECT square('[1]')")
        ops.execute("GRANT EXECUTE ON FUNCTION square_backward(tensor, tensor, tensor) TO op_user")
        assert value(other, "SELECT square('[3]')").tolist() == [9]
        other.close()
        ops.execute(
            """CREATE FUNCTION role_backward(dout tensor, x tensor, y tensor) RETURNS tensor LANGUAGE plpgsql
                AS $$ BEGIN SET ROLE op_user; RETURN dout; END $$;
            CREATE FUNCTION role_forward(x tensor) RETURNS tensor LANGUAGE plpgsql
                AS $$ BEGIN SET ROLE op_user; RETURN x; END $$"""
        )
        x = "pg_llm_autograd_track_tensor('[1]')"
        for functions in (("role_forward", "square_backward"), ("square_forward", "role_backward")):
            loss = f"pg_llm_sum({applied(*functions, x)})"
            with pytest.raises(errors.ObjectNotInPrerequisiteState, match="changed the role"):
                ops.execute(f"DO $$ BEGIN PERFORM {loss}; PERFORM llm_backprop(); END $$")
            assert value(ops, "SELECT current_user") != "op_user"
    finally:
        ops.execute("RESET ROLE; DROP OWNED BY op_user; DROP ROLE op_user")


def test_weights_in_fewer_bits_stay_out_of_it(ops: Connection) -> None:
    """What a user's op computes while recording is float32, as all that is recorded."""
    ops.execute(
        """CREATE FUNCTION own_forward(x tensor, w tensor) RETURNS tensor LANGUAGE sql
            RETURN pg_llm_linear(x, w);
        CREATE FUNCTION own_backward(dout tensor, x tensor, w tensor, y tensor) RETURNS tensor[] LANGUAGE sql
            RETURN ARRAY[NULL, NULL]::tensor[]"""
    )
    ops.execute("SET pg_llm.weights = 'int8'")
    x, w = random(9, 2, 64), random(10, 64, 64)
    call = applied("own_forward", "own_backward", "x", "w")
    same(gradients(ops, call, x=x, w=w)[:1], gradients(ops, "pg_llm_linear(x, w)", x=x, w=w)[:1])
