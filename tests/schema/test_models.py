"""Making, initialising and dropping models; weights in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..support.small_models import add_rows, make_model, make_names, make_trainable, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]


def data(conn: Connection, model: str, name: str) -> Any:
    return value(conn, "SELECT data FROM llm_param WHERE model = %s AND name = %s", (model, name))


def test_gpt2s_initialisation(conn: Connection) -> None:
    make_model(conn, "m", n_layer=4, n_head=4, d_model=64, n_positions=32, vocab=500)
    for name, std in (
        ("wte.weight", 0.02),
        ("h.3.attn.c_attn.weight", 0.02),
        ("h.0.mlp.c_fc.weight", 0.02),
        ("h.0.attn.c_proj.weight", 0.02 / 8**0.5),
        ("h.2.mlp.c_proj.weight", 0.02 / 8**0.5),
    ):
        w = data(conn, "m", name)
        assert w.std() == pytest.approx(std, rel=0.05)
        assert abs(w.mean()) < 5 * std / w.size**0.5
    assert (data(conn, "m", "h.1.ln_1.weight") == 1).all()
    for name in ("h.1.ln_1.bias", "ln_f.bias", "h.0.mlp.c_fc.bias", "h.0.attn.c_attn.bias"):
        assert (data(conn, "m", name) == 0).all()
    assert not np.array_equal(data(conn, "m", "h.0.mlp.c_fc.weight"), data(conn, "m", "h.1.mlp.c_fc.weight"))


def test_names_and_shapes(conn: Connection) -> None:
    make_model(conn, "m", n_layer=1, n_head=2, d_model=4, n_positions=8, vocab=13)
    shapes = dict(conn.execute("SELECT name, shape(data) FROM llm_param WHERE model = 'm'").fetchall())
    assert shapes == {
        "wte.weight": [13, 4],
        "wpe.weight": [8, 4],
        "h.0.ln_1.weight": [4],
        "h.0.ln_1.bias": [4],
        "h.0.attn.c_attn.weight": [4, 12],
        "h.0.attn.c_attn.bias": [12],
        "h.0.attn.c_proj.weight": [4, 4],
        "h.0.attn.c_proj.bias": [4],
        "h.0.ln_2.weight": [4],
        "h.0.ln_2.bias": [4],
        "h.0.mlp.c_fc.weight": [4, 16],
        "h.0.mlp.c_fc.bias": [16],
        "h.0.mlp.c_proj.weight": [16, 4],
        "h.0.mlp.c_proj.bias": [4],
        "ln_f.weight": [4],
        "ln_f.bias": [4],
    }
    assert value(conn, "SELECT llm_create_model('micro', 'microgpt')") == 4192
    assert value(
        conn,
        "SELECT stddev_pop(s) < 0.01 AND avg(s) BETWEEN 0.07 AND 0.09 FROM ("
        "SELECT norm(data) / sqrt(cardinality(data::real[])) AS s FROM llm_param WHERE model = 'micro'"
        ") q",
    )


def test_seeds(conn: Connection) -> None:
    make_model(conn, "a", seed=3)
    make_model(conn, "b", seed=3)
    make_model(conn, "c", seed=4)
    assert weights(conn, "a") == weights(conn, "b")
    assert weights(conn, "a") != weights(conn, "c")
    conn.execute("SELECT llm_init_model('c', 3)")
    assert weights(conn, "a") == weights(conn, "c")


def test_large_tensors_stand_in_parts(conn: Connection) -> None:
    """A vocabulary of 140,000 at width 64 is more than one row's 8 Mi elements: parts of 2 Mi."""
    conn.execute("SELECT llm_create_model('wide', 'gpt2', 1, 1, 64, 4, 140000)")
    rows = conn.execute(
        "SELECT token_id, shape(data) FROM llm_param WHERE model = 'wide' AND name = 'wte.weight' ORDER BY 1"
    ).fetchall()
    assert rows == [(first, [min(32768, 140000 - first), 64]) for first in range(0, 140000, 32768)]
    logits = value(conn, "SELECT llm_logits('{0,131072,139999}', 'wide')")
    assert logits.shape == (3, 140000)
    assert np.isfinite(logits).all()
    conn.execute(
        "INSERT INTO llm_dataset (model, tokens, target) VALUES ('wide', '{5,131072}', '{131073,139999}')"
    )
    before = weights(conn, "wide")
    train(conn, "wide", 1, lr_max=0.01, wd=0.0, dropout_p=0.0)
    after = weights(conn, "wide")
    assert [row[0] for row in rows] == [part for name, part in sorted(after) if name == "wte.weight"]
    assert all(before["wte.weight", part] != after["wte.weight", part] for part in (0, 65536, 131072))
    assert value(conn, "SELECT loss FROM llm_train_log") == pytest.approx(np.log(140000), rel=0.02)


def test_parts_that_do_not_fit_together(conn: Connection) -> None:
    make_model(conn)
    conn.execute("UPDATE llm_param SET token_id = 5 WHERE name = 'wte.weight'")
    with pytest.raises(errors.DataException, match="do not fit together"):
        conn.execute("SELECT llm_loss('tiny', '{1}', '{1}')")


