"""pg_llm.recompute_budget: what a pass lets go of and computes again, to the same bits."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import errors

from ..support.small_models import Connection, make_trainable, train, weights
from ..support.tensors import value

Array = NDArray[Any]

ON = "UPDATE llm_autograd_mode SET flag = true"
LOSS = "SELECT llm_loss('tiny', tokens, target) FROM llm_dataset WHERE model = 'tiny' ORDER BY id LIMIT 1"
LLAMA = '{"n_kv_head": 1, "qk_norm": true, "window": 3}'


def set_budget(conn: Connection, budget: str) -> None:
    conn.execute("SELECT set_config('pg_llm.recompute_budget', %s, false)", (budget,))


@pytest.fixture(params=["gpt2", "gpt3", "microgpt", "llama"])
def tiny(conn: Connection, request: pytest.FixtureRequest) -> Connection:
    make_trainable(conn, arch=request.param, n_layer=5)
    settings = {"gpt3": '{"band": 3}', "llama": LLAMA}.get(request.param)
    if settings is not None:
        conn.execute("UPDATE llm_model_config SET settings = %s WHERE model = 'tiny'", (settings,))
        conn.execute("SELECT llm_init_model('tiny', 1)")
    return conn


def test_training_gives_the_same_bits(tiny: Connection) -> None:
    """With dropout and batches that are added up; from all let go to nothing."""
    expected = None
    for budget in ("0", "1kB", "8kB", "20kB", "1GB"):
        set_budget(tiny, budget)
        with tiny.transaction(force_rollback=True):
            train(tiny, n_steps=2, dropout_p=0.2, batch_size=2, grad_accum=2)
            losses = tiny.execute("SELECT loss FROM llm_train_log ORDER BY step").fetchall()
            outcome = (losses, weights(tiny))
        expected = expected or outcome
        assert outcome == expected, budget


def test_what_a_pass_holds(tiny: Connection) -> None:
    """All, or what five blocks begin with and a little, or as much as the budget allows."""
    tiny.execute(ON)
    held = {}
    for budget in ("0", "1kB", "16kB"):
        set_budget(tiny, budget)
        tiny.execute(LOSS)
        held[budget] = value(tiny, "SELECT pg_llm_tape_held()")
        value(tiny, "SELECT llm_backprop(NULL, 'tiny')")
        assert value(tiny, "SELECT pg_llm_tape_held()") < 1024
        tiny.execute("SELECT llm_prune_autograd_state()")
        assert value(tiny, "SELECT pg_llm_tape_held()") == 0
    assert held["1kB"] < held["0"] / 3
    assert held["1kB"] <= held["16kB"] <= max(16384, held["1kB"]) < held["0"]


def test_norms_and_rows_are_the_same(conn: Connection) -> None:
    make_trainable(conn, n_layer=4)
    rows = []
    for budget in ("0", "1kB"):
        set_budget(conn, budget)
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL pg_llm.record = 'full'")
            conn.execute(ON)
            conn.execute(LOSS)
            conn.execute("SELECT llm_backprop(NULL, 'tiny')")
            tensors = conn.execute("SELECT id, norm, grad_norm, data, grad FROM llm_tensor_rt ORDER BY id")
            base = value(conn, "SELECT min(id) FROM llm_tensor_rt")
            rows.append([(row[0] - base, *map(repr, row[1:])) for row in tensors])
    assert rows[0] == rows[1]


# -- passes of one's own


OPS = (
    "{0} + {1}",
    "{0} * {1}",
    "pg_llm_gelu({0})",
    "pg_llm_softmax({0})",
    "pg_llm_linear({0}, w, b)",
    "pg_llm_rmsnorm({0}, b)",
    "pg_llm_dropout({0}, 0.3, true)",
    "pg_llm_swiglu({0}, {1})",
    "pg_llm_causal_attention({0}, {1}, {0}, 2, 0.2, true)",
    "{0} + c",
    "pg_llm_reshape(pg_llm_reshape({0}, '{{-1}}'), '{{40,4}}')",
)


def program(seed: int) -> str:
    """A function of random ops on random values so far, cut into segments anywhere; it returns gradients."""
    draw = random.Random(seed)
    n = draw.randint(3, 25)
    names = ["x", "pg_llm_zeros_like(c) + c"]
    lines = []
    for i in range(n):
        if draw.random() < 0.3:
            lines.append("PERFORM pg_llm_tape_segment();")
        a, b = draw.choice(names[-4:]), draw.choice(names)
        lines.append(f"v{i} := {draw.choice(OPS).format(a, b)};")
        names.append(f"v{i}")
    total = " + ".join(f"pg_llm_sum({name})" for name in ["x", *draw.sample(names[2:], min(3, n))])
    return f"""
        CREATE OR REPLACE FUNCTION random_pass() RETURNS SETOF tensor LANGUAGE plpgsql AS $f$
        DECLARE
            {" ".join(f"v{i} tensor;" for i in range(n))}
            x tensor; w tensor; b tensor; c tensor; loss tensor;
        BEGIN
            PERFORM pg_llm_tape_clear();
            PERFORM pg_llm_pass_begin({seed}, 1, 0);
            x := pg_llm_autograd_track_tensor(pg_llm_normal('{{40,4}}', 0, 1.0, {seed}, 0));
            w := pg_llm_autograd_track_tensor(pg_llm_normal('{{4,4}}', 0, 0.5, {seed + 1}, 0));
            b := pg_llm_autograd_track_tensor(pg_llm_normal('{{4}}', 0, 0.5, {seed + 2}, 0));
            c := pg_llm_normal('{{40,4}}', 0, 1.0, {seed + 3}, 0);
            {"            ".join(line + chr(10) for line in lines)}
            loss := {total};
            PERFORM pg_llm_backward_begin(NULL, 1.0);
            PERFORM pg_llm_backward(t.id) FROM pg_llm_tape(false) t;
            RETURN NEXT loss;
            RETURN NEXT pg_llm_grad(x);
            RETURN NEXT pg_llm_grad(w);
            RETURN NEXT pg_llm_grad(b);
        END $f$
    """


def test_random_passes(conn: Connection) -> None:
    for seed in range(60):
        conn.execute(program(seed))
        results = []
        for budget in ("0", "1kB"):
            set_budget(conn, budget)
            conn.execute("SET pg_llm.autograd = on")
            rows = conn.execute("SELECT random_pass FROM random_pass()").fetchall()
            conn.execute("SET pg_llm.autograd = off")
            results.append([None if row[0] is None else np.asarray(row[0]).tobytes() for row in rows])
        assert results[0] == results[1], program(seed)


BLOCKS = """
    x := pg_llm_autograd_track_tensor(pg_llm_normal('{8,64}', 0, 1.0, 1, 0));
    y := x;
    FOR i IN 1 .. 6 LOOP
        PERFORM pg_llm_tape_segment();
        @undone
        y := y + pg_llm_gelu(pg_llm_gelu(y * y));
    END LOOP;
    PERFORM pg_llm_tape_segment();
    @undone
    y := pg_llm_sum(y);
