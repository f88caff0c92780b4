"""Transactions around training and generation: versions, failures, cancels, privileges, cursors."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from ..amount import EXTENDED, grows
from ..conftest import Server
from ..support.small_models import Connection, make_names, make_trainable, train, weights
from ..support.tensors import value
from ..support.waiting import wait_for, work_of

Connect = Callable[..., Connection]

NLL = "SELECT nll FROM llm_evaluate('tiny', 'train')"
TRAINING = {"lr_max": 0.05, "warmup": 0, "schedule": "constant", "dropout_p": 0.1, "batch_size": 2}


# -- what ends badly


@pytest.mark.parametrize("way", ["rollback", "savepoint", "error", "timeout", "caught"])
def test_a_failed_run_leaves_no_trace(conn: Connection, way: str) -> None:
    """Neither in the tables nor in the session's memory: what follows has an undisturbed model's bits."""
    make_trainable(conn)
    train(conn, n_steps=2, **TRAINING)
    before, nll = weights(conn), value(conn, NLL)
    if way == "rollback":
        with conn.transaction(force_rollback=True):
            train(conn, n_steps=3, **TRAINING)
            assert weights(conn) != before
    elif way == "savepoint":
        with conn.transaction():
            with conn.transaction(force_rollback=True):
                train(conn, n_steps=3, **TRAINING)
            assert weights(conn) == before
            assert value(conn, NLL) == nll
    elif way == "error":
        with pytest.raises(errors.NumericValueOutOfRange, match="not finite"):
            train(conn, n_steps=500, **TRAINING | {"lr_max": 1e30})
    elif way == "timeout":
        conn.execute("SET statement_timeout = '150ms'")
        with pytest.raises(errors.QueryCanceled):
            train(conn, n_steps=1_000_000, **TRAINING)
        conn.execute("RESET statement_timeout")
    else:
        conn.execute(
            """DO $$ BEGIN
                PERFORM llm_train('tiny', 3, log_every => 0);
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END $$"""
        )
    assert weights(conn) == before
    assert value(conn, NLL) == nll
    assert value(conn, "SELECT count(*) FROM llm_train_progress") == 0
    assert value(conn, "SELECT flag FROM llm_autograd_mode") is False
    assert value(conn, "SELECT count(*) FROM pg_llm_tape(false)") == 0
    train(conn, n_steps=2, **TRAINING)
    make_trainable(conn, "twin")
    for _ in range(2):
        train(conn, "twin", 2, **TRAINING)
    assert weights(conn) == weights(conn, "twin")
    assert value(conn, NLL) == value(conn, NLL.replace("tiny", "twin"))


def test_training_on_inside_one_transaction(conn: Connection) -> None:
    """A savepoint rolled back in the middle: the session goes on from what stood before it."""
    make_trainable(conn)
    with conn.transaction():
        train(conn, n_steps=2, **TRAINING)
        with conn.transaction(force_rollback=True):
            train(conn, n_steps=5, **TRAINING)
        train(conn, n_steps=2, **TRAINING)
    make_trainable(conn, "twin")
    for _ in range(2):
        train(conn, "twin", 2, **TRAINING)
    assert weights(conn) == weights(conn, "twin")


# -- versions


def test_own_changes_are_seen_and_taken_back(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    other = connect()
    nll = value(conn, NLL)
    assert value(other, NLL) == nll
    with conn.transaction(force_rollback=True):
        conn.execute("UPDATE llm_param SET data = data * 3.0 WHERE model = 'tiny' AND name = 'wte.weight'")
        changed = value(conn, NLL)
        assert changed != nll
        assert value(other, NLL) == nll
        with conn.transaction(force_rollback=True):
            conn.execute("UPDATE llm_param SET data = data * 3.0 WHERE model = 'tiny'")
            assert value(conn, NLL) not in (nll, changed)
        assert value(conn, NLL) == changed
    assert value(conn, NLL) == nll


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_reader_beside_a_trainer_that_commits(conn: Connection, connect: Connect, level: str) -> None:
    make_trainable(conn)
    reader = connect(autocommit=False)
    reader.execute(sql.SQL("SET TRANSACTION ISOLATION LEVEL {}").format(sql.SQL(level)))
    queries = (
        NLL,
        "SELECT llm_logits('{1,2,3}', 'tiny')::bytea",
        "SELECT llm_weight('tiny', 'wpe.weight')::bytea",
    )
    seen = [[value(reader, query) for query in queries]]
    for _ in range(3):
        conn.execute("CALL llm_train_loop('tiny', 2, 1, lr_max => 0.05, log_every => 0)")
        seen.append([value(reader, query) for query in queries])
        assert (seen[-1] == [value(conn, query) for query in queries]) is (level == "READ COMMITTED")
    distinct = {repr(row) for row in seen}
    assert len(distinct) == (4 if level == "READ COMMITTED" else 1)


def test_one_statement_sees_one_version(conn: Connection, connect: Connect) -> None:
    """llm_weight in two places of a statement, with a commit of another session between them."""
    make_trainable(conn)
    other = connect()
    result: list[Any] = []

    def read() -> None:
        result.append(
            value(
                other,
                """SELECT a = llm_weight('tiny', 'wpe.weight') FROM (
                    SELECT llm_weight('tiny', 'wpe.weight') AS a, pg_advisory_xact_lock(7) OFFSET 0
                ) q""",
            )
        )

    waiting = "SELECT wait_event = 'advisory' FROM pg_stat_activity WHERE pid = %s"
    conn.execute("SELECT pg_advisory_lock(7)")
    thread = threading.Thread(target=read)
    thread.start()
    wait_for(lambda: value(conn, waiting, (other.info.backend_pid,)), "the first half of the statement")
    train(conn, n_steps=1, **TRAINING)
    conn.execute("SELECT pg_advisory_unlock(7)")
    thread.join(600)
    assert result == [True]
    assert value(
        other, "SELECT llm_weight('tiny', 'wpe.weight') = data FROM llm_param WHERE name = 'wpe.weight'"
    )


def test_gradients_are_stored_over_their_own_version_only(conn: Connection, connect: Connect) -> None:
    """A change that was waited for: its weights must not be taken for those in memory."""
    make_trainable(conn)
    other = connect(autocommit=False)
    conn.execute("SELECT llm_materialize_params('tiny')")
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    conn.execute("SELECT llm_loss('tiny', tokens, target) FROM llm_dataset ORDER BY id LIMIT 1")
    conn.execute("SELECT llm_backprop(NULL, 'tiny')")
    conn.execute("DELETE FROM llm_autograd_mode")
    other.execute("UPDATE llm_param SET data = data * 2.0 WHERE name = 'ln_f.weight'")
    raised: list[BaseException] = []

    def accumulate() -> None:
        try:
            conn.execute("SELECT llm_accumulate_grads('tiny')")
        except psycopg.Error as error:
            raised.append(error)

    thread = threading.Thread(target=accumulate)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    other.commit()
    thread.join(600)
    assert [type(error) for error in raised] == [errors.SerializationFailure]
    assert value(conn, NLL) == value(other, NLL)


def test_a_value_that_is_not_finite(conn: Connection) -> None:
    make_names(conn)
    conn.execute("SELECT llm_generate('a', 2, model => 'names')")
    conn.execute(
        "UPDATE llm_param SET data = data * 'NaN'::float8"
        " WHERE model = 'names' AND name = 'h.1.mlp.c_fc.bias'"
    )
    conn.execute(
        "UPDATE llm_param SET data = pg_llm_full(shape(data), 'Infinity')"
        " WHERE model = 'names' AND name = 'h.0.mlp.c_fc.bias'"
    )
    for statement in (
        "SELECT llm_generate('a', 2, model => 'names')",
        "SELECT llm_loss('names', '{1,2}', '{2,3}')",
        "SELECT llm_train('names', 1)",
    ):
        with pytest.raises(
            errors.NumericValueOutOfRange, match=r'parameter "h\.\d\.mlp\.c_fc\.bias" of model'
        ):
            conn.execute(statement)
    conn.execute("SELECT llm_init_model('names', 1)")
    assert value(conn, "SELECT llm_generate('a', 2, model => 'names')") is not None


# -- cancels


class Statement(threading.Thread):
    """One statement on a connection of its own; `error` is what it raised."""

    def __init__(self, conn: Connection, statement: str) -> None:
        super().__init__(daemon=True)
        self.conn = conn
        self.statement = statement
        self.error: psycopg.Error | None = None

    def run(self) -> None:
        try:
            self.conn.execute(self.statement)
        except psycopg.Error as error:
            self.error = error


def cancel_after(observer: Connection, worker: Connection, statement: str, delay: float) -> float | None:
    """CPU seconds of the statement from the cancel to its end; None when it ended before."""
    running = Statement(worker, statement)
    running.start()
    time.sleep(delay)
    if not running.is_alive():
        return None
    observer.execute("SELECT pg_cancel_backend(%s)", (worker.info.backend_pid,))
    late = work_of(worker, running.join)
    if running.error is None:
        return None
    assert isinstance(running.error, errors.QueryCanceled), running.error
    return late


@pytest.fixture(scope="module")
def big(server: Server, template: str) -> Iterator[Connect]:
    """Connects to a database with a model whose steps take some tenths of a second."""
    name = server.create_database(template)
    with contextlib.ExitStack() as stack:

        def connect() -> Connection:
            return stack.enter_context(psycopg.connect(server.url(name), autocommit=True))

        conn = connect()
        make_names(conn, "big", d_model=512, n_layer=4, n_head=8, n_positions=256)
        conn.execute("DELETE FROM llm_dataset")
        conn.execute(
            "INSERT INTO llm_dataset (model, tokens, target) SELECT 'big', array_agg(j % 20 ORDER BY j),"
            " array_agg((j + i) % 20 ORDER BY j)"
            " FROM generate_series(1, 24) i, generate_series(1, 256) j GROUP BY i"
        )
        yield connect
    server.drop_database(name)


@pytest.fixture(scope="module")
def digest(big: Connect) -> object:
    """Of the model, which no test here may change."""
    return value(big(), DIGEST)


@pytest.fixture(scope="module")
def of_a_pass(big: Connect) -> float:
    """CPU seconds of a forward pass."""
    worker = big()
    worker.execute("SELECT llm_loss('big', '{1}', '{2}')")
    return work_of(worker, lambda: worker.execute(ONE_BATCH))


# Of all that training changes; to fetch it takes longer than the rest of a test.
DIGEST = """
SELECT md5(string_agg(
    concat_ws(',', name, token_id, md5(data::bytea), md5(m::bytea), md5(v::bytea), step), ' '
    ORDER BY name, token_id)) FROM llm_param WHERE model = 'big'
