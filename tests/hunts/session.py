"""What a session is in the middle of, and the next call that would be plausible there.

A call is an SQL expression, with what it changes in the session. Nothing here must be right for the hunt to
be sound: a wrong belief only makes a refusal likelier.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from ..support.hostile import Function
from ..support.hostile_values import MODEL, VALUES, tensor, tokens
from .database import LEARNT, MICRO

NAME = re.compile(r"\b((?:pg_)?llm_\w+)\(")
MODELS = (MODEL, MODEL, MICRO, LEARNT)
FED = ("x", "y")  # models that exist in memory only
NAMES = ("wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.attn.c_attn.weight", "ln_f.bias", "nothing")


@dataclass(frozen=True)
class Generation:
    handle: int
    model: str
    capacity: int
    heads: tuple[int, int]  # n_head, d_head of its caches


@dataclass
class State:
    """What ends with the transaction, or goes back with a savepoint."""

    generations: list[Generation] = field(default_factory=list)
    members: list[Generation] = field(default_factory=list)  # of the running pass
    pins: list[str] = field(default_factory=list)
    feeding: list[str] = field(default_factory=list)
    tokenizers: list[int] = field(default_factory=list)
    building: list[int] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    recording: bool = False
    recorded: bool = False
    backward: bool = False

    def copy(self) -> State:
        lists = {name: list(value) for name, value in vars(self).items() if isinstance(value, list)}
        return replace(self, **lists)


Effect = Callable[[State, "str | None"], None]
Maker = Callable[[], "Call"]


@dataclass
class Call:
    """An expression of one value, and what it does to the session when it succeeds."""

    text: str
    effect: Effect | None = None
    late: bool = False  # its effect needs its value
    is_large: bool = False  # from here on there had better be no memory left to grow into


class Rights:
    """Which functions a role was refused and never allowed: learnt, not known beforehand."""

    def __init__(self, without: frozenset[str] = frozenset()) -> None:
        self.without = without
        self.refusals: Counter[str] = Counter()
        self.granted: set[str] = set()

    def learn(self, text: str, code: str | None) -> None:
        names = NAME.findall(text)
        if code is None:
            self.granted.update(names)
        elif code == "42501":
            self.refusals.update(names[:1])

    def missing(self, text: str) -> bool:
        return any(self.refusals[name] > 3 and name not in self.granted for name in NAME.findall(text))


class Plausible:
    """Draws calls from groups (calls.py fills them), more from those that go on with what has begun.

    `absurd`: how often an argument is replaced by any value of its type.
    """

    def __init__(
        self, rng: Random, functions: list[Function], role: str, rights: Rights, absurd: float = 0.015
    ) -> None:
        self.rng = rng
        self.rights = rights
        self.names = {function.name for function in functions}
        self.may_read = role != "nobody"
        self.absurd = absurd
        self.state = State()
        # A type that has no values yet is test_hostile.py's to miss.
        callable_ = [f for f in functions if f.kind == "f" and VALUES.keys() >= set(f.types)]
        self.any = callable_
        self.ops = [f for f in callable_ if f.is_forward]
        self.groups: list[tuple[Callable[[], float], list[Maker]]] = []
        self.planned: list[Maker] = []

    # -- how much is drawn from which group

    def generating(self) -> float:
        return 6.0 if self.state.members else 4.0 if self.state.generations else 1.0

    def pinned(self) -> float:
        return 3.0 if self.state.pins or self.state.feeding else 1.5

    def mid_pass(self) -> float:
        return 8.0 if self.state.members else 0.0

    def mid_backward(self) -> float:
        return 5.0 if self.state.backward else 0.0

    def taped(self) -> float:
        return 4.0 if self.state.recorded else 2.5 if self.state.recording else 0.8

    def plan(self, *makers: Maker) -> Call:
        """These calls in this order, others between them; the first one now."""
        self.planned = list(makers[1:])
        return makers[0]()

    def call(self) -> Call:
        """Seldom one that the role has no right to; none that this version of ours does not have."""
        for _ in range(8):
            call = self.drawn()
            if not self.rights.missing(call.text) or self.rng.random() < 0.02:
                break
        names = set(NAME.findall(call.text))
        return Call("1") if self.rights.without & names or not names <= self.names else call

    def is_possible(self, maker: Maker) -> bool:
        """Whether what a planned call needs is there; a version may have been in memory already."""
        state = self.state
        if maker in (self.put, self.seal):
            return bool(state.feeding)
        if maker == self.gen_open:
            return bool(state.pins)
        return maker != self.gen_use or bool(state.generations)

    def drawn(self) -> Call:
        while self.planned and self.rng.random() < 0.75:
            maker = self.planned.pop(0)
            if self.is_possible(maker):
                return maker()
        weights = [weight() for weight, _ in self.groups]
        _, makers = self.rng.choices(self.groups, weights)[0]
        return self.rng.choice(makers)()

    # -- arguments

    def arg(self, type_: str, value: object) -> str:
        """The value, or now and then any other of the type."""
        if self.rng.random() < self.absurd:
            return f"({self.rng.choice(VALUES[type_])})::{type_}"
        return f"({value})::{type_}"

    def number(self, value: object) -> str:
        return self.arg("integer", value)

    def model(self, *, fed: bool = True) -> str:
        rng, state = self.rng, self.state
        held = state.pins + state.feeding
        if held and rng.random() < 0.7:
            return rng.choice(held)
        if not self.may_read and rng.random() < 0.8:
            return rng.choice(FED)
        return rng.choice(MODELS + FED if fed else MODELS)

    def text(self, value: str) -> str:
        return self.arg("text", "'" + value.replace("'", "''") + "'")

    def needing(self, maker: Maker) -> Maker:
        """A call on a generation; where there is none, one is begun first, mostly."""

        def make() -> Call:
            if self.state.generations or self.rng.random() < 0.1:
                return maker()
            follow = [self.gen_use, self.cached_attention] if self.rng.random() < 0.6 else []
            return self.plan(*self.pinning(), self.gen_open, *follow, maker)

        return make

    def in_pass(self, maker: Maker) -> Maker:
        """A call that counts inside of a forward pass."""

        def make() -> Call:
            if self.state.members or self.rng.random() < 0.1:
                return maker()
            return (
                self.needing(self.gen_use)() if not self.state.generations else self.plan(self.gen_use, maker)
            )

        return make

    def pinned_first(self, maker: Maker) -> Maker:
        """A call on a pinned model; where none is, one is pinned first, mostly."""

        def make() -> Call:
            if self.state.pins or self.rng.random() < 0.3:
                return maker()
            return self.plan(*self.pinning(), maker)

        return make

    def feeding_first(self, maker: Maker) -> Maker:
        """A call on a version that is being fed; where none is, one is begun first, mostly."""

        def make() -> Call:
            if self.state.feeding or self.rng.random() < 0.1:
                return maker()
            return self.plan(self.fed, maker)

        return make

    def recorded_first(self, maker: Maker) -> Maker:
        """A call on a recorded pass; where nothing is recorded, something is first, mostly."""

        def make() -> Call:
            if self.state.recorded or self.rng.random() < 0.3:
                return maker()
            start = [] if self.state.recording else [self.switch_on]
            return self.plan(*start, self.recorded_op, maker)

        return make

    def switch_on(self) -> Call:
        def on(state: State, _: str | None) -> None:
            state.recording = True

        how = self.rng.choice(
            ("pg_llm_set_recording(true, true)", "set_config('pg_llm.autograd', 'on', true)")
        )
        return Call(how, on)

    def recorded_op(self) -> Call:
        """Something whose last value is a single number."""
        rng = self.rng
        model, ids, t = self.text(self.model(fed=False)), tokens(self.rng, 3), tensor(self.rng, 2, 3)
        tracked = f"pg_llm_autograd_track_tensor({t})"
        of_tensors = (
            f"pg_llm_sum(pg_llm_gelu({tracked} * {t}))::text",
            f"pg_llm_mean(pg_llm_softmax({tracked} @ pg_llm_transpose({t})))::text",
        )
        of_models = (
            f"llm_loss({model}, {ids}, {ids})",
            f"llm_forward({model}, {ids}, true, {ids}, 0.1)::text",
        )
        is_of_model = rng.random() < (0.5 if self.may_read else 0.05)
        return Call(rng.choice(of_models if is_of_model else of_tensors), record)

    def pinning(self) -> list[Maker]:
        """Calls after which a model is pinned: a stored one, or one fed by hand, which takes no right."""
        if self.state.pins:
            return []
        if self.rng.random() < (0.5 if self.may_read else 0.05):
            return [self.pin]
        return [self.fed, *([self.put] if self.rng.random() < 0.6 else []), self.seal]

    def generation(self) -> Generation:
        known = self.state.members or self.state.generations
        if known and self.rng.random() < 0.5:
            return known[-1]
        return self.rng.choice(known) if known else Generation(self.rng.randint(1, 4), MODEL, 8, (2, 4))

    def handle(self) -> str:
        return self.number(self.generation().handle)

    # -- calls that belong to no state

    def op(self) -> Call:
        function = self.rng.choice(self.ops)
        arguments = function.sensible(self.rng)
        if self.rng.random() < self.absurd * 2:
            i = self.rng.randrange(len(arguments))
            arguments[i] = function.hostile(self.rng, i)
        typed = ", ".join(f"({a})::{t}" for a, t in zip(arguments, function.types, strict=True))
        return Call(f"(SELECT count(*) FROM {function.name}({typed}) q)", record)

    def anything(self) -> Call:
        return Call("(" + self.rng.choice(self.any).call(self.rng) + ")")

    # -- weights in memory

    def pin(self) -> Call:
        model = self.model(fed=False)
        return Call(
            f"llm_pin({self.text(model)}, {self.rng.choice(('true', 'false'))})",
            lambda s, _: s.pins.append(model),
        )

    def fed(self) -> Call:
        model = self.rng.choice(FED) if self.rng.random() < 0.8 else self.model()
        version = self.rng.choice(("'\\x00'", "'\\x01'", "uuid_send(gen_random_uuid())"))

        def feed(state: State, value: str | None) -> None:
            (state.pins if value == "t" else state.feeding).append(model)

        return Call(
            f"pg_llm_arena_open({self.text(model)}, {self.arg('bytea', version)},"
            f" {self.rng.choice(('true', 'false'))})",
            feed,
            late=True,
        )

    def put(self) -> Call:
        model = self.rng.choice(self.state.feeding) if self.state.feeding else self.model()
        w = tensor(self.rng, self.rng.choice((1, 3)), self.rng.choice((2, 5)))
        moment = self.rng.choice(("NULL", w))
        part = self.rng.choice((0, 0, 0, 3, 1))
        return Call(
            f"pg_llm_arena_put({self.text(model)}, {self.text(self.rng.choice(NAMES))}, {self.number(part)},"
            f" {self.arg('tensor', w)}, {moment}, {self.rng.choice(('NULL', moment))})"
        )

    def seal(self) -> Call:
        model = self.rng.choice(self.state.feeding) if self.state.feeding else self.model()

        def sealed(state: State, _: str | None) -> None:
            if model in state.feeding:
                state.feeding.remove(model)
                state.pins.append(model)

        return Call(f"pg_llm_arena_seal({self.text(model)})", sealed)

    # -- generations

    def gen_open(self) -> Call:
        rng = self.rng
        model = rng.choice(self.state.pins) if self.state.pins and rng.random() < 0.9 else self.model()
        capacity = rng.choice((1, 2, 3, 8, 8, 64))
        heads = (1, 1) if model in FED else (2, 4)
        prompt = tokens(rng, rng.randint(0, 8) or None)
        is_large = bool(self.state.pins) and rng.random() < 0.08
        if is_large:
            # As many tokens as one growth of the array is large.
            prompt = f"array_fill(3, '{{{rng.choice((64, 65, 65536, 2**20, 2**20, 2**21, 2**21, 2**22))}}}')"
            self.planned = [self.gen_push_many, self.gen_push_many]

        def opened(state: State, value: str | None) -> None:
            if value is not None:
                state.generations.append(Generation(int(value), model, capacity, heads))

        return Call(
            f"pg_llm_gen_open({self.text(model)}, {self.arg('integer[]', prompt)}, {self.number(capacity)})",
            opened,
            late=True,
            is_large=is_large,
        )

    def gen_fork(self) -> Call:
        g = self.generation()

        def forked(state: State, value: str | None) -> None:
            if value is not None:
                state.generations.append(Generation(int(value), g.model, g.capacity, g.heads))

        return Call(f"pg_llm_gen_fork({self.number(g.handle)})", forked, late=True)

    def gen_close(self) -> Call:
        g = self.generation()

        def closed(state: State, _: str | None) -> None:
            state.generations = [o for o in state.generations if o.handle != g.handle]
            if any(o.handle == g.handle for o in state.members):
                state.members = []

        return Call(f"pg_llm_gen_close({self.number(g.handle)})", closed)

    def gen_push(self) -> Call:
        if self.rng.random() < 0.2:
            return self.gen_push_many()
        return Call(f"pg_llm_gen_push({self.handle()}, {self.number(self.rng.randrange(13))})")

    def gen_push_many(self) -> Call:
        handle, n = self.generation().handle, self.rng.choice((3, 70, 70, 300, 5000))
        return Call(f"(SELECT count(pg_llm_gen_push({handle}, 7)) FROM generate_series(1, {n}))")

    def gen_use(self) -> Call:
        known = self.state.generations
        first = self.generation()
        members = [first]
        if self.rng.random() < 0.4:
            same = [g for g in known if g.model == first.model and g.handle != first.handle]
            members += self.rng.sample(same, min(len(same), self.rng.randint(1, 2)))

        def used(state: State, _: str | None) -> None:
            state.members = members

        handles = ",".join(str(g.handle) for g in members)
        return Call(f"pg_llm_gen_use({self.arg('integer[]', f'ARRAY[{handles}]')})", used)

    def gen_done(self) -> Call:
        def done(state: State, _: str | None) -> None:
            state.members = []

        return Call("pg_llm_gen_done()", done)

    def cached_attention(self) -> Call:
        members = self.state.members or [self.generation()]
        n_head, d_head = members[0].heads
        if self.rng.random() < 0.05:
            n_head, d_head = self.rng.choice(((1, 1), (2, 4), (1, 8), (3, 5)))
        t = self.rng.choice((1, 1, 1, 2, 3, 9))
        shape = (t, 3 * n_head * d_head) if len(members) == 1 else (len(members), t, 3 * n_head * d_head)
        x = tensor(self.rng, *shape)
        return Call(f"pg_llm_causal_attention({x}, {n_head}, 0, false, '')::text")

    def forward(self) -> Call:
        members = self.state.members
        model = members[0].model if members else self.model(fed=False)
        rows = [tokens(self.rng, 1 if self.rng.random() < 0.7 else 2).strip("'") for _ in members or [None]]
        ids = f"'{rows[0]}'" if len(rows) == 1 else f"'{{{','.join(rows)}}}'"
        if len({row.count(",") for row in rows}) > 1:
            ids = "'{" + ",".join("{1}" for _ in rows) + "}'"
        last = self.rng.choice(("true", "false"))
        return Call(
            f"llm_forward({self.text(model)}, {self.arg('integer[]', ids)}, false, NULL, 0.0, {last})::text"
        )


def record(state: State, _: str | None) -> None:
    state.recorded = state.recorded or state.recording
