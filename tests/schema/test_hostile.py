"""Nothing a user can type crashes, hangs or leaks: every function of ours, called with random arguments.

LLM_SQL_HOSTILE_CALLS sets the calls per function (15; CI takes 200), LLM_SQL_HOSTILE_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psycopg
import pytest

from ..amount import grows
from ..support.hostile import Function, functions, op_arguments
from ..support.hostile_values import MODEL
from ..support.small_models import Connection, make_names, train, weights
from ..support.tensors import value
from ..support.waiting import cpu_seconds

Connect = Callable[..., Connection]

CALLS = int(os.environ.get("LLM_SQL_HOSTILE_CALLS", "15"))
SEED = os.environ.get("LLM_SQL_HOSTILE_SEED") or secrets.token_hex(4)
TIMEOUT_MS = 40
MEMORY_BYTES = 3 << 30

HANDLE = (
    f"SELECT llm_pin('{MODEL}');"
    f" SELECT set_config('hostile.handle', pg_llm_gen_open('{MODEL}', '{{1,2}}', 8)::text, true)"
)
RECORDED = (
    f"SET LOCAL pg_llm.autograd = on; SELECT llm_pin('{MODEL}', true);"
    f" SELECT llm_forward('{MODEL}', '{{1,2,3}}', true, '{{2,3,4}}', 0.1)"
)
OPEN = f"SELECT pg_llm_arena_open('{MODEL}', uuid_send(gen_random_uuid()), true)"
PUT = f"pg_llm_arena_put('{MODEL}', 'wte.weight', 0, pg_llm_full('{{3,2}}', 1), NULL, NULL)"
# What a session may be in the middle of.
STATES = {
    "idle": "SELECT 1",
    "recording": "SET LOCAL pg_llm.autograd = on",
    "full": "SET LOCAL pg_llm.autograd = on; SET LOCAL pg_llm.record = 'full'",
    "pinned": f"SELECT llm_pin('{MODEL}', true)",
    "recorded": RECORDED,
    "backward": RECORDED + "; SELECT pg_llm_backward_begin(NULL, 1)",
    "generation": HANDLE,
    "generating": HANDLE + "; SELECT pg_llm_gen_use(ARRAY[current_setting('hostile.handle')::int])",
    "feeding": OPEN,
    "fed": f"{OPEN}, {PUT}, pg_llm_arena_seal('{MODEL}')",
}


def states_for(function: Function) -> list[str]:
    """States in which its calls get further than their checks."""
    name = function.name
    if "_gen_" in name or name.startswith("llm_generation"):
        return ["generation", "generating", "generation", "idle"]
    if name in ("pg_llm_arena_put", "pg_llm_arena_seal"):
        return ["feeding", "feeding", "pinned", "idle"]
    if name == "pg_llm_arena_saved":
        # Not in "fed": that would be a lie which later calls of the session believe.
        return ["pinned", "idle"]
    if "arena" in name or name in ("pg_llm_param", "llm_write_back", "llm_lock_rows", "llm_check_weights"):
        return ["pinned", "pinned", "backward", "fed", "idle"]
    if "backward" in name or "tape" in name or "grad" in name or name in ("llm_backprop", "pg_llm_tensor_id"):
        return ["recorded", "backward", "recording", "idle"]
    if name.startswith(("llm_forward", "llm_train_steps", "pg_llm_positions")):
        return ["pinned", "recorded", "generating", "fed", "idle"]
    if "tensor" in function.types:
        return ["idle", "idle", "recording", "full", "generating"]
    return ["idle", "idle", "recording"]


@dataclass
class Result:
    """What one connection's share of the calls came to."""

    calls: int = 0
    succeeded: int = 0
    per_function: dict[str, int] = field(default_factory=dict)
    slow: list[tuple[float, str]] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    crash: str | None = None