"""


def blocks(conn: Connection, body: str, undone: str = "") -> None:
    body = body.replace("@undone", undone)
    conn.execute(f"DO $$ DECLARE x tensor; y tensor; z tensor; BEGIN {body} END $$")


@pytest.fixture
def recording(conn: Connection) -> Connection:
    set_budget(conn, "1kB")
    conn.execute("SET pg_llm.autograd = on")
    return conn


BACKWARD = """
    PERFORM pg_llm_backward_begin(NULL, 1.0);
    PERFORM pg_llm_backward(t.id) FROM pg_llm_tape(false) t;
"""


def test_a_rollback_in_the_middle(recording: Connection) -> None:
    """Ops of a savepoint that is undone go, with their segments; the rest is differentiated as if alone."""
    undone = """
        BEGIN
            FOR i IN 1 .. 3 LOOP
                z := pg_llm_gelu(y * y);
                PERFORM pg_llm_tape_segment();
            END LOOP;
            RAISE EXCEPTION 'undone';
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    """
    gradients = []
    for extra in ("", undone):
        with recording.transaction():
            kept = "CREATE TEMP TABLE g ON COMMIT DROP AS SELECT pg_llm_grad(x) AS g;"
            blocks(recording, BLOCKS + BACKWARD + kept, extra)
            gradients.append(value(recording, "SELECT g FROM g").tobytes())
            recording.execute("SELECT pg_llm_tape_clear()")
    assert gradients[0] == gradients[1]


def test_a_part_that_is_spent_is_refused(recording: Connection) -> None:
    """A second number that needs what the first one's backward pass took back, as without a budget."""
    blocks(
        recording,
        BLOCKS.replace("y := pg_llm_sum(y);", "z := pg_llm_mean(y); y := pg_llm_sum(y);") + BACKWARD,
    )
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="differentiated already"):
        recording.execute(
            """DO $$ DECLARE ids bigint[] := ARRAY(SELECT t.id FROM pg_llm_tape() t); BEGIN
            PERFORM pg_llm_backward_begin(ids[2], 1.0);
            PERFORM pg_llm_backward(t.id) FROM pg_llm_tape(false) t;
            END $$"""
        )
    recording.execute("SELECT pg_llm_tape_clear()")
    assert value(recording, "SELECT pg_llm_tape_held()") == 0


def test_an_interrupted_backward_pass_frees_what_it_computed(recording: Connection) -> None:
    """Whenever it comes: the tape is broken then, clearing it leaves nothing, and the next pass is whole."""
    large = BLOCKS.replace("{8,64}", "{400,512}")
    with recording.transaction():
        blocks(recording, large + BACKWARD)
        recording.execute("SELECT pg_llm_tape_clear()")
    for milliseconds in (2, 5, 10, 20, 40):
        with recording.transaction(force_rollback=True):
            blocks(recording, large)
            timed = f"SET LOCAL statement_timeout = {milliseconds}; DO $$ BEGIN {BACKWARD} END $$"
            try:
                with recording.transaction():
                    recording.execute(f"{timed}; SET LOCAL statement_timeout = 0")
            except psycopg.errors.QueryCanceled:
                again = pytest.raises(errors.ObjectNotInPrerequisiteState, match="cannot be differentiated")
                with again, recording.transaction():
                    recording.execute(f"DO $$ BEGIN {BACKWARD} END $$")
            recording.execute("SELECT pg_llm_tape_clear()")
            assert value(recording, "SELECT pg_llm_tape_held()") == 0
    blocks(recording, large + BACKWARD)


def test_the_setting(conn: Connection) -> None:
    conn.execute("SELECT pg_llm_recording()")  # loads the library
    unit, context = conn.execute(
        "SELECT unit, context FROM pg_settings WHERE name = 'pg_llm.recompute_budget'"
    ).fetchone() or ("", "")
    assert (unit, context) == ("kB", "user")
    with pytest.raises(errors.InvalidParameterValue):
        conn.execute("SET pg_llm.recompute_budget = -1")
