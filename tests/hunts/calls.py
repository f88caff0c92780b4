"""The calls of each part that keeps state: makers of plausible ones, by group."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..support.hostile import Function
from ..support.hostile_values import MODEL, tensor, tokens
from .database import LEARNT
from .session import FED, NAMES, Call, Maker, Plausible, Rights, State, record

Makers = list[Maker]


def plausible(rng: Random, functions: list[Function], role: str, rights: Rights) -> Plausible:
    """Draws from all groups, and from every other function of the schema: none is out of reach."""
    p = Plausible(rng, functions, role, rights)
    p.groups = [
        (p.generating, generating(p)),
        (p.mid_pass, mid_pass(p)),
        (p.mid_backward, mid_backward(p)),
        (p.pinned, parameters(p)),
        (p.taped, tape(p)),
        (lambda: 1.0, tokenizer(p)),
        (lambda: 0.6 if p.may_read else 0.1, training(p)),
        (lambda: 0.5 if p.may_read else 0.1, files(p)),
        (lambda: 1.0, [p.op]),
        (lambda: 1.2, [p.anything]),
    ]
    return p


def fixed(text: str) -> Callable[[], Call]:
    return lambda: Call(text)


def generating(p: Plausible) -> Makers:
    model = lambda: p.text(p.model(fed=False))  # noqa: E731
    on_handle: Makers = [
        p.gen_fork,
        p.gen_close,
        *[p.gen_push] * 2,
        *[p.gen_use] * 2,
        lambda: Call(f"pg_llm_gen_reset({p.handle()})"),
        lambda: Call(f"pg_llm_gen_tokens({p.handle()})"),
        lambda: Call(f"pg_llm_gen_length({p.handle()})"),
        lambda: Call(f"pg_llm_positions({p.arg('integer[]', tokens(p.rng))})"),
        lambda: Call(
            f"llm_generation_logits({p.handle()}, {p.text(p.generation().model)}, {p.number(8)})::text"
        ),
        lambda: Call(
            f"llm_generation_pass(ARRAY[{p.handle()}], {p.text(p.generation().model)},"
            f" {tokens(p.rng, 1)})::text"
        ),
        lambda: Call(
            "(SELECT count(*) FROM llm_generations_logits(ARRAY["
            f"{p.handle()}, {p.handle()}], {p.text(p.generation().model)}, 8))"
        ),
        lambda: Call(
            f"pg_llm_gen_sampling({p.handle()}, '{{1}}', 'max_tokens', {p.number(8)}, 'seed', 1::bigint,"
            " 'repetition_penalty', 1.1::float8, 'stop', '{a,bc}'::text[])"
        ),
        lambda: Call(f"(llm_generation_next({p.handle()}, {tensor(p.rng, 1, 13)}, {model()})).step"),
        lambda: Call(f"pg_llm_gen_sample({p.handle()}, {tensor(p.rng, 1, 13)})"),
        lambda: Call(f"(pg_llm_gen_write({p.handle()}, 'ab')).text"),
        lambda: Call(f"pg_llm_gen_last({p.handle()}, {p.number(3)})"),
    ]
    return [
        *[p.needing(maker) for maker in on_handle],
        *[p.in_pass(maker) for maker in (p.gen_done, *[p.cached_attention] * 3, *[p.forward] * 2)],
        p.gen_open,
        lambda: Call(f"(llm_generation_begin('em', {model()}, 4, 0, 0, 1, NULL, NULL, 1, 0, 0)).handle"),
        lambda: Call(
            f"llm_generate('em', {p.number(p.rng.choice((1, 3, 12)))}, 0, model => {model()}, seed => 1)"
        ),
        lambda: Call(f"llm_generate(ARRAY['em', 'a', 'o'], 3, 1, model => {model()}, seed => 1)::text"),
        lambda: Call(
            f"(SELECT count(*) FROM (SELECT FROM llm_generate_stream('em', 9, 0, model => {model()})"
            f" LIMIT {p.rng.choice((1, 2, 20))}) q)"
        ),
        lambda: Call(f"(SELECT count(*) FROM llm_beam_search('a', {p.number(2)}, 3, {model()}))"),
        lambda: Call(f"llm_embed_text('ab', {model()})::text"),
        lambda: Call(f"pg_llm_sample({tensor(p.rng, 13)}, 1.0, {p.number(5)}, 0.9, 1, 1)"),
        lambda: Call(f"pg_llm_top_tokens({tensor(p.rng, 13)}, {p.number(3)})::text"),
    ]


def mid_pass(p: Plausible) -> Makers:
    """What goes on with a forward pass, and what comes in between that had better not."""
    model = lambda: p.text(p.model())  # noqa: E731
    return [
        *[p.cached_attention] * 5,
        p.forward,
        *[lambda: Call(f"pg_llm_gen_reset({p.handle()})")] * 2,
        lambda: Call(f"pg_llm_positions({p.arg('integer[]', tokens(p.rng))})"),
        p.gen_done,
        p.gen_close,
        p.gen_fork,
        p.gen_push_many,
        p.gen_open,
        p.gen_use,
        lambda: Call(f"pg_llm_arena_close({model()})"),
        lambda: Call(f"pg_llm_arena_discard({model()})"),
        lambda: Call("llm_release()"),
        lambda: Call(f"llm_generate('em', 3, 0, model => {model()})"),
        p.switch_on,
        p.recorded_op,
    ]


def mid_backward(p: Plausible) -> Makers:
    """The same for a backward pass."""
    model = lambda: p.text(p.model())  # noqa: E731
    return [
        *[lambda: Call("(SELECT count(pg_llm_backward(t.id)) FROM pg_llm_tape(false) t)")] * 2,
        *[lambda: Call("pg_llm_backward((SELECT max(id) FROM pg_llm_tape(false)))")] * 2,
        lambda: Call(f"pg_llm_backward(pg_llm_tape_base() + {p.rng.randrange(9)})"),
        lambda: Call("pg_llm_backward_begin(NULL, 1)"),
        lambda: Call("pg_llm_tape_clear()"),
        lambda: Call(f"pg_llm_tape_quiet({p.rng.choice(('true', 'false'))})"),
        lambda: Call("(SELECT count(pg_llm_grad(t)) FROM kept)"),
        lambda: Call("(SELECT count(data) + count(grad) FROM pg_llm_tape_tensors(true))"),
        lambda: Call(f"pg_llm_arena_zero_grad({model()})"),
        lambda: Call(f"pg_llm_arena_close({model()})"),
        lambda: Call(f"pg_llm_arena_discard({model()})"),
        lambda: Call(f"pg_llm_arena_grad({model()}, {p.text(p.rng.choice(NAMES))}, 0)::text"),
        lambda: Call("llm_release()"),
        p.recorded_op,
        p.switch_on,
        p.gen_use,
    ]


def parameters(p: Plausible) -> Makers:
    rng = p.rng

    def close() -> Call:
        model = p.model()

        def closed(state: State, _: str | None) -> None:
            for held in (state.feeding, state.pins):
                if model in held:
                    held.remove(model)
                    return

        return Call(f"pg_llm_arena_close({p.text(model)})", closed)

    def of_model(name: str, suffix: str = "") -> Callable[[], Call]:
        return lambda: Call(f"{name}({p.text(p.model())}){suffix}")

    def part(name: str) -> Callable[[], Call]:
        return lambda: Call(f"{name}({p.text(p.model())}, {p.text(rng.choice(NAMES))}, {p.number(0)})::text")

    def adamw() -> Call:
        return Call(
            f"pg_llm_arena_adamw({p.text(p.model())}, {p.arg('double precision', '0.001')}, 0.9, 0.999, 1e-8,"
            f" {p.arg('double precision', '0.01')}, {p.arg('bigint', 3)}, {rng.choice(('NULL', '1'))},"
            f" {rng.choice(('true', 'false'))})"
        )

    on_pinned: Makers = [
        adamw,
        of_model("pg_llm_arena_discard"),
        of_model("pg_llm_arena_pin_statement"),
        of_model("pg_llm_arena_zero_grad"),
        of_model("pg_llm_arena_grad_norms", "::text"),
        of_model("llm_check_weights"),
        part("pg_llm_arena_data"),
        part("pg_llm_arena_grad"),
        part("pg_llm_arena_m"),
        part("pg_llm_arena_v"),
        *[close] * 2,
        lambda: Call(f"pg_llm_param({p.text(p.model())}, {p.text(rng.choice(NAMES))})::text", record),
        lambda: Call(f"pg_llm_arena_shape({p.text(p.model())}, {p.text(rng.choice(NAMES))})"),
    ]
    return [
        *[p.pinned_first(maker) for maker in on_pinned],
        *[p.pin] * 2,
        *[p.fed] * 3,
        *[p.feeding_first(maker) for maker in (p.put, p.put, p.seal, p.seal)],
        of_model("pg_llm_arena_pinned"),
        of_model("llm_pin_statement"),
        of_model("llm_fingerprint"),
        lambda: Call(f"llm_weight({p.text(p.model())}, {p.text(rng.choice(NAMES))})::text", record),
        lambda: Call(f"pg_llm_arena_saved({p.text(rng.choice(FED))}, uuid_send(gen_random_uuid()))"),
        lambda: Call(f"llm_lock_rows({p.text(p.model())}, llm_fingerprint({p.text(p.model())}))"),
        fixed("llm_release()"),
        fixed("llm_release(shared => true)"),
        fixed("(SELECT count(*) FROM pg_llm_shared_versions())"),
    ]


def tape(p: Plausible) -> Makers:
    rng = p.rng
    model = lambda: p.text(p.model(fed=False))  # noqa: E731
    node = lambda: rng.choice(("(SELECT max(id) FROM pg_llm_tape(false))", "pg_llm_tape_base() + 1", "3"))  # noqa: E731

    def recorder(text: str) -> Callable[[], Call]:
        return lambda: Call(text.format(t=tensor(rng, 2, 3), model=model(), ids=tokens(rng, 3)), record)

    def begun(state: State, _: str | None) -> None:
        state.backward = True

    def cleared(state: State, _: str | None) -> None:
        state.recorded = state.backward = False

    def backward() -> Call:
        return Call(f"pg_llm_backward_begin({rng.choice(('NULL', node()))}, 1.0)", begun)

    on_tape: Makers = [
        *[backward] * 2,
        lambda: Call(f"pg_llm_backward({node()})"),
        lambda: Call("(SELECT count(pg_llm_backward(t.id)) FROM pg_llm_tape(false) t)"),
        lambda: Call(f"llm_tape_backward({rng.choice(('NULL', node()))}, {p.arg('double precision', 1)})"),
        *[lambda: Call(f"llm_backprop(NULL, {rng.choice(('NULL', model()))})")] * 2,
        lambda: Call(f"llm_accumulate_grads({model()}, {p.number(rng.choice((0, 1, 2)))})"),
        lambda: Call("llm_prune_autograd_state()", cleared),
        lambda: Call("pg_llm_tape_clear()", cleared),
        lambda: Call("(SELECT count(extra) FROM pg_llm_tape(true))"),
        lambda: Call("(SELECT count(data) + count(grad) FROM pg_llm_tape_tensors(true))"),
        lambda: Call("(SELECT count(*) FROM pg_llm_tape_params())"),
        lambda: Call(f"llm_tape_flush(NULL, {model()})"),
        lambda: Call("(SELECT count(pg_llm_grad(t)) + count(pg_llm_tensor_id(t)) FROM kept)"),
    ]
    return [
        *[p.recorded_first(maker) for maker in on_tape],
        p.switch_on,
        *[p.recorded_op] * 3,
        lambda: Call("pg_llm_set_recording(false, true)"),
        recorder("pg_llm_autograd_map_param({model}, 'wte.weight', 0, {t}, '{{3,2}}')::text"),
        recorder("pg_llm_autograd_map_param('x', 'h', 0, {t}, '{{6}}')::text"),
        lambda: Call(f"llm_materialize_params({model()})"),
        lambda: Call(f"pg_llm_tape_quiet({rng.choice(('true', 'false', 'false'))})"),
        lambda: Call(f"pg_llm_tape_base({p.arg('bigint', 16777216)})"),
        lambda: Call(f"pg_llm_pass_begin({p.arg('bigint', 1)}, {p.arg('bigint', 1)}, {p.number(0)})"),
        lambda: Call(f"llm_tape_forget({model()}, {p.arg('bigint', 1 << 40)})"),
        lambda: Call("(SELECT count(pg_llm_sum(t * t)) FROM kept)", record),
    ]


def tokenizer(p: Plausible) -> Makers:
    rng, state = p.rng, lambda: p.state
    version = "pg_llm_relation_version('{llm_bpe_vocab,llm_bpe_merges}')" if p.may_read else "'\\x07'"
    model = lambda: p.text(p.model(fed=False))  # noqa: E731

    def newest(known: list[int]) -> int:
        return known[-1] if rng.random() < 0.9 else rng.choice(known)

    def handle() -> str:
        known = state().tokenizers
        return p.number(newest(known) if known else rng.randint(1, 3))

    def building() -> str:
        known = state().building
        return p.number(newest(known)) if known else handle()

    def kept(kind: str) -> Callable[[State, str | None], None]:
        return lambda s, v: getattr(s, kind).append(int(v)) if v is not None else None

    def seal() -> Call:
        known = state().building
        chosen = newest(known) if known else rng.randint(1, 3)

        def sealed(s: State, _: str | None) -> None:
            s.building = [h for h in s.building if h != chosen]
            s.tokenizers.append(chosen)

        return Call(f"pg_llm_bpe_seal({p.number(chosen)})", sealed)

    def create() -> Call:
        name = p.text(rng.choice(("b1", "b2", MODEL)))
        if rng.random() < 0.3:
            return Call(
                f"pg_llm_wordpiece_create({name}, {version}, {p.number(rng.randrange(16))}, 'a', 'b',"
                f" {p.number(20)}, true, '{{0}}', '{{}}')",
                kept("building"),
                late=True,
            )
        return Call(f"pg_llm_bpe_create({name}, {version})", kept("building"), late=True)

    def opened() -> Call:
        return Call(f"llm_bpe_handle({p.text(LEARNT)})", kept("tokenizers"), late=True)

    def put_bytes() -> Call:
        return Call(
            f"(SELECT count(pg_llm_bpe_put_token({building()}, i, set_byte('\\x00', 0, i), '0'))"
            f" FROM generate_series(0, {rng.choice((255, 255, 100))}) i)"
        )

    def put_token() -> Call:
        byte = f"set_byte('\\x00', 0, {rng.randrange(256)})"
        return Call(
            f"pg_llm_bpe_put_token({building()}, {p.number(rng.randrange(300))}, {p.arg('bytea', byte)},"
            f" '{rng.randrange(2)}')"
        )

    def put_merge() -> Call:
        left, right = p.text(rng.choice("abe")), p.text(rng.choice("abm"))
        return Call(f"pg_llm_bpe_put_merge({building()}, {p.number(rng.randrange(9))}, {left}, {right})")

    def building_first(maker: Maker) -> Maker:
        def make() -> Call:
            if state().building or rng.random() < 0.2:
                return maker()
            return p.plan(create, put_bytes, maker, seal)

        return make

    def open_first(maker: Maker) -> Maker:
        def make() -> Call:
            if state().tokenizers or rng.random() < 0.2:
                return maker()
            return p.plan(opened, maker) if p.may_read else p.plan(create, put_bytes, seal, maker)

        return make

    encode = lambda: Call(f"pg_llm_bpe_encode({handle()}, {p.text('emma ava mia')}, true)")  # noqa: E731
    decode = lambda: Call(f"pg_llm_bpe_decode({handle()}, {p.arg('integer[]', tokens(rng))})")  # noqa: E731
    sequence = lambda: Call(f"(pg_llm_encode_sequence({handle()}, {p.text('ab aba')}, {p.number(9)})).ids")  # noqa: E731
    learn = "SELECT ''emma ava''"
    words = "E'[UNK]\\n[CLS]\\n[SEP]\\nemma\\n##a'"
    return [
        *[building_first(maker) for maker in (put_token, put_merge, put_merge, put_bytes, seal)],
        *[open_first(maker) for maker in (encode, encode, decode, sequence)],
        create,
        seal,
        lambda: Call(f"pg_llm_bpe_open({model()}, {version})", kept("tokenizers"), late=True),
        lambda: Call(f"llm_bpe_handle({model()})", kept("tokenizers"), late=True),
        lambda: Call(f"llm_encode({p.text('emma')}, {model()})"),
        lambda: Call(f"llm_decode({p.arg('integer[]', tokens(rng))}, {model()})"),
        lambda: Call("(SELECT pg_llm_bpe_learn(d, 20, 1) FROM unnest(ARRAY['emma ava', 'mia', NULL, '']) d)"),
        lambda: Call(f"llm_load_wordpiece('b1', {words})"),
        lambda: Call(f"llm_encode_sequence({p.text('emma')}, {model()}, {p.number(3)})"),
        lambda: Call(f"(SELECT count(*) FROM pg_llm_wordpiece_read_vocab({p.arg('bytea', words)}))"),
        lambda: Call(f"llm_train_bpe({p.text(rng.choice(('b1', LEARNT)))}, '{learn}', {p.number(262)})"),
    ]


def training(p: Plausible) -> Makers:
    rng = p.rng
    model = lambda: p.text(p.model(fed=False))  # noqa: E731
    return [
        lambda: Call(
            f"llm_train({model()}, {p.number(rng.choice((1, 1, 2)))}, log_every => 0,"
            f" batch_size => {p.number(rng.choice((1, 2)))}, grad_accum => {rng.choice((1, 2))},"
            f" dropout_p => {rng.choice(('0', '0.1'))}, keep_grad => {rng.choice(('true', 'false'))})"
        ),
        lambda: Call(
            f"llm_train_step({model()}, {p.arg('bigint', '(SELECT min(id) FROM llm_dataset)')}, warmup => 0)"
        ),
        lambda: Call(f"llm_evaluate({model()})::text"),
        lambda: Call(f"llm_perplexity({model()}, 'emma')"),
        lambda: Call(f"llm_logits({tokens(rng)}, {model()})::text"),
        lambda: Call(f"(SELECT count(*) FROM llm_finetune({model()}, 'SELECT ''emma ava''', 1))"),
        lambda: Call(f"llm_init_model({model()}, 1)"),
        lambda: Call(f"llm_copy_model({model()}, 'copied')"),
        lambda: Call("llm_drop_model('copied')"),
        lambda: Call(f"llm_lock_model({model()})"),
        lambda: Call(
            f"pg_llm_progress({p.text('hunt')}, {p.arg('bigint', 1)}, {p.arg('bigint', 1)}, 9, 0.1, 0.1, 5)"
        ),
        fixed("pg_llm_progress_clear()"),
        fixed("(SELECT count(*) FROM pg_llm_train_progress())"),
        lambda: Call(
            f"pg_llm_batch({p.arg('bigint', 10)}, 1, {p.arg('bigint', rng.randrange(30))}, {p.number(3)})"
        ),
        lambda: Call(f"pg_llm_permutation({p.arg('bigint', 10)}, 1, {p.arg('bigint', 0)})"),
        lambda: Call(f"llm_write_back({model()}, llm_fingerprint({model()}), {p.arg('bigint', 3)}, true)"),
    ]


def files(p: Plausible) -> Makers:
    rng = p.rng
    model = lambda: p.text(p.model(fed=False))  # noqa: E731
    file = lambda: "(SELECT max(f) FROM pg_llm_checkpoint_files() f)"  # noqa: E731
    saved = lambda: p.arg("bigint", "(SELECT max(id) FROM llm_checkpoint)")  # noqa: E731
    tensors = "'SELECT ''a''::text, ''F32''::text, ARRAY[2] WHERE $1 IS NOT NULL'"

    def written() -> Call:
        name = f"pg_llm_checkpoint_name('hunt{rng.randrange(3)}.safetensors')"
        data = rng.choice(
            (
                "''[1,2]''::tensor, NULL::bytea",
                "''[1,2,3]''::tensor, NULL::bytea",
                "NULL::tensor, ''\\x00''::bytea",
            )
        )
        kind = rng.choice(("safetensors", "safetensors", "npz", "gzip"))
        query = p.arg("text", f"'SELECT {data} WHERE $1 IS NOT NULL'")
        return Call(
            f"pg_llm_file_write({name}, {p.text(kind)}, {p.arg('text', tensors)}, {query},"
            " 'arg', '{}', true)::text"
        )

    return [
        lambda: Call(f"llm_checkpoint_save({model()}, 'note', {rng.choice(('NULL', '1', '2'))})"),
        lambda: Call(f"llm_checkpoint_save({model()}, 'note', {rng.choice(('NULL', '1', '2'))})"),
        lambda: Call(
            f"llm_checkpoint_load({model()}, (SELECT max(id) FROM llm_checkpoint WHERE model = {model()}))"
        ),
        lambda: Call("llm_checkpoint_sweep()"),
        written,
        lambda: Call(f"pg_llm_checkpoint_remove({file()})"),
        lambda: Call(
            f"(SELECT count(*) FROM pg_llm_file_tensors({file()}, {p.arg('bigint', 1 << 24)}, true))"
        ),
        lambda: Call(f"pg_llm_file_tensor({file()}, {p.text(rng.choice(('a', *NAMES)))}, 0, -1, true)::text"),
        lambda: Call(f"pg_llm_file_bytes({file()}, {p.text(rng.choice(('a', 'tokenizer.vocab')))}, true)"),
        lambda: Call(f"pg_llm_file_metadata({file()}, 'config', true)"),
        lambda: Call(f"pg_llm_file_sha256({file()}, true)::text"),
        fixed("(SELECT count(*) FROM pg_llm_checkpoint_files())"),
        lambda: Call(f"pg_llm_checkpoint_write({model()})::text"),
        lambda: Call(f"(SELECT count(*) FROM pg_llm_checkpoint_tensors({saved()}))"),
        lambda: Call(f"pg_llm_checkpoint_tensor({saved()}, {p.text(rng.choice(NAMES))})::text"),
        lambda: Call(f"pg_llm_checkpoint_bytes({saved()}, {p.text('tokenizer.vocab')})"),
        lambda: Call(f"pg_llm_checkpoint_metadata({saved()}, {p.text('config')})"),
        fixed("pg_llm_checkpoint_sweep()"),
    ]