class Attack(threading.Thread):
    """Calls a share of the functions on one connection; a transaction for every few calls."""

    def __init__(self, conn: Connection, share: list[Function]) -> None:
        super().__init__(daemon=True)
        self.conn = conn
        self.share = share
        self.result = Result()

    def run(self) -> None:
        for function in self.share:
            rng = Random(f"{SEED}/{function.signature}")
            done = 0
            while done < CALLS:
                attempt = self.procedure if function.kind == "p" else self.transaction
                try:
                    done += attempt(function, rng)
                except psycopg.OperationalError as error:
                    self.result.crash = f"{error}\nin {self.last}"
                    return

    def transaction(self, function: Function, rng: Random) -> int:
        state = rng.choice(states_for(function))
        try:
            self.conn.execute(f"BEGIN; {STATES[state]}; SET LOCAL statement_timeout = {TIMEOUT_MS}")
        except psycopg.Error as error:
            self.conn.execute("ROLLBACK")
            self.result.unexpected.append(f"{state} before {function.signature}: {error}")
            return 1
        calls = 0
        while calls < 4:
            calls += 1
            if not self.one(function, rng, state):
                break
        self.conn.execute("ROLLBACK")
        return calls

    def procedure(self, function: Function, rng: Random) -> int:
        """A procedure that commits cannot run inside of a transaction."""
        self.conn.execute(f"SET statement_timeout = {TIMEOUT_MS}")
        self.one(function, rng, "idle")
        self.conn.execute("RESET statement_timeout")
        return 1

    def one(self, function: Function, rng: Random, state: str) -> bool:
        statement = function.call(rng)
        self.last = f"{state}: {statement}"
        result = self.result
        result.calls += 1
        began = cpu_seconds(self.conn)
        try:
            self.conn.execute(statement)
        except psycopg.OperationalError as error:
            # Cancels and memory limits are errors of this class, too.
            if self.conn.closed or error.sqlstate is None or error.sqlstate.startswith("57P"):
                raise
            return False
        except psycopg.Error as error:
            # What a function of ours says of a name that it was given is no mistake in its own SQL.
            told = (error.diag.context or "").split("\n")[0].endswith("at RAISE")
            if error.sqlstate in (None, "XX000", "XX001", "XX002", "42883", "42P01", "42703") and not told:
                result.unexpected.append(f"{error.sqlstate} {str(error)[:300]}\n    {self.last[:600]}")
            return False
        finally:
            if not self.conn.closed:
                result.slow.append((cpu_seconds(self.conn) - began, self.last[:400]))
                result.slow = sorted(result.slow, reverse=True)[:5]
        result.succeeded += 1
        result.per_function[function.signature] = result.per_function.get(function.signature, 0) + 1
        return True


@pytest.fixture
def target(fresh_conn: Connection) -> Connection:
    """A database of the test's own with a trained model and its data."""
    make_names(fresh_conn, MODEL, n_positions=8, d_model=8)
    train(fresh_conn, MODEL, 2)
    return fresh_conn


def resident(conn: Connection, what: str) -> int:
    """Bytes of the backend's memory as Linux tells them: RssAnon, its own, or VmHWM, the peak of all."""
    status = Path(f"/proc/{conn.info.backend_pid}/status")
    if not (conn.info.host or "").startswith("/") or not status.exists():
        pytest.skip("needs a server on this machine, and Linux")
    line = next(line for line in status.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


@grows
def test_random_calls_of_every_function(target: Connection, connect: Connect) -> None:
    query = f"SELECT llm_generate('em', 8, 0, model => '{MODEL}')"
    text = value(target, query)
    known = functions(target)
    assert len(known) > 200
    attackers = [Attack(connect(), known[i::2]) for i in range(2)]
    pids = [attacker.conn.info.backend_pid for attacker in attackers]
    for attacker in attackers:
        attacker.conn.execute("SET client_min_messages = error")
        attacker.start()
    for attacker in attackers:
        attacker.join()
    results = [attacker.result for attacker in attackers]
    where = f"LLM_SQL_HOSTILE_SEED={SEED}"
    print(where)
    assert [r.crash for r in results] == [None, None], where
    assert [value(attacker.conn, "SELECT pg_backend_pid()") for attacker in attackers] == pids, where
    unexpected = [line for r in results for line in r.unexpected]
    assert not unexpected, f"{where}: {len(unexpected)}\n" + "\n".join(sorted(unexpected)[:20])
    slowest = max(r.slow[0] for r in results)
    # Of CPU: the time-out comes after some hundredths.
    assert slowest[0] < 5, f"{where}: {slowest}"
    succeeded, calls = (sum(getattr(r, what) for r in results) for what in ("succeeded", "calls"))
    assert calls >= CALLS * len(known)
    assert succeeded > calls / 3, f"{where}: {succeeded} of {calls} calls got past the checks"
    got = {signature for r in results for signature in r.per_function}
    print(f"{succeeded} of {calls} calls succeeded; never: {sorted({f.signature for f in known} - got)}")
    if value(target, "SELECT max(step) FROM llm_param") == 2:
        assert value(target, query) == text
    for attacker in attackers:
        assert resident(attacker.conn, "VmHWM") < MEMORY_BYTES, where


def test_every_op_has_sensible_arguments(conn: Connection) -> None:
    names = {name for (name,) in conn.execute("SELECT name FROM pg_llm_ops()")}
    names = {f"pg_llm_{name}{suffix}" for name in names for suffix in ("", "_backward")}
    ops = [f for f in functions(conn) if f.name in names and "tensor" in f.types]
    assert names == {f.name for f in ops}
    assert [f.signature for f in ops if op_arguments(Random(0), f.name, f.types) is None] == []


# -- what random calls have found


def test_weights_that_cannot_be_read_again_are_not_written(target: Connection) -> None:
    before = weights(target, MODEL)
    for step in ("llm_train('{}', 1, {})", "llm_train_step('{}', 1, {})"):
        with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="not finite"):
            target.execute("SELECT " + step.format(MODEL, "lr_max => 1e308, warmup => 0"))
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="not finite"):
        target.execute(f"CALL llm_train_loop('{MODEL}', 1, lr_max => 1e308, warmup => 0)")
    assert weights(target, MODEL) == before