"""
ONE_BATCH = "SELECT llm_loss('big', array_fill(1, '{16,256}'), array_fill(2, '{16,256}'))"


@grows
@pytest.mark.parametrize(
    ("statement", "longest"),
    [
        ("SELECT llm_train('big', 1000, batch_size => 4, log_every => 0)", 1.0),
        ("SELECT llm_release(), llm_materialize_params('big')", 0.15),
        ("SELECT llm_evaluate('big', 'train') FROM generate_series(1, 100)", 0.7),
        ("SELECT llm_generate('emma', 250, 1, 0, 1, 'big', g, NULL) FROM generate_series(1, 1000) g", 0.5),
        ("SELECT llm_init_model('big', g) FROM generate_series(1, 100) g", 0.5),
        (ONE_BATCH, 0.3),
        ("SELECT pg_llm_permutation(20000000, 1, g) FROM generate_series(1, 10) g", 0.5),
    ],
    ids=["train", "load", "evaluate", "generate", "initialise", "one batch", "permutation"],
)
def test_a_cancel_lands_in_the_midst_of_a_pass(
    big: Connect, digest: object, of_a_pass: float, statement: str, longest: float
) -> None:
    """Whatever the statement does, it goes on for less than half the work of a forward pass."""
    observer, worker = big(), big()
    worker.execute("SELECT llm_loss('big', '{1}', '{2}')")
    landed = []
    for moment in (1, 2, 3, 4) if EXTENDED else (1, 3):
        delay = longest * moment / 4
        late = cancel_after(observer, worker, statement, delay)
        landed += [late] if late is not None else []
        assert late is None or late < of_a_pass / 2, (delay, late, of_a_pass)
    assert landed, "every statement ended before its cancel"
    assert value(observer, DIGEST) == digest
    assert value(worker, "SELECT 1") == 1


# -- privileges

READS = (
    "SELECT llm_generate('a', 2, model => 'names')",
    "SELECT llm_generate(ARRAY['a', 'b'], 2, model => 'names')",
    "SELECT * FROM llm_generate_stream('a', 2, model => 'names')",
    "SELECT llm_loss('names', '{1,2}', '{2,3}')",
    "SELECT llm_logits('{1,2}', 'names')",
    "SELECT llm_weight('names', 'wte.weight')",
    "SELECT llm_forward('names', '{1,2}')",
    "SELECT llm_evaluate('names', 'train')",
    "SELECT llm_perplexity('names', 'emma')",
)
WRITES = (
    "SELECT llm_train('names', 1, log_every => 0)",
    "SELECT llm_train_step('names', (SELECT min(id) FROM llm_dataset))",
    "SELECT llm_init_model('names', 1)",
    "SELECT llm_accumulate_grads('names')",
    "UPDATE llm_param SET step = step WHERE model = 'names'",
)


@pytest.fixture
def nobody(conn: Connection) -> Iterator[str]:
    """A role without any grant of ours."""
    role = f"nobody_{secrets.token_hex(4)}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    yield role
    conn.execute(sql.SQL("RESET ROLE; DROP ROLE {}").format(sql.Identifier(role)))


def attempt(conn: Connection, statement: str) -> str | None:
    """SQLSTATE of a statement, whose work is undone; None when it succeeds."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(statement)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def test_who_may_do_what_with_a_warm_cache(conn: Connection, nobody: str) -> None:
    make_names(conn)
    for statement in READS:
        assert attempt(conn, statement) is None, statement
    for role, reads, writes in (
        (nobody, "42501", "42501"),
        ("llm_reader", None, "42501"),
        ("llm_trainer", None, None),
    ):
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        assert {s: attempt(conn, s) for s in READS} == dict.fromkeys(READS, reads), role
        assert {s: attempt(conn, s) for s in WRITES} == dict.fromkeys(WRITES, writes), role
        conn.execute("RESET ROLE")
        for statement in READS:
            assert attempt(conn, statement) is None, statement


