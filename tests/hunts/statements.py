"""Statements of a random session: calls, and transactions, cursors, settings and roles around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from psycopg import pq

from ..support.hostile_values import tensor
from .database import ROLES, login
from .session import Call, Plausible, State

SETTINGS = {
    "pg_llm.threads": ("1", "2", "3", "0"),
    "pg_llm.isa": ("auto", "scalar"),
    "pg_llm.attention_chunk": ("1", "7", "64"),
    "pg_llm.record": ("off", "graph", "full"),
    "pg_llm.tape_keep": ("none", "last", "all"),
    "pg_llm.cache_size": ("0", "1", "4096"),
    "pg_llm.recompute_budget": ("0", "1", "16", "1000"),
    "pg_llm.weights": ("float32", "bf16", "int8", "int4"),
    "pg_llm.autograd": ("on", "on", "off"),
    "pg_llm.default_model": ("", "hostile", "nothing"),
    "work_mem": ("64kB", "4MB"),
    "extra_float_digits": ("-15", "1"),
    "statement_timeout": ("1", "3", "300", "300", "1000"),
    "synchronous_commit": ("on", "off"),
    "plan_cache_mode": ("force_generic_plan", "auto"),
}
CURSORS = (
    "SELECT * FROM llm_generate_stream('em', 20, 0, model => 'hostile')",
    "SELECT * FROM llm_generate_stream('a', 5, 1, model => 'learnt', seed => 1)",
    "SELECT * FROM pg_llm_tape(true)",
    "SELECT * FROM pg_llm_tape_tensors(true)",
    "SELECT * FROM llm_beam_search('a', 2, 3, 'hostile')",
    "SELECT pg_llm_param('hostile', 'wte.weight') FROM generate_series(1, 3)",
    "SELECT pg_llm_gen_push({handle}, g) FROM generate_series(1, 100) g",
    "SELECT t, pg_llm_gelu(t) FROM kept",
    "SELECT llm_train('hostile', 1, log_every => 0) FROM generate_series(1, 2)",
)
PROGRAM = (
    "x := x * x",
    "y := pg_llm_gelu(x)",
    "y := x @ pg_llm_transpose(x)",
    "x := pg_llm_softmax(x)",
    "x := pg_llm_autograd_track_tensor(x)",
    "y := pg_llm_reshape(x, '{3,2}')",
    "x := pg_llm_slice(x, 0, 0, 1)",
    "x := pg_llm_matmul(x, '[1]')",
    "y := pg_llm_sum(x)",
    "n := llm_backprop()",
    "n := llm_tape_backward(NULL, 1)",
    "PERFORM pg_llm_backward_begin(NULL, 1)",
    "y := pg_llm_grad(x)",
    "n := pg_llm_tensor_id(x)",
    "PERFORM pg_llm_tape_clear()",
    "PERFORM pg_llm_set_recording(true, true)",
    "PERFORM pg_llm_set_recording(false, true)",
    "PERFORM llm_loss('hostile', '{1,2,3}', '{2,3,4}')",
    "y := llm_forward('micro', '{1,2,3}', true, '{2,3,4}', 0.1)",
    "PERFORM llm_pin('hostile', true)",
    "PERFORM pg_llm_arena_close('hostile')",
    "x := pg_llm_param('hostile', 'wte.weight')",
    "PERFORM 1 / 0",
    "FOR y IN SELECT pg_llm_neg(t) FROM kept t(i, t) LOOP x := y; END LOOP",
    "FOR n IN SELECT step FROM llm_generate_stream('em', 5, 0, model => 'hostile') LOOP EXIT; END LOOP",
)


@dataclass
class Statement:
    """What is sent, how many calls of ours it makes, and what its success means."""

    text: str
    calls: int = 0
    expressions: list[Call] = field(default_factory=list)
    kind: str = "call"
    name: str = ""
    before: tuple[State, list[tuple[str, State]], int, bool] | None = None
    n_results: int = 1
    memory: int | None = None  # nothing is sent: so much more memory from here on


class Statements:
    """Draws statements; keeps the savepoints with the state each goes back to."""

    def __init__(self, rng: Random, plausible: Plausible, role: str) -> None:
        self.rng, self.plausible, self.role = rng, plausible, role
        self.savepoints: list[tuple[str, State]] = []
        self.depth = 0  # 0: no transaction
        self.is_failed = self.is_limited = False
        self.n = 0
        self.held: set[str] = set()  # cursors that outlive their transaction, if it commits

    def opening(self) -> list[str]:
        return [
            "SET client_min_messages = warning; SET hostile.handle = 1",
            "CREATE TEMP TABLE kept AS SELECT 1 AS i, '[[1,2,3],[4,5,6]]'::tensor AS t",
            "SET lock_timeout = '50ms'; SET statement_timeout = '300ms'",
        ]

    # -- what comes next

    def batch(self) -> tuple[list[Statement], int | None]:
        """Statements for one round trip, and a limit of memory to set after it.

        Several only inside a transaction: outside of one they would be one together.
        """
        batch: list[Statement] = []
        if self.is_limited and self.rng.random() < 0.15:
            self.is_limited = False
            return batch, -1
        for _ in range(self.rng.choice((1, 4, 8, 16))):
            statement = self.next()
            if statement.memory is not None:
                self.is_limited = statement.memory > 0
                return batch, statement.memory
            was_outside = self.depth == 0
            self.assume(statement)
            batch.append(statement)
            if any(call.is_large for call in statement.expressions):
                self.is_limited = True
                return batch, 1 << 20
            if was_outside or self.depth == 0 or any(call.late for call in statement.expressions):
                break
        return batch, None

    def next(self) -> Statement:
        rng = self.rng
        if self.is_failed:
            return self.recover()
        if self.depth == 0:
            roll = rng.random()
            if roll < 0.8:
                mode = rng.choice(("", "", "", "", " ISOLATION LEVEL REPEATABLE READ", " READ ONLY"))
                return Statement(f"BEGIN{mode}", kind="begin")
            return self.around() if roll < 0.9 else self.calls()
        roll = rng.random()
        if roll < 0.02:
            return Statement("COMMIT" if rng.random() < 0.4 else "ROLLBACK", kind="end")
        if roll < 0.06:
            return self.savepoint()
        if roll < 0.075 and self.savepoints:
            return self.back()
        if roll < 0.09 and self.savepoints:
            name = rng.choice(self.savepoints)[0]
            return Statement(f"RELEASE {name}", kind="release", name=name)
        if roll < 0.16:
            return self.around()
        if roll < 0.19:
            return self.program()
        return self.calls()

    def recover(self) -> Statement:
        if self.savepoints and self.rng.random() < 0.95:
            return self.back()
        return Statement("ROLLBACK", kind="end")

    def savepoint(self) -> Statement:
        self.n += 1
        return Statement(f"SAVEPOINT s{self.n}", kind="savepoint", name=f"s{self.n}")

    def back(self) -> Statement:
        name = self.savepoints[-1][0] if self.rng.random() < 0.8 else self.rng.choice(self.savepoints)[0]
        return Statement(f"ROLLBACK TO {name}", kind="back", name=name)

    def calls(self) -> Statement:
        rng = self.rng
        calls = [self.plausible.call() for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]
        calls = next(([call] for call in calls if call.is_large), calls)
        roll = rng.random()
        if roll < 0.12 and self.depth > 0:
            wrapper = rng.choice(("caught", "caught", "twice", *(f"as_{role}" for role in ROLES)))
            quoted = calls[0].text.replace("'", "''")
            return Statement(
                f"SELECT hunt.{wrapper}('SELECT {quoted}')",
                1,
                calls[:1],
                kind=wrapper if wrapper == "caught" else "wrapped",
            )
        text = "SELECT " + ", ".join(call.text for call in calls)
        if self.depth == 0 or roll > 0.8:
            return Statement(text, len(calls), calls)
        # A savepoint before it: the refusal of one call does not end the transaction.
        point = self.savepoint()
        return Statement(
            f"{point.text}; {text}", len(calls), calls, kind="guarded", name=point.name, n_results=2
        )

    def around(self) -> Statement:
        rng, state = self.rng, self.plausible.state
        roll = rng.random()
        if roll < 0.4:
            setting = rng.choice(list(SETTINGS))
            value = rng.choice(SETTINGS[setting])
            local = "LOCAL " if self.depth > 0 and rng.random() < 0.7 else ""
            return Statement(f"SET {local}{setting} = '{value}'", kind="setting", name=f"{setting}={value}")
        if roll < 0.45:
            return Statement(
                f"UPDATE llm_autograd_mode SET flag = {rng.choice(('true', 'false'))}", kind="other"
            )
        if roll < 0.52:
            # Now and then no memory at all, soon enough again.
            return Statement("", kind="memory", memory=rng.choice((-1, -1, -1, 1 << 20, 8 << 20, 64 << 20)))
        if roll < 0.58:
            to = rng.choice(("NONE", "NONE", login(rng.choice(list(ROLES)))))
            local = "LOCAL " if self.depth > 0 else ""
            return Statement(f"SET {local}ROLE {to}", kind="other")
        if roll < 0.64:
            t = tensor(rng, 2, 3)
            return Statement(f"INSERT INTO kept SELECT 2, pg_llm_autograd_track_tensor({t})", 1, kind="other")
        if roll < 0.66:
            return Statement("DELETE FROM kept WHERE i = 2", kind="other")
        if self.depth == 0:
            model = rng.choice(("hostile", "micro"))
            return Statement(
                f"CALL llm_train_loop('{model}', {rng.choice((1, 2))}, log_every => 0)", 1, kind="other"
            )
        if state.cursors and roll < 0.92:
            name = rng.choice(state.cursors)
            action = rng.choice(("FETCH 1 FROM", "FETCH 3 FROM", "MOVE 1 IN", "FETCH ALL FROM", "CLOSE"))
            return Statement(
                f"{action} {name}", 1, kind="close" if action == "CLOSE" else "cursor", name=name
            )
        self.n += 1
        query = rng.choice(CURSORS).replace("{handle}", str(self.plausible.generation().handle))
        hold = rng.choice(("", "", " WITH HOLD"))
        if hold:
            self.held.add(f"c{self.n}")
        return Statement(f"DECLARE c{self.n} CURSOR{hold} FOR {query}", 1, kind="declare", name=f"c{self.n}")

    def program(self) -> Statement:
        """A block in PL/pgSQL that keeps tensors in variables and catches errors in its midst."""
        rng = self.rng
        lines: list[str] = []
        n = rng.randint(2, 10)
        for _ in range(n):
            line = rng.choice(PROGRAM)
            if rng.random() < 0.2:
                line = f"BEGIN {line}; {rng.choice(PROGRAM)}; EXCEPTION WHEN OTHERS THEN NULL; END"
            lines.append(line)
        recording = rng.choice(("on", "on", "off"))
        body = "; ".join([f"PERFORM set_config('pg_llm.autograd', '{recording}', true)", *lines])
        return Statement(
            f"DO $p$ DECLARE x tensor := pg_llm_normal('{{2,3}}', 0, 1, 1, 0); y tensor := x; n bigint;"
            f" BEGIN {body}; EXCEPTION WHEN division_by_zero THEN NULL; END $p$",
            n,
            kind="other",
        )

    # -- what it means

    def assume(self, statement: Statement) -> None:
        """Go on as if it had succeeded; `before` keeps what to go back to when it has not."""
        plausible, kind = self.plausible, statement.kind
        statement.before = (plausible.state.copy(), list(self.savepoints), self.depth, self.is_failed)
        state = plausible.state
        if kind == "begin":
            self.depth = 1
        elif kind == "end":
            self.ended()
        elif kind in ("savepoint", "guarded"):
            self.savepoints.append((statement.name, state.copy()))
            self.apply(statement)
            if len(self.savepoints) > 12:
                del self.savepoints[0]
        elif kind == "back":
            i = next(i for i, (name, _) in enumerate(self.savepoints) if name == statement.name)
            plausible.state = self.savepoints[i][1].copy()
            self.interrupted()
            del self.savepoints[i + 1 :]
            self.is_failed = False
        elif kind == "release":
            i = next(i for i, (name, _) in enumerate(self.savepoints) if name == statement.name)
            del self.savepoints[i:]
        elif kind in ("call", "caught"):
            self.apply(statement)
        elif kind == "declare":
            state.cursors.append(statement.name)
        elif kind == "close":
            state.cursors = [c for c in state.cursors if c != statement.name]
        elif kind == "setting" and statement.name.startswith("pg_llm.autograd"):
            state.recording = statement.name.endswith("=on")
        if self.depth == 0 and kind not in ("begin", "end"):
            self.ended()

    def apply(self, statement: Statement) -> None:
        for call in statement.expressions:
            if call.effect is not None and not call.late:
                call.effect(self.plausible.state, None)

    def interrupted(self) -> None:
        """An error was caught: no pass goes on, and the tape is empty."""
        state = self.plausible.state
        state.members, state.recorded, state.backward = [], False, False

    def succeeded(self, statement: Statement, cells: list[str | None]) -> None:
        """It has, with these values; handles are known only now."""
        if statement.kind == "caught" and cells and (cells[0] or "").startswith("!"):
            self.interrupted()
            return
        for call, cell in zip(statement.expressions, cells, strict=False):
            if call.late and call.effect is not None and cell is not None and statement.kind != "wrapped":
                call.effect(self.plausible.state, cell)

    def failed(self, statement: Statement, code: str, n_answers: int) -> None:
        """It has not, and what was to follow in its batch was not run."""
        assert statement.before is not None
        self.plausible.state, self.savepoints, self.depth, self.is_failed = statement.before
        if statement.kind == "guarded" and n_answers > 1:
            self.savepoints.append((statement.name, self.plausible.state.copy()))
        if code in ("25P02", "3B001"):
            self.savepoints = []  # whatever was believed: only ROLLBACK helps
        if statement.kind == "end" or self.depth == 0:
            self.ended()
        else:
            self.is_failed = True

    def agree(self, status: int) -> None:
        """The server's word on the transaction: a cancel may have hit its end or its beginning."""
        if status == pq.TransactionStatus.IDLE and self.depth > 0:
            self.ended()
        elif status != pq.TransactionStatus.IDLE and self.depth == 0:
            self.depth, self.savepoints = 1, []
        self.is_failed = status == pq.TransactionStatus.INERROR

    def ended(self) -> None:
        """Nothing of a transaction is left, but what the session keeps."""
        before, held = self.plausible.state, self.held
        self.plausible.planned = []
        self.depth, self.is_failed, self.savepoints = 0, False, []
        self.plausible.state = State(
            tokenizers=before.tokenizers[-3:],
            cursors=[c for c in before.cursors if c in held][-2:],
            recorded=before.recorded,
        )
