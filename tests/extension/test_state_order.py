"""What keeps state may be called in any order: every wrong one is an error that says so, none is a crash.

The states are listed at the head of generate.c, versions.c, tape.c, tokenizer.c and progress.c in
kernels/postgres. Here every pair of calls is made in every state that a prefix leads to, and a seeded
share of longer orders, by a role that may execute these functions and nothing else.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import Connection
from ..support.tensors import value

Connect = Callable[..., Connection]

SEED = os.environ.get("LLM_SQL_STATES_SEED") or secrets.token_hex(4)
LONGER = int(os.environ.get("LLM_SQL_STATES_ORDERS", "40"))
# A wrong order, an argument that does not suit the state, nothing of that name, a limit, another's.
ALLOWED = {"55000", "22023", "22003", "22000", "22021", "42704", "54000", "42501", "P0002"}

OPEN = "pg_llm_arena_open('x', uuid_send(gen_random_uuid()), {})"
PUT = "SELECT pg_llm_arena_put('x', 'w', {}, '[[1,2,3],[4,5,6]]', NULL, NULL)"
SEALED = [f"SELECT {OPEN.format('false')}", PUT.format(0), "SELECT pg_llm_arena_seal('x')"]
SEALED_FOR_TRAINING = [f"SELECT {OPEN.format('true')}", PUT.format(0), "SELECT pg_llm_arena_seal('x')"]
KEEP = "SELECT set_config('states.{}', {}::text, false)"
H = "current_setting('states.h')::int"
RECORD = "SET LOCAL pg_llm.autograd = on"


@dataclass
class Machine:
    """Calls on one kind of state, from what stands before them."""

    setup: list[str]
    prefixes: list[list[str]]
    calls: list[str]


MACHINES = {
    "generation": Machine(
        [*SEALED, KEEP.format("h", "pg_llm_gen_open('x', '{1,2}', 8)")],
        [
            [],
            [f"SELECT pg_llm_gen_use(ARRAY[{H}])"],
            [
                f"SELECT pg_llm_gen_use(ARRAY[{H}])",
                "SELECT pg_llm_causal_attention('[[1,2,3]]'::tensor, 1, 0, false, '')",
            ],
        ],
        [
            f"SELECT pg_llm_gen_use(ARRAY[{H}])",
            "SELECT pg_llm_gen_done()",
            "SELECT pg_llm_causal_attention('[[1,2,3]]'::tensor, 1, 0, false, '')",
            "SELECT pg_llm_causal_attention('[[1,2,3],[4,5,6]]'::tensor, 1, 0, false, '')",
            "SELECT pg_llm_positions('{{5,6}}')",
            f"SELECT pg_llm_gen_reset({H})",
            f"SELECT pg_llm_gen_push({H}, 9)",
            KEEP.format("h", f"pg_llm_gen_fork({H})"),
            f"SELECT pg_llm_gen_close({H})",
            KEEP.format("h", "pg_llm_gen_open('x', '{7}', 3)"),
            f"SELECT pg_llm_gen_tokens({H}), pg_llm_gen_length({H})",
            "SELECT pg_llm_arena_close('x')",
            "SELECT pg_llm_arena_discard('x')",
            "SELECT pg_llm_release()",
        ],
    ),
    "version": Machine(
        [],
        [[], [f"SELECT {OPEN.format('true')}"], SEALED_FOR_TRAINING, SEALED],
        [
            f"SELECT {OPEN.format('true')}",
            f"SELECT {OPEN.format('false')}",
            "SELECT pg_llm_arena_open('x', '\\x01', false)",
            PUT.format(0),
            PUT.format(2),
            "SELECT pg_llm_arena_put('x', 'v', 0, '[NaN]', NULL, NULL)",
            "SELECT pg_llm_arena_seal('x')",
            "SELECT pg_llm_arena_close('x')",
            "SELECT pg_llm_arena_discard('x')",
            "SELECT pg_llm_arena_pin_statement('x')",
            "SELECT pg_llm_arena_zero_grad('x')",
            "SELECT pg_llm_arena_adamw('x', 0.1, 0.9, 0.99, 1e-8, 0.1, 1, NULL, false)",
            "SELECT pg_llm_arena_saved('x', '\\x01')",
            "SELECT pg_llm_arena_grad_norms('x')",
            "SELECT pg_llm_param('x', 'w'), pg_llm_arena_data('x', 'w', 0), pg_llm_arena_grad('x', 'w', 0)",
            "SELECT pg_llm_gen_open('x', '{1}', 4)",
            "SELECT pg_llm_release()",
        ],
    ),
    "tape": Machine(
        [*SEALED_FOR_TRAINING, RECORD, "SELECT pg_llm_pass_begin(1, 2, 3)"],
        [
            [],
            ["SELECT pg_llm_sum(pg_llm_mul(pg_llm_param('x', 'w'), pg_llm_param('x', 'w')))"],
            [
                "SELECT pg_llm_sum(pg_llm_param('x', 'w'))",
                "SELECT pg_llm_backward_begin(NULL, 1)",
            ],
        ],
        [
            "SELECT pg_llm_sum(pg_llm_mul(pg_llm_param('x', 'w'), pg_llm_param('x', 'w')))",
            "SELECT pg_llm_sum(pg_llm_dropout(pg_llm_autograd_track_tensor('[1,2]'), 0.5, true))",
            "SELECT pg_llm_sum(pg_llm_autograd_map_param('x', 'w', 0, '[1,2]', '{2,1}'))",
            "SELECT pg_llm_backward_begin(NULL, 0.5)",
            "SELECT pg_llm_backward(t.id) FROM pg_llm_tape(false) t",
            "SELECT pg_llm_backward(t.id) FROM pg_llm_tape(false) t LIMIT 1",
            "SELECT pg_llm_grad_by_id(t.id) FROM pg_llm_tape_tensors() t",
            "SELECT count(*) FROM pg_llm_tape(), pg_llm_tape_tensors(true), pg_llm_tape_params()",
            "SELECT pg_llm_tape_clear()",
            "SELECT pg_llm_tape_base(16777216), pg_llm_tape_quiet(true)",
            "SELECT pg_llm_tape_base(33554432), pg_llm_tape_quiet(false)",
            "SELECT pg_llm_arena_zero_grad('x')",
            "SELECT pg_llm_arena_adamw('x', 0.1, 0.9, 0.99, 1e-8, 0.1, 1, 1.0, true)",
            "SELECT pg_llm_arena_close('x')",
            "SELECT pg_llm_release()",
        ],
    ),
    "tokenizer": Machine(
        [KEEP.format("h", "pg_llm_bpe_create('x', '\\x00')")],
        [
            [],
            [
                f"SELECT pg_llm_bpe_put_token({H}, i, set_byte('\\x00', 0, i), 0)"
                " FROM generate_series(0, 255) i",
            ],
        ],
        [
            KEEP.format("h", "pg_llm_bpe_create('x', '\\x00')"),
            f"SELECT pg_llm_bpe_put_token({H}, 300, '\\x6161', 0)",
            f"SELECT pg_llm_bpe_put_token({H}, 301, '<a>', 3)",
            f"SELECT pg_llm_bpe_put_merge({H}, 0, 'a', 'a')",
            f"SELECT pg_llm_bpe_seal({H})",
            f"SELECT pg_llm_bpe_encode({H}, 'aaa<a>', true)",
            f"SELECT pg_llm_bpe_decode({H}, '{{97,300}}')",
            "SELECT pg_llm_release()",
        ],
    ),
    "progress": Machine(
        [],
        [[]],
        [
            "SELECT pg_llm_progress('x', 1, 2, 3, 4, 5, 6)",
            "SELECT pg_llm_progress(repeat('x', 300), 2, NULL, NULL, NULL, NULL, NULL)",
            "SELECT pg_llm_progress(NULL, 1, 2, 3, 4, 5, 6)",
            "SELECT pg_llm_progress_clear()",
            "SELECT count(*) FROM pg_llm_train_progress()",
        ],
    ),
}


@pytest.fixture
def nobody(conn: Connection, connect: Connect) -> Iterator[Connection]:
    """A role with the right to execute what is walked here, and no other."""
    name = f"states_{secrets.token_hex(4)}"
    conn.execute(f"CREATE ROLE {name} LOGIN")
    conn.execute(
        "DO $$ BEGIN EXECUTE ("
        f" SELECT string_agg(format('GRANT EXECUTE ON FUNCTION %s TO {name}', oid::regprocedure), ';')"
        " FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname ~ '^pg_llm_(arena|gen|tape|"
        "bpe|backward|grad|param|pass|positions|progress|release|autograd|train_progress|causal)'); END $$"
    )
    connection = connect(user=name)
    yield connection
    connection.close()
    conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def complaint(error: psycopg.Error) -> str | None:
    """What is wrong with an error: a class that no caller should see, or no word on what to do."""
    if error.sqlstate not in ALLOWED:
        return f"{error.sqlstate}: {error}"
    if error.sqlstate == "55000" and not error.diag.message_hint:
        return f"no hint: {error}"
    return None


def walk(conn: Connection, steps: list[str], savepoints: bool) -> list[str]:
    """All steps in one transaction, those that fail undone; complaints about their errors."""
    complaints = []
    for step in steps:
        try:
            conn.execute("SAVEPOINT step")
            conn.execute(step)
        except psycopg.Error as error:
            if conn.closed:
                raise
            found = complaint(error)
            if found is not None:
                complaints.append(f"{found}\nin {step}\nof {steps}")
            conn.execute("ROLLBACK TO step")
        if not savepoints:
            conn.execute("RELEASE step")
    return complaints


@pytest.mark.parametrize("name", MACHINES)
def test_every_pair_and_some_longer_orders(nobody: Connection, name: str) -> None:
    machine = MACHINES[name]
    pid = nobody.info.backend_pid
    rng = Random(f"{SEED} {name}")
    orders = [
        [*prefix, *pair] for prefix in machine.prefixes for pair in itertools.product(machine.calls, repeat=2)
    ]
    undo = ["ROLLBACK TO step", "ROLLBACK TO step"]
    orders += [
        [*rng.choice(machine.prefixes), *rng.choices(machine.calls + undo, k=rng.randrange(3, 12))]
        for _ in range(LONGER)
    ]
    nobody.execute("SET statement_timeout = '60s'")
    for order in orders:
        nobody.execute("BEGIN")
        for step in machine.setup:
            nobody.execute(step)
        assert walk(nobody, order, savepoints=rng.random() < 0.5) == []
        nobody.execute(rng.choice(["ROLLBACK", "ROLLBACK", "COMMIT"]))
    assert value(nobody, "SELECT pg_backend_pid()") == pid, f"LLM_SQL_STATES_SEED={SEED}"


def run(conn: Connection, steps: list[str]) -> None:
    for step in steps:
        conn.execute(step)


@pytest.fixture
def generation(conn: Connection) -> Iterator[Connection]:
    """In a transaction, with a generation whose handle is states.h."""
    with conn.transaction(force_rollback=True):
        run(conn, MACHINES["generation"].setup)
        yield conn


ATTENTION = "SELECT pg_llm_causal_attention('[[1,2,3]]'::tensor, 1, 0, false, '')"
USE = f"SELECT pg_llm_gen_use(ARRAY[{H}])"


@pytest.mark.parametrize(
    "call",
    ["reset({})", "push({}, 1)", "fork({})", "use(ARRAY[{}])", "sampling({}, '{{}}', 'top_k'::text, 1)"],
)
def test_a_generation_does_not_change_in_the_middle_of_a_pass(generation: Connection, call: str) -> None:
    run(generation, [USE, ATTENTION])
    with (
        pytest.raises(errors.ObjectNotInPrerequisiteState, match="middle of a forward pass"),
        generation.transaction(),
    ):
        generation.execute(f"SELECT pg_llm_gen_{call.format(H)}")
    run(generation, [ATTENTION, "SELECT pg_llm_gen_done()"])
    assert value(generation, f"SELECT pg_llm_gen_length({H})") == 1


def test_what_a_generation_is_told_about_sampling(generation: Connection) -> None:
    logits = "'[[1,9,3]]'::tensor"
    for call in (f"pg_llm_gen_sample({H}, {logits})", f"pg_llm_gen_write({H}, 'a')"):
        with (
            pytest.raises(errors.ObjectNotInPrerequisiteState, match="no sampling settings"),
            generation.transaction(),
        ):
            generation.execute(f"SELECT {call}")
    for settings, message in (
        ("'warmth'::text, 1", 'no sampling setting "warmth"'),
        ("NULL, 1", 'no sampling setting "NULL"'),
        ("'top_k'::text, 1::bigint", '"top_k" must be of type integer, not bigint'),
        ("'top_k'::text, NULL::int", '"top_k" must not be NULL'),
        ("'top_k'::text", "names and values in turn"),
    ):
        with pytest.raises(errors.InvalidParameterValue, match=message), generation.transaction():
            generation.execute(f"SELECT pg_llm_gen_sampling({H}, '{{}}', {settings})")
    generation.execute(
        f"SELECT pg_llm_gen_sampling({H}, '{{2}}', 'temperature'::text, 0::float8,"
        " 'seed'::text, NULL::bigint, 'stop'::text, ARRAY['bc', NULL])"
    )
    assert value(generation, f"SELECT pg_llm_gen_sample({H}, {logits})") == 1
    assert generation.execute(f"SELECT * FROM pg_llm_gen_write({H}, 'ab')").fetchone() == (1, "a", "a", False)
    generation.execute(f"SELECT pg_llm_gen_sample({H}, '[[1,2,3]]'::tensor)")
    assert value(generation, f"SELECT pg_llm_gen_last({H}, 2)") == [1, 2]
    row = generation.execute(f"SELECT * FROM pg_llm_gen_write({H}, 'ignored: the token ends the text')")
    assert row.fetchone() == (2, "b", "ab", True)
    with pytest.raises(errors.UndefinedObject), generation.transaction():
        generation.execute(f"SELECT pg_llm_gen_length({H})")


@pytest.mark.parametrize("qkv", ["'[[1,2,3],[4,5,6]]'", "'[[1],[4]]', '[[2],[5]]', '[[3],[6]]'"])
def test_a_gradient_in_the_middle_of_a_pass_is_that_outside(generation: Connection, qkv: str) -> None:
    """It reads no key/value cache, and writes none."""
    call = f"SELECT pg_llm_causal_attention_backward('[[1],[2]]'::tensor, {qkv}, 1)::text"
    expected = value(generation, call)
    run(generation, [USE])
    for _ in range(3):
        assert value(generation, call) == expected
    run(generation, [ATTENTION, "SELECT pg_llm_gen_done()"])
    assert value(generation, f"SELECT pg_llm_gen_length({H})") == 1


@pytest.mark.parametrize(
    "call",
    [
        "pg_llm_bidirectional_attention('[[1]]', '[[1]]', '[[1]]', 1)",
        "pg_llm_positions('{1}', lengths => '{1}')",
    ],
)
def test_what_an_encoder_does_goes_on_from_no_cache(generation: Connection, call: str) -> None:
    run(generation, [USE])
    with pytest.raises(errors.FeatureNotSupported, match="key/value cache"), generation.transaction():
        generation.execute(f"SELECT {call}")
    run(generation, ["SELECT pg_llm_positions('{1}')", ATTENTION, "SELECT pg_llm_gen_done()"])
    gradient = "pg_llm_bidirectional_attention_backward('[[1]]', '[[1]]', '[[1]]', '[[1]]', 1)"
    run(generation, [USE, f"SELECT {gradient}", ATTENTION, "SELECT pg_llm_gen_done()"])


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_all_passes_have_the_same_layers(generation: Connection, layers: int) -> None:
    run(generation, [USE, ATTENTION, ATTENTION, "SELECT pg_llm_gen_done()", USE])
    generation.execute("SELECT pg_llm_positions('{1}')")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="layer"), generation.transaction():
        run(generation, [*[ATTENTION] * layers, "SELECT pg_llm_gen_done()"])
    assert value(generation, f"SELECT pg_llm_gen_length({H})") == 1


def test_all_layers_take_the_same_positions(generation: Connection) -> None:
    run(generation, [USE, ATTENTION])
    with pytest.raises(errors.InvalidParameterValue, match="1 new positions, not 2"):
        generation.execute("SELECT pg_llm_causal_attention('[[1,2,3],[1,2,3]]'::tensor, 1, 0, false, '')")


def test_growth_that_fails_leaves_a_generation_as_it_was(generation: Connection) -> None:
    with pytest.raises(errors.ProgramLimitExceeded), generation.transaction():
        generation.execute("SELECT pg_llm_gen_open('x', array_fill(7, ARRAY[16777217]), 8)")
    generation.execute(KEEP.format("h", "pg_llm_gen_open('x', array_fill(7, ARRAY[16777216]), 8)"))
    generation.execute(
        f"""DO $$ BEGIN
            FOR i IN 1 .. 50 LOOP
                BEGIN
                    PERFORM pg_llm_gen_push({H}, 9);
                    RAISE EXCEPTION 'one too many';
                EXCEPTION WHEN program_limit_exceeded THEN NULL;
                END;
            END LOOP;
        END $$"""
    )
    assert value(generation, f"SELECT cardinality(pg_llm_gen_tokens({H}))") == 16777216


def test_a_generation_without_tokens(generation: Connection) -> None:
    for empty in ("'{}'", "'{}'::int[]"):
        generation.execute(KEEP.format("h", f"pg_llm_gen_open('x', {empty}, 8)"))
        generation.execute(KEEP.format("h", f"pg_llm_gen_fork({H})"))
        assert value(generation, f"SELECT pg_llm_gen_tokens({H})") == []
        generation.execute(f"SELECT pg_llm_gen_close({H})")


def test_a_session_holds_so_many_generations(generation: Connection) -> None:
    with pytest.raises(errors.ProgramLimitExceeded, match="open"):
        generation.execute("SELECT count(pg_llm_gen_open('x', '{1}', 8)) FROM generate_series(1, 20000)")


def test_a_seal_that_failed_is_not_repeated(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute(f"SELECT {OPEN.format('false')}")
        conn.execute("SELECT pg_llm_arena_put('x', 'a', 0, '[1,2]', NULL, NULL)")
        conn.execute("SELECT pg_llm_arena_put('x', 'b', 0, '[NaN]', NULL, NULL)")
        with pytest.raises(errors.NumericValueOutOfRange), conn.transaction():
            conn.execute("SELECT pg_llm_arena_seal('x')")
        for call in ("seal('x')", "put('x', 'c', 0, '[1]', NULL, NULL)"):
            with pytest.raises(errors.ObjectNotInPrerequisiteState, match="being fed"), conn.transaction():
                conn.execute(f"SELECT pg_llm_arena_{call}")
        run(conn, ["SELECT pg_llm_arena_close('x')", *SEALED])
        assert value(conn, "SELECT norm(pg_llm_param('x', 'w'))") > 9


def test_only_who_pinned_it_for_training_changes_a_version(conn: Connection) -> None:
    """It may be shared with generations, which must see it as it was."""
    with conn.transaction(force_rollback=True):
        conn.execute(
            "SELECT pg_llm_arena_open('x', '\\x77', true), pg_llm_arena_seal('x'), pg_llm_arena_close('x')"
        )
        assert value(conn, "SELECT pg_llm_arena_open('x', '\\x77', false)") is True
        for call in (
            "adamw('x', 0.1, 0.9, 0.99, 1e-8, 0.1, 1, NULL, false)",
            "saved('x', '\\x01')",
        ):
            with pytest.raises(errors.ObjectNotInPrerequisiteState, match="training"), conn.transaction():
                conn.execute(f"SELECT pg_llm_arena_{call}")
    with conn.transaction(force_rollback=True):
        run(conn, SEALED_FOR_TRAINING)
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="being trained"):
            conn.execute("SELECT pg_llm_gen_open('x', '{1}', 8)")


def test_another_role_neither_sees_nor_ends_a_pass(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("CREATE ROLE states_other")
        conn.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO states_other")
        run(conn, [*MACHINES["generation"].setup, USE, "SET LOCAL ROLE states_other"])
        for call in (ATTENTION, "SELECT pg_llm_positions('{1}')", f"SELECT pg_llm_gen_tokens({H})"):
            with pytest.raises(errors.InsufficientPrivilege, match="another role"), conn.transaction():
                conn.execute(call)
        with pytest.raises(errors.ObjectNotInPrerequisiteState), conn.transaction():
            conn.execute("SELECT pg_llm_gen_done()")
        run(conn, ["SELECT pg_llm_arena_close('x')", "RESET ROLE", ATTENTION, "SELECT pg_llm_gen_done()"])
        assert value(conn, "SELECT pg_llm_arena_pinned('x')") is True


def test_what_a_session_kept_of_its_batches_is_given_back(conn: Connection) -> None:
    conn.execute("SELECT llm_release()")
    conn.execute("SELECT pg_llm_batch(1000000, 1, 0, 1)")
    assert value(conn, "SELECT llm_release()") >= 8_000_000
    with pytest.raises(errors.InvalidParameterValue, match="between 1 and"):
        conn.execute("SELECT pg_llm_batch(2147483648, 1, 0, 1)")
    assert value(
        conn, "SELECT bool_and(provolatile = 'v') FROM pg_proc WHERE proname ~ 'pg_llm_(batch|permutation)'"
    )