def test_a_statement_of_two_roles(conn: Connection, nobody: str) -> None:
    """What a function of the owner's has pinned is not the caller's to read."""
    make_names(conn)
    conn.execute(
        "CREATE FUNCTION mine() RETURNS tensor LANGUAGE sql VOLATILE SECURITY DEFINER"
        " AS $$ SELECT public.llm_weight('names', 'wte.weight') $$"
    )
    conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(nobody)))
    assert attempt(conn, "SELECT mine()") is None
    assert (
        attempt(conn, "SELECT a, llm_weight('names', 'wpe.weight') FROM (SELECT mine() AS a OFFSET 0) q")
        == "42501"
    )
    assert attempt(conn, "SELECT a, pg_llm_param('names', 'wpe.weight') FROM (SELECT mine() AS a OFFSET 0) q")
    conn.execute("RESET ROLE")
    conn.execute("DROP FUNCTION mine()")


# -- cursors

STREAM = "SELECT step, token_id, text FROM llm_generate_stream(%s, %s, 1, 0, 1, 'names', %s)"


def declare(conn: Connection, name: str, prompt: str, n: int, seed: int, options: str = "") -> None:
    conn.execute(f"DECLARE {name} CURSOR {options} FOR {STREAM}", (prompt, n, seed))


def fetch(conn: Connection, name: str, n: str = "ALL") -> list[Any]:
    return conn.execute(f"FETCH {n} FROM {name}").fetchall()