def test_a_model_by_hand(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute(
        "INSERT INTO llm_model_config (model, arch, n_layer, n_head, d_model, n_positions, vocab)"
        " SELECT 'hand', arch, n_layer, n_head, d_model, n_positions, vocab FROM llm_model_config"
        " WHERE model = 'tiny'"
    )
    conn.execute(
        "INSERT INTO llm_param (model, name, data) SELECT 'hand', name, data FROM llm_param"
        " WHERE model = 'tiny'"
    )
    add_rows(conn, "hand")
    for model in ("tiny", "hand"):
        train(conn, model, 2)
    assert weights(conn, "tiny") == weights(conn, "hand")


def test_an_untied_head(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute("UPDATE llm_model_config SET tied = false WHERE model = 'tiny'")
    conn.execute("SELECT llm_init_model('tiny', 1)")
    assert value(conn, "SELECT shape(data) FROM llm_param WHERE name = 'lm_head.weight'") == [13, 16]
    train(conn, n_steps=2)


def test_dropping_leaves_nothing(conn: Connection) -> None:
    make_names(conn)
    make_trainable(conn, "other")
    for model in ("names", "other"):
        train(conn, model, 2, grad_clip=1e-3)
    conn.execute("SELECT llm_drop_model('names')")
    for table in (
        "llm_model_config",
        "llm_param",
        "llm_dataset",
        "llm_tape",
        "llm_tensor_map",
        "llm_bpe_vocab",
        "llm_train_run",
        "llm_train_log",
    ):
        assert value(conn, f"SELECT count(*) FROM {table} WHERE model = 'names'") == 0
    assert value(conn, "SELECT count(*) FROM llm_clip") == 2
    assert value(conn, "SELECT count(DISTINCT run) FROM llm_tensor_rt") == 1
    make_names(conn)
    train(conn, "names", 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ("'x', 'lstm'", errors.UndefinedObject, 'architecture "lstm" does not exist'),
        ("'x', NULL", errors.UndefinedObject, "architecture NULL does not exist"),
        ("NULL", errors.InvalidParameterValue, "a model needs a name"),
        ("''", errors.InvalidParameterValue, "a model needs a name"),
        ("'gpt2-small'", errors.DuplicateObject, 'model "gpt2-small" already exists'),
        ("'x', n_layer => 0", errors.InvalidParameterValue, "n_layer must be positive, got 0"),
        ("'x', n_head => -1", errors.InvalidParameterValue, "n_head must be positive, got -1"),
        ("'x', vocab => 0", errors.InvalidParameterValue, "vocab must be positive, got 0"),
        (
            "'x', d_model => 10, n_head => 3",
            errors.InvalidParameterValue,
            "d_model 10 is not a multiple of n_head 3",
        ),
        ("'x', n_layer => 2147483647", errors.ProgramLimitExceeded, "would have 2147483647 layers"),
        ("'x', vocab => 2147483647", errors.ProgramLimitExceeded, "about 16493"),
        ("'x', d_model => 2000000000, n_head => 1", errors.ProgramLimitExceeded, "weights"),
        ("'x', seed => NULL", errors.InvalidParameterValue, "seed must not be NULL"),
    ],
)
def test_what_cannot_be_made(
    conn: Connection, arguments: str, error: type[psycopg.Error], message: str
) -> None:
    with pytest.raises(error, match=message):
        conn.execute(f"SELECT llm_create_model({arguments})")


def test_a_registered_architecture(conn: Connection) -> None:
    """A bigram model of a user's own, in two SQL functions: created, trained, generating."""
    with conn.transaction(force_rollback=True):
        conn.execute(
            """CREATE FUNCTION bigram_parameters(model text)
            RETURNS TABLE (name text, shape int[], init text, std double precision) LANGUAGE sql STABLE AS $$
                SELECT v.* FROM llm_config(model) c, LATERAL (VALUES
                    ('wte.weight', ARRAY[c.vocab, c.d_model], 'normal', 0.1::float8),
                    ('lm_head.weight', ARRAY[c.vocab, c.d_model], 'normal', 0.1::float8)) v $$"""
        )
        conn.execute(
            """CREATE FUNCTION bigram_forward(model text, tokens int[], training boolean, targets int[],
                dropout_p double precision, last_only boolean) RETURNS tensor LANGUAGE plpgsql AS $$
            DECLARE x tensor := pg_llm_embedding(llm_weight(model, 'wte.weight'), tokens);
            BEGIN
                IF targets IS NOT NULL THEN
                    RETURN pg_llm_lm_head_loss(x, llm_weight(model, 'lm_head.weight'), targets);
                END IF;
                RETURN pg_llm_lm_head(x, llm_weight(model, 'lm_head.weight'));
            END $$"""
        )
        conn.execute("INSERT INTO llm_arch VALUES ('bigram', 'bigram_forward', 'bigram_parameters')")
        conn.execute("SELECT llm_create_model('b', 'bigram', 1, 1, 8, 8, 13)")
        add_rows(conn, "b")
        run = train(conn, "b", 60, lr_max=0.1, wd=0.0)
        losses = [
            r[0]
            for r in conn.execute("SELECT loss FROM llm_train_log WHERE run_id = %s ORDER BY step", (run,))
        ]
        assert losses[-1] < 0.5 * losses[0]
        assert value(conn, "SELECT count(*) FROM llm_tensor_map WHERE model = 'b'") == 2
