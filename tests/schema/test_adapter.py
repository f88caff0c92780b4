"""LoRA adapters: what they compute and learn, that their base stays as it is, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import errors

from ..reference import ops
from ..reference.adapters import logits as reference
from ..support.checkpoints import load, save
from ..support.small_models import NAMES, Connection, add_rows, names_query, state_sha256, train, weights
from ..support.tensors import array_of, text_of, value
from ..support.waiting import wait_for

Connect = Callable[[], psycopg.Connection[Any]]

ARCHS = ("gpt2", "llama")
ALL = {
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "llama": [f"attn.{part}_proj" for part in "koqv"]
    + [f"mlp.{part}_proj" for part in ("down", "gate", "up")],
}
VOCAB = len({letter for name in NAMES for letter in name}) + 1
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
FORWARD = "SELECT pg_llm_tensor_send(llm_forward(%s, %s))"


def make_base(conn: Connection, arch: str = "gpt2", name: str = "base") -> None:
    """Over letters; with weights large enough that what an adapter adds to each is felt."""
    conn.execute("SELECT llm_build_char_tokenizer(%s, %s)", (name, names_query()))
    sizes: dict[str, Any] = {
        "gpt2": (2, 2, 16, "{}"),
        "llama": (2, 4, 16, '{"n_kv_head": 2, "rope_theta": 500}'),
    }
    n_layer, n_head, d_model, settings = sizes[arch]
    conn.execute(
        "SELECT llm_create_model(%s, %s, %s, %s, %s, 16, %s, 3, %s)",
        (name, arch, n_layer, n_head, d_model, VOCAB, settings),
    )
    conn.execute(
        "UPDATE llm_param SET data = pg_llm_mul(data, '8'::tensor) WHERE model = %s AND ndims(data) = 2",
        (name,),
    )


def add(conn: Connection, name: str = "tuned", base: str = "base", **arguments: Any) -> int:
    given = {"rank": 3, "alpha": 6} | arguments
    named = "".join(f", {key} => %({key})s" for key in given)
    n = value(
        conn, f"SELECT llm_create_adapter(%(name)s, %(base)s{named})", {"name": name, "base": base, **given}
    )
    assert isinstance(n, int)
    return n


def parameters(conn: Connection, model: str) -> dict[str, NDArray[np.float32]]:
    rows = conn.execute(
        "SELECT name, pg_llm_tensor_send(data) FROM llm_param WHERE model = %s ORDER BY name", (model,)
    ).fetchall()
    return {name: array_of(sent) for name, sent in rows}


def scramble(conn: Connection, model: str = "tuned", seed: int = 0) -> None:
    """Both factors at random: b = 0 would hide mistakes."""
    generator = np.random.default_rng(seed)
    for name, x in parameters(conn, model).items():
        drawn = (0.3 * generator.standard_normal(x.shape)).astype(np.float32)
        conn.execute(
            "UPDATE llm_param SET data = %s WHERE model = %s AND name = %s", (text_of(drawn), model, name)
        )


def logits(conn: Connection, model: str, tokens: list[int] = TOKENS) -> NDArray[np.float32]:
    return array_of(value(conn, FORWARD, (model, tokens)))


@pytest.fixture(params=ARCHS)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_new_adapter_computes_what_its_base_does(conn: Connection, arch: str) -> None:
    make_base(conn, arch)
    before = weights(conn, "base")
    n = add(conn, targets=ALL[arch], seed=7)
    own = parameters(conn, "tuned")
    assert n == sum(x.size for x in own.values())
    assert {name.rpartition(".")[0] for name in own} == {
        f"h.{layer}.{target}.weight" for layer in range(2) for target in ALL[arch]
    }
    base = parameters(conn, "base")
    for name, x in own.items():
        matrix, _, factor = name.rpartition(".lora_")
        inputs, outputs = base[matrix].shape
        assert x.shape == ((inputs, 3) if factor == "a" else (3, outputs))
        if factor == "b":
            assert not x.any()
        else:
            # PEFT: nn.init.kaiming_uniform_(lora_A.weight, a=math.sqrt(5))
            bound = 1 / np.sqrt(inputs)
            assert np.abs(x).max() <= bound
            assert abs(x.std() / (bound / np.sqrt(3)) - 1) < 0.3
    assert (logits(conn, "tuned") == logits(conn, "base")).all()
    assert weights(conn, "base") == before
    conn.execute("SELECT llm_init_model('tuned', 7)")
    assert all((x == own[name]).all() for name, x in parameters(conn, "tuned").items())
    conn.execute("SELECT llm_init_model('tuned', 8)")
    assert any((x != own[name]).any() for name, x in parameters(conn, "tuned").items())


def test_logits_are_those_of_float64(conn: Connection, arch: str) -> None:
    make_base(conn, arch)
    base = parameters(conn, "base")
    for targets in (ALL[arch], ALL[arch][:1]):
        name = f"of {len(targets)}"
        add(conn, name, targets=targets, alpha=-5)
        scramble(conn, name)
        own = parameters(conn, name)
        wanted = reference(arch, base, own, -5 / 3, TOKENS)
        plain = reference(arch, base, {}, 0, TOKENS)
        assert np.abs(wanted - plain).max() > 0.1
        assert np.abs(logits(conn, name) - wanted).max() < 1e-5 * np.abs(wanted).max()
        # What is not multiplied by is the sum.
        matrix = f"h.1.{targets[0]}.weight"
        effective = array_of(value(conn, "SELECT pg_llm_tensor_send(llm_weight(%s, %s))", (name, matrix)))
        summed = base[matrix] - 5 / 3 * own[f"{matrix}.lora_a"] @ own[f"{matrix}.lora_b"]
        assert np.abs(effective - summed).max() < 1e-6


def test_gradients_are_those_of_float64(conn: Connection, arch: str) -> None:
    make_base(conn, arch)
    add(conn, targets=ALL[arch])
    scramble(conn)
    base, own = parameters(conn, "base"), parameters(conn, "tuned")
    targets = [*TOKENS[1:], 0]

    def loss(adapter: dict[str, NDArray[Any]]) -> float:
        return float(ops.mean_cross_entropy(reference(arch, base, adapter, 2, TOKENS), targets))

    conn.execute("SELECT llm_materialize_params('tuned')")
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    ours = value(conn, "SELECT pg_llm_item(llm_forward('tuned', %s, true, %s, 0))", (TOKENS, targets))
    conn.execute("UPDATE llm_autograd_mode SET flag = false")
    assert abs(ours - loss(dict(own))) < 1e-5
    conn.execute("SELECT llm_backprop(NULL, 'tuned')")
    conn.execute("SELECT llm_accumulate_grads('tuned')")
    got = dict(
        conn.execute("SELECT name, pg_llm_tensor_send(grad) FROM llm_param WHERE model = 'tuned'").fetchall()
    )
    assert set(got) == set(own)
    generator = np.random.default_rng(1)
    for name, sent in got.items():
        grad = array_of(sent)
        direction = generator.standard_normal(grad.shape)
        step = 1e-5
        moved = [loss({**own, name: own[name] + sign * step * direction}) for sign in (1, -1)]
        wanted = (moved[0] - moved[1]) / (2 * step)
        assert abs((grad * direction).sum() - wanted) < 1e-4 * max(1, abs(wanted)), name
    assert value(conn, "SELECT count(*) FROM llm_param WHERE model = 'base' AND grad IS NOT NULL") == 0
    conn.execute("SELECT llm_prune_autograd_state()")


def test_only_the_adapter_learns(conn: Connection, arch: str) -> None:
    make_base(conn, arch)
    conn.execute("SELECT llm_copy_model('base', 'whole')")
    add(conn, targets=ALL[arch])
    add(conn, "other", rank=2)
    base, other, before = weights(conn, "base"), weights(conn, "other"), weights(conn, "tuned")
    started = logits(conn, "base")
    add_rows(conn, "tuned", vocab=VOCAB)
    run = train(conn, "tuned", 12, lr_max=0.02, dropout_p=0, warmup=1)
    losses = [row[0] for row in conn.execute("SELECT loss FROM llm_train_log ORDER BY step").fetchall()]
    assert losses[-1] < losses[0] - 0.1
    assert weights(conn, "base") == base
    assert weights(conn, "other") == other
    after = weights(conn, "tuned")
    assert set(after) == set(before)
    assert all(after[key] != before[key] for key in before)
    assert (logits(conn, "base") == started).all()
    assert (logits(conn, "other") == started).all()
    assert (logits(conn, "tuned") != started).any()
    # The whole model's loss in the first step is the same, of the same rows.
    add_rows(conn, "whole", vocab=VOCAB)
    first = train(conn, "whole", 1, dropout_p=0)
    assert losses[0] == value(conn, "SELECT loss FROM llm_train_log WHERE run_id = %s", (first,))
    assert conn.execute("SELECT same FROM llm_replay(%s)", (run,)).fetchall() == [(True,)] * 12


def test_runs_repeat_to_the_bit_however_they_are_cut(conn: Connection, connect: Connect) -> None:
    make_base(conn)
    arguments = {"lr_max": 0.02, "dropout_p": 0.2, "warmup": 1, "seed": 5}
    states = []
    for name in ("at once", "in parts", "little memory", "micro", "loop"):
        add(conn, name, seed=2, targets=ALL["gpt2"])
        add_rows(conn, name, vocab=VOCAB)
        if name == "in parts":
            train(conn, name, 2, total_steps=5, **arguments)
            conn.execute("SELECT llm_release()")
            train(conn, name, 3, total_steps=5, start_step=1, **arguments)
        elif name == "loop":
            conn.execute(
                "CALL llm_train_loop('loop', 5, lr_max => 0.02, dropout_p => 0.2, warmup => 1, seed => 5,"
                " log_every => 0, commit_every => 1, write_back_every => 3)"
            )
        else:
            if name == "little memory":
                conn.execute("SET pg_llm.recompute_budget = '1kB'")
            train(conn, name, 5, **arguments)
            conn.execute("RESET pg_llm.recompute_budget")
        states.append(state_sha256(conn, name))
    assert len(set(states)) == 1
    with connect() as other:
        run = value(other, "SELECT max(run_id) FROM llm_train_run WHERE model = 'loop'")
        assert other.execute("SELECT same FROM llm_replay(%s)", (run,)).fetchall() == [(True,)] * 5


def test_text_is_the_same_with_a_cache_alone_and_among_others(conn: Connection, arch: str) -> None:
    make_base(conn, arch)
    add(conn, targets=ALL[arch])
    scramble(conn)
    one = "SELECT llm_generate(%s, 8, seed => 1, model => 'tuned')"
    alone = [value(conn, one, (prompt,)) for prompt in ("a", "emm", "li")]
    together = "SELECT llm_generate('{a,emm,li}'::text[], 8, seed => 1, model => 'tuned')"
    assert value(conn, together) == alone
    greedy = value(conn, "SELECT llm_generate('am', 6, temperature => 0, model => 'tuned')")
    tokens = list(value(conn, "SELECT llm_encode('am', 'tuned')"))
    for _ in range(6):
        best = int(logits(conn, "tuned", tokens)[-1].argmax())
        if best == VOCAB - 1:  # the end of the text
            break
        tokens.append(best)
    assert value(conn, "SELECT llm_decode(%s, 'tuned')", (tokens,)) == f"am{greedy}"
    assert [value(conn, one.replace("tuned", "base"), (prompt,)) for prompt in ("a", "emm", "li")] != alone


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_weights_in_fewer_bits_are_the_bases(conn: Connection, connect: Connect, precision: str) -> None:
    make_base(conn)
    add(conn)
    conn.execute("SET pg_llm.shared_age = 0")
    conn.execute(f"SET pg_llm.weights = '{precision}'")
    assert (logits(conn, "tuned") == logits(conn, "base")).all()
    scramble(conn)
    exact = logits(conn, "tuned")
    with connect() as other:
        other.execute(f"SET pg_llm.weights = '{precision}'")
        other.execute("SET pg_llm.shared_age = 0")
        assert (logits(other, "tuned") == exact).all()
        other.execute("RESET pg_llm.weights")
        assert (logits(other, "tuned") != exact).any()


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8", "int4"])
def test_factors_that_are_stored_as_bf16(conn: Connection, precision: str) -> None:
    make_base(conn)
    add(conn)
    scramble(conn)
    conn.execute("UPDATE llm_param SET data = pg_llm_to_bf16(data) WHERE model = 'tuned'")
    conn.execute(f"SET pg_llm.weights = '{precision}'")
    stored = logits(conn, "tuned")
    conn.execute("UPDATE llm_param SET data = pg_llm_to_float32(data) WHERE model = 'tuned'")
    assert (logits(conn, "tuned") == stored).all()


def test_a_changed_base_is_refused_until_it_is_back(conn: Connection, connect: Connect) -> None:
    make_base(conn)
    add(conn)
    scramble(conn)
    expected = logits(conn, "tuned")
    id_ = save(conn, "base")
    add_rows(conn, "base", vocab=VOCAB)
    add_rows(conn, "tuned", vocab=VOCAB)
    train(conn, "base", 1)
    uses = (
        "SELECT llm_forward('tuned', '{1}')",
        "SELECT llm_generate('a', 2, model => 'tuned')",
        "SELECT llm_train('tuned', 1)",
        "SELECT llm_weight('tuned', 'wte.weight')",
    )
    for use in uses:
        with pytest.raises(
            errors.ObjectNotInPrerequisiteState, match='"base" no longer has the weights'
        ) as refused:
            conn.execute(use)
        assert "llm_create_adapter" in str(refused.value.diag.message_hint)
    # The same numbers are in other rows now: their hash decides, in this session and in others.
    load(conn, id_, "base")
    assert (logits(conn, "tuned") == expected).all()
    with connect() as other:
        assert (logits(other, "tuned") == expected).all()


def test_a_base_that_another_session_changes(conn: Connection, connect: Connect) -> None:
    make_base(conn)
    add(conn)
    add_rows(conn, "tuned", vocab=VOCAB)
    expected = logits(conn, "tuned")
    with connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT llm_init_model('base', 4)")
        assert (logits(conn, "tuned") == expected).all()
        other.execute("COMMIT")
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        logits(conn, "tuned")
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        conn.execute("SELECT llm_train('tuned', 1)")


def test_a_base_that_is_renamed_while_another_session_changes_it(conn: Connection, connect: Connect) -> None:
    """The new name does not make the new numbers those that the adapter knows."""
    make_base(conn)
    add(conn)
    expected = logits(conn, "tuned")
    with connect() as other, connect() as renaming:
        pid = renaming.info.backend_pid
        other.execute("BEGIN")
        other.execute("UPDATE llm_param SET data = data * 2 WHERE model = 'base'")
        thread = threading.Thread(target=renaming.execute, args=("SELECT llm_rename_model('base', 'late')",))
        thread.start()
        wait_for(
            lambda: value(other, "SELECT cardinality(pg_blocking_pids(%s)) > 0", (pid,)), "the rename's wait"
        )
        other.execute("COMMIT")
        thread.join()
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match='"late" no longer has the weights'):
        logits(conn, "tuned")
    conn.execute("UPDATE llm_param SET data = data / 2 WHERE model = 'late'")
    assert (logits(conn, "tuned") == expected).all()


@pytest.mark.parametrize("change", ["llm_drop_model('base')", "llm_rename_model('base', 'late')"])
def test_a_base_that_goes_while_an_adapter_is_made(conn: Connection, connect: Connect, change: str) -> None:
    make_base(conn)
    with connect() as other, connect() as changing:
        pid = changing.info.backend_pid
        other.execute("BEGIN")
        add(other)
        problems: list[str | None] = []

        def do() -> None:
            try:
                changing.execute(f"SELECT {change}".encode())
            except psycopg.Error as error:
                problems.append(error.sqlstate)

        thread = threading.Thread(target=do)
        thread.start()
        wait_for(lambda: value(other, "SELECT cardinality(pg_blocking_pids(%s)) > 0", (pid,)), "its wait")
        other.execute("COMMIT")
        thread.join()
    assert problems == (["2BP01"] if "drop" in change else [])
    base = value(conn, "SELECT base FROM llm_adapter WHERE model = 'tuned'")
    assert base == ("base" if "drop" in change else "late")
    assert (logits(conn, "tuned") == logits(conn, base)).all()


def test_training_a_base_beside_its_adapter_in_one_session(conn: Connection) -> None:
    make_base(conn)
    conn.execute("SET pg_llm.shared_age = '1h'")
    add_rows(conn, "base", vocab=VOCAB)
    train(conn, "base", 1)
    add(conn)
    scramble(conn)
    expected = logits(conn, "tuned")
    with conn.transaction(force_rollback=True):
        train(conn, "base", 1)
        with pytest.raises(errors.ObjectNotInPrerequisiteState), conn.transaction():
            logits(conn, "tuned")
    assert (logits(conn, "tuned") == expected).all()


def test_names_of_targets(conn: Connection) -> None:
    make_base(conn)
    make_base(conn, "llama", "llama")
    meant = {
        ("base", None): ["attn.c_attn", "attn.c_proj"],
        ("base", ("c_attn",)): ["attn.c_attn"],
        ("base", ("c_proj",)): ["attn.c_proj", "mlp.c_proj"],
        ("base", ("mlp.c_proj", "c_attn")): ["attn.c_attn", "mlp.c_proj"],
        ("llama", None): ["attn.k_proj", "attn.o_proj", "attn.q_proj", "attn.v_proj"],
        ("llama", ("q", "v")): ["attn.q_proj", "attn.v_proj"],
        ("llama", ("q_proj", "q_proj", "self_attn.v_proj")): ["attn.q_proj", "attn.v_proj"],
    }
    for (model, names), targets in meant.items():
        query = "SELECT llm_adapter_targets(%s, %s::text[])"
        assert value(conn, query, (model, list(names) if names else None)) == targets
    conn.execute("SELECT llm_create_model('o', 'opt', 1, 2, 8, 8, 9)")
    assert value(conn, "SELECT llm_adapter_targets('o', '{out_proj,fc1}')") == ["attn.o_proj", "mlp.fc1"]


def test_what_is_refused(conn: Connection) -> None:
    make_base(conn)
    add(conn)
    conn.execute("SELECT llm_create_model('enc', 'bert', 1, 2, 8, 8, 9)")
    invalid = errors.InvalidParameterValue
    for arguments, error, message in (
        ("NULL, 'base'", invalid, "needs a name"),
        ("'', 'base'", invalid, "needs a name"),
        ("'a', NULL", errors.UndefinedObject, "model NULL does not exist"),
        ("'a', 'nobody'", errors.UndefinedObject, '"nobody" does not exist'),
        ("'base', 'base'", errors.DuplicateObject, '"base" already exists'),
        ("'tuned', 'base'", errors.DuplicateObject, '"tuned" already exists'),
        ("'a', 'tuned'", invalid, '"tuned" is an adapter itself, of model "base"'),
        ("'a', 'enc'", errors.FeatureNotSupported, '"enc" (bert) is an encoder'),
        ("'a', 'base', 0", invalid, "rank must be between 1 and 16, got 0"),
        ("'a', 'base', -1", invalid, "rank must be between 1 and 16, got -1"),
        ("'a', 'base', 17", invalid, "rank must be between 1 and 16, got 17"),
        ("'a', 'base', NULL", invalid, "rank must be between 1 and 16, got NULL"),
        ("'a', 'base', 1, 0", invalid, "alpha must be a number other than 0 that float32 can hold, got 0"),
        (
            "'a', 'base', 1, 'NaN'",
            invalid,
            "alpha must be a number other than 0 that float32 can hold, got NaN",
        ),
        ("'a', 'base', 1, '-Infinity'", invalid, "got -Infinity"),
        ("'a', 'base', 1, 1e39", invalid, "that float32 can hold, got 1e+39"),
        ("'a', 'base', 1, NULL", invalid, "got NULL"),
        ("'a', 'base', targets => '{}'", invalid, "targets must name at least one matrix"),
        ("'a', 'base', targets => '{c_attn,nothing}'", invalid, 'has no target "nothing"'),
        ("'a', 'base', targets => '{ln_1}'", invalid, 'has no target "ln_1"'),
        ("'a', 'base', targets => '{\"\"}'", invalid, 'has no target ""'),
        ("'a', 'base', targets => '{NULL}'", invalid, "has no target NULL"),
        ("'a', 'base', seed => NULL", invalid, "seed must not be NULL"),
    ):
        with pytest.raises(error) as refused:
            conn.execute(f"SELECT llm_create_adapter({arguments})")
        assert message in str(refused.value), arguments
    conn.execute("DELETE FROM llm_param WHERE model = 'enc'")
    conn.execute(
        "INSERT INTO llm_model_config (model, n_layer, n_head, d_model, n_positions, vocab)"
        " VALUES ('bare', 1, 1, 4, 4, 9)"
    )
    with pytest.raises(errors.NoDataFound, match='"bare" has no weights'):
        conn.execute("SELECT llm_create_adapter('a', 'bare', 1)")
    assert value(conn, "SELECT count(*) FROM llm_model_config WHERE model = 'a'") == 0
    assert value(conn, "SELECT count(*) FROM llm_adapter") == 1


def test_a_base_with_adapters_stays(conn: Connection) -> None:
    make_base(conn)
    add(conn, "b")
    add(conn, "a", rank=1)
    with pytest.raises(errors.DependentObjectsStillExist, match='"base" is the base of adapters') as refused:
        conn.execute("SELECT llm_drop_model('base')")
    assert refused.value.diag.message_detail == 'They are "a", "b".'
    conn.execute("SELECT llm_drop_model('a')")
    conn.execute("SELECT llm_drop_model('b')")
    conn.execute("SELECT llm_drop_model('base')")
    assert value(conn, "SELECT count(*) FROM llm_adapter") == 0


def test_renamed_and_copied(conn: Connection) -> None:
    make_base(conn)
    add(conn)
    scramble(conn)
    expected = logits(conn, "tuned")
    version = "SELECT base_version FROM llm_adapter WHERE model = 'tuned'"
    conn.execute("SELECT llm_rename_model('base', 'first')")
    assert value(conn, version) == value(conn, "SELECT pg_llm_shared_version('first')")
    assert (logits(conn, "tuned") == expected).all()
    conn.execute("SELECT llm_copy_model('tuned', 'twin')")
    conn.execute("SELECT llm_rename_model('tuned', 'fitted')")
    conn.execute("SELECT llm_init_model('fitted')")
    assert (logits(conn, "twin") == expected).all()
    assert (logits(conn, "fitted") == logits(conn, "first")).all()
    assert dict(conn.execute("SELECT model, base FROM llm_adapter").fetchall()) == {
        "twin": "first",
        "fitted": "first",
    }


def test_checkpoints(conn: Connection) -> None:
    make_base(conn)
    add(conn, targets=ALL["gpt2"])
    add_rows(conn, "tuned", vocab=VOCAB)
    train(conn, "tuned", 3)
    before, expected = weights(conn, "tuned"), logits(conn, "tuned")
    id_ = save(conn, "tuned")
    run = train(conn, "tuned", 2)
    assert conn.execute("SELECT same FROM llm_replay(%s)", (run,)).fetchall() == [(True,)] * 2
    assert load(conn, id_, "tuned") == 3
    assert weights(conn, "tuned") == before
    conn.execute("SELECT llm_rename_model('base', 'first')")
    assert load(conn, id_, "tuned") == 3
    assert (logits(conn, "tuned") == expected).all()
    # The file has all there is to the adapter but its base.
    conn.execute("SELECT llm_drop_model('tuned')")
    with pytest.raises(errors.UndefinedObject, match='adapter of model "base", which does not exist'):
        load(conn, id_, "tuned")
    assert value(conn, "SELECT count(*) FROM llm_model_config WHERE model = 'tuned'") == 0
    conn.execute("SELECT llm_rename_model('first', 'base')")
    load(conn, id_, "tuned")
    assert weights(conn, "tuned") == before
    assert (logits(conn, "tuned") == expected).all()


def test_other_roles(conn: Connection, connect: Connect) -> None:
    make_base(conn)
    add(conn)
    scramble(conn)
    expected = logits(conn, "tuned")
    with connect() as other:
        other.execute("SET ROLE llm_reader")
        assert (logits(other, "tuned") == expected).all()
        with pytest.raises(errors.InsufficientPrivilege):
            other.execute("SELECT llm_create_adapter('mine', 'base')")
        other.execute("RESET ROLE; SET ROLE llm_trainer")
        add(other, "mine")
        add_rows(other, "mine", vocab=VOCAB)
        train(other, "mine", 1)
        # Whom the base's rows are hidden from has no use of the adapter.
        conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
        conn.execute("CREATE POLICY own ON llm_param TO llm_trainer USING (model <> 'base')")
        try:
            with pytest.raises(errors.NoDataFound, match='"base" has no weights'):
                logits(other, "mine")
        finally:
            conn.execute("DROP POLICY own ON llm_param")
            conn.execute("ALTER TABLE llm_param DISABLE ROW LEVEL SECURITY")
        assert (logits(other, "mine") != logits(conn, "base")).any()


def test_a_base_that_is_hidden_later(conn: Connection, connect: Connect) -> None:
    """What this session still has in memory of the base is not shown to who may no longer see its rows."""
    make_base(conn)
    add(conn)
    conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
    conn.execute(
        "CREATE POLICY own ON llm_param TO llm_reader"
        " USING (model = 'tuned' OR current_setting('app.tenant', true) = 'a')"
    )
    try:
        with connect() as other:
            other.execute("SET ROLE llm_reader; SET app.tenant = 'a'")
            logits(other, "tuned")
            other.execute("SET app.tenant = 'b'")
            with pytest.raises(errors.NoDataFound, match='"base" has no weights'):
                logits(other, "tuned")
            with pytest.raises(psycopg.Error, match=r"no parameter|does not exist|has no"):
                other.execute(
                    "SELECT pg_llm_arena_open('tuned', llm_fingerprint('tuned'), false),"
                    " pg_llm_param('tuned', 'wte.weight')"
                )
    finally:
        conn.execute("DROP POLICY own ON llm_param")
        conn.execute("ALTER TABLE llm_param DISABLE ROW LEVEL SECURITY")


def test_many_adapters_have_one_base_in_memory(conn: Connection) -> None:
    make_base(conn)
    conn.execute("SET pg_llm.shared_age = 0")
    for number in range(4):
        add(conn, f"a{number}", rank=1 + number)
        scramble(conn, f"a{number}", number)
    # In one statement, each with its own.
    rows = conn.execute(
        "SELECT model, pg_llm_tensor_send(llm_forward(model, %s)) FROM llm_param"
        " WHERE name LIKE '%%attn.c_attn.weight%%' GROUP BY model",
        (TOKENS,),
    ).fetchall()
    base = parameters(conn, "base")
    for model, sent in rows:
        own = {} if model == "base" else parameters(conn, model)
        wanted = reference("gpt2", base, own, 0 if model == "base" else 6 / (1 + int(model[1])), TOKENS)
        assert np.abs(array_of(sent) - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_a_matrix_of_an_adapter_in_other_ops(conn: Connection) -> None:
    make_base(conn)
    add(conn)
    scramble(conn)
    matrix = "h.0.attn.c_attn.weight"
    product = f"pg_llm_matmul(llm_weight('tuned', '{matrix}'), llm_weight('tuned', 'h.0.attn.c_attn.bias'))"
    base, own = parameters(conn, "base"), parameters(conn, "tuned")
    effective = base[matrix] + 2 * own[f"{matrix}.lora_a"] @ own[f"{matrix}.lora_b"]
    assert np.allclose(
        effective,
        array_of(value(conn, f"SELECT pg_llm_tensor_send(llm_weight('tuned', '{matrix}'))")),
        atol=1e-5,
    )
    conn.execute(f"SELECT {product}")
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    with pytest.raises(errors.FeatureNotSupported, match="can only be the weight of pg_llm_linear"):
        conn.execute(f"SELECT {product}")
    conn.execute("UPDATE llm_autograd_mode SET flag = false")