def seed_of_a_long_text(conn: Connection, n: int) -> int:
    """Random weights end a text at random: a seed that does not."""
    for seed in range(200):
        if len(conn.execute(STREAM, ("em", n, seed)).fetchall()) == n:
            return seed
    raise AssertionError("every text ended early")


def test_the_first_token_comes_when_it_is_computed(conn: Connection) -> None:
    make_names(conn, d_model=256, n_layer=4, n_head=4, n_positions=64)
    n = 40
    seed = seed_of_a_long_text(conn, n)
    passes = "SELECT pg_stat_get_xact_function_calls(oid) FROM pg_proc WHERE proname = 'llm_generation_next'"
    conn.execute("SET track_functions = 'all'")
    with conn.transaction():
        declare(conn, "c", "em", n, seed)
        assert len(fetch(conn, "c", "1")) == 1
        assert value(conn, passes) == 1
        assert len(fetch(conn, "c")) == n - 1
        assert value(conn, passes) == n


def test_two_cursors_taking_turns(conn: Connection) -> None:
    make_names(conn)
    expected = {s: conn.execute(STREAM, ("em", 20, s)).fetchall() for s in (3, 4)}
    got: dict[int, list[Any]] = {3: [], 4: []}
    with conn.transaction():
        for s in got:
            declare(conn, f"c{s}", "em", 20, s)
        for turn in range(12):
            for s in got:
                got[s] += fetch(conn, f"c{s}", str(1 + turn % 3))
        conn.execute("CLOSE c3")
        got[4] += fetch(conn, "c4")
    assert got == expected