def test_a_cache_is_for_one_kind_of_head(target: Connection) -> None:
    with target.transaction(force_rollback=True):
        target.execute(STATES["generating"])
        target.execute("SELECT pg_llm_causal_attention(pg_llm_full('{2,12}', 1), 1), pg_llm_gen_done()")
        target.execute("SELECT pg_llm_gen_use(ARRAY[current_setting('hostile.handle')::int])")
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match="caches 1 heads of width 4, not 8 of 512"
        ):
            target.execute("SELECT pg_llm_causal_attention(pg_llm_full('{1,12288}', 1), 8)")


def test_positions_beyond_the_context(target: Connection) -> None:
    with target.transaction(force_rollback=True):
        target.execute(STATES["generating"])
        target.execute("SELECT pg_llm_positions(array_fill(1, '{1000000}'))")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="do not fit into a context of 8"):
            target.execute("SELECT pg_llm_gen_done()")


@pytest.mark.parametrize("path", ["x" * 300, "/" + "x" * 300, "x" * 70000])
def test_a_name_that_the_system_finds_too_long(target: Connection, path: str) -> None:
    with pytest.raises(psycopg.errors.NameTooLong):
        target.execute("SELECT pg_llm_read_file(%s, 10)", (path,))


def test_absurd_permutations_end_by_a_timeout_or_at_once(target: Connection) -> None:
    target.execute("SET statement_timeout = '100ms'")
    for arguments in ("2147483648, 1, 0, 1", "60000000, 1, 59999999, 3", "1, 1, 9223372036854775807, 5"):
        with pytest.raises(psycopg.Error):
            target.execute(f"SELECT pg_llm_batch({arguments})")


# -- leaks: the same failure again and again


LEAKS = {
    "an op refuses": "SELECT pg_llm_matmul(pg_llm_gelu(pg_llm_full('{256,256}', 1)), '[1,2]')",
    "a nested op refuses": (
        "SELECT pg_llm_sum(a * a) + pg_llm_reshape(a, '{7}')"
        " FROM (SELECT pg_llm_softmax(pg_llm_full('{300,300}', 1)) AS a OFFSET 0) q"
    ),
    "while recording": (
        "DO $$ DECLARE x tensor; BEGIN PERFORM set_config('pg_llm.autograd', 'on', true);"
        " x := pg_llm_autograd_track_tensor(pg_llm_full('{300,300}', 1)); x := pg_llm_gelu(x * x);"
        " PERFORM pg_llm_matmul(x, '[1,2]'); END $$"
    ),
    "a token out of range": f"SELECT llm_loss('{MODEL}', '{{1,2,3}}', '{{1,2,999}}')",
    "in the middle of training": (
        f"DO $$ BEGIN PERFORM llm_train('{MODEL}', 1, log_every => 0); RAISE division_by_zero; END $$"
    ),
    "in the middle of a generation": (
        f"SELECT step / (3 - step) FROM llm_generate_stream('em', 6, 0, model => '{MODEL}', stop => '{{x}}')"
    ),
    "a savepoint": (
        f"DO $$ BEGIN PERFORM llm_train('{MODEL}', 1, log_every => 0); RAISE division_by_zero;"
        " EXCEPTION WHEN division_by_zero THEN NULL; END $$"
    ),
    "a bad text": "SELECT ('[' || repeat('1,', 50000) || 'x]')::tensor",
    "weights that do not fit": (
        "SELECT pg_llm_arena_open('fed', '\\x01', true), pg_llm_arena_put('fed', 'a', 0,"
        " pg_llm_full('{300,300}', 1), NULL, NULL), pg_llm_arena_put('fed', 'a', 7, '[1]', NULL, NULL),"
        " pg_llm_arena_seal('fed')"
    ),
    "a cursor left open": f"SELECT * FROM llm_generate_stream('em', 8, 0, model => '{MODEL}') LIMIT 2",
}


@pytest.mark.parametrize("statement", LEAKS.values(), ids=LEAKS.keys())
def test_a_failure_gives_all_memory_back(target: Connection, statement: str) -> None:
    def repeat(n: int) -> int:
        for _ in range(n):
            with contextlib.suppress(psycopg.Error):
                target.execute(statement)
        return resident(target, "RssAnon")

    target.execute("SET client_min_messages = error")
    before = repeat(40)
    after = repeat(160)
    # A leaked 300 x 300 tensor a call would come to 58 MB, one of a training step's versions to more than 4.
    assert after - before < 4 << 20, f"{(after - before) >> 10} kB in 160 calls"


def test_cancels_give_all_memory_back(target: Connection) -> None:
    """Ends at any moment of training, by a timeout."""

    def repeat(n: int) -> int:
        for i in range(n):
            target.execute("SELECT set_config('statement_timeout', %s, false)", (f"{3 + i % 20}ms",))
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                train(target, MODEL, 1_000_000)
            target.execute("SET statement_timeout = 0")
        return resident(target, "RssAnon")

    before = repeat(40)
    after = repeat(160)
    assert after - before < 4 << 20, f"{(after - before) >> 10} kB in 160 calls"
    train(target, MODEL, 1)