def test_a_cursor_keeps_its_version(conn: Connection) -> None:
    """Training in the same session between two fetches; what it finds in memory is what the cursor reads."""
    make_names(conn)
    train(conn, "names", 2)
    seed = seed_of_a_long_text(conn, 16)
    expected = conn.execute(STREAM, ("em", 16, seed)).fetchall()
    with conn.transaction():
        declare(conn, "c", "em", 16, seed)
        got = fetch(conn, "c", "4")
        train(conn, "names", 20, lr_max=0.05, warmup=0)
        got += fetch(conn, "c")
        assert got == expected
        assert conn.execute(STREAM, ("em", 16, seed)).fetchall() != expected


def test_a_cursor_beside_a_savepoint(conn: Connection) -> None:
    make_names(conn)
    expected = conn.execute(STREAM, ("em", 16, 9)).fetchall()
    with conn.transaction():
        declare(conn, "c", "em", 16, 9)
        got = fetch(conn, "c", "2")
        with conn.transaction(force_rollback=True):
            train(conn, "names", 2)
        got += fetch(conn, "c")
    assert got == expected


def test_closing_early_and_holding(conn: Connection) -> None:
    make_names(conn)
    expected = conn.execute(STREAM, ("em", 16, 9)).fetchall()
    for _ in range(3):
        with conn.transaction():
            declare(conn, "c", "em", 16, 9)
            assert fetch(conn, "c", "2") == expected[:2]
            conn.execute("CLOSE c")
            declare(conn, "c", "em", 16, 9)
            assert fetch(conn, "c", "1") == expected[:1]
    with conn.transaction():
        declare(conn, "held", "em", 16, 9, "WITH HOLD")
        assert fetch(conn, "held", "3") == expected[:3]
    assert fetch(conn, "held") == expected[3:]
    conn.execute("CLOSE held")
    assert conn.execute(STREAM + " LIMIT 3", ("em", 16, 9)).fetchall() == expected[:3]


def test_a_read_only_transaction_generates(conn: Connection) -> None:
    make_names(conn)
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        for statement in READS:
            assert attempt(conn, statement) is None, statement


def test_a_message_has_no_empty_hint(conn: Connection) -> None:
    make_trainable(conn)
    with pytest.raises(errors.InvalidParameterValue, match="n_steps must be at least 1") as caught:
        train(conn, n_steps=0)
    assert caught.value.diag.message_hint is None
