"""llm_copy_model and llm_finetune: what a copy has, what fine-tuning does, what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import NAMES, make_names, names_query, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]
CONFIG = "SELECT to_jsonb(c) - 'model' - 'created_at' - 'init_seed' FROM llm_model_config c WHERE model = %s"
TOKENIZER = "SELECT token_id, token, bytes, score FROM llm_bpe_vocab WHERE model = %s ORDER BY token_id"


def test_a_copy_has_all_there_is_to_the_model(conn: Connection) -> None:
    make_names(conn)
    train(conn, "names", 3)
    n = value(conn, "SELECT llm_copy_model('names', 'twin')")
    assert n == value(conn, "SELECT count(*) FROM llm_param WHERE model = 'names'")
    # Its steps cannot be replayed from a seed: it has none of their log.
    assert value(conn, "SELECT init_seed FROM llm_model_config WHERE model = 'twin'") is None
    assert weights(conn, "twin") == weights(conn, "names")
    assert value(conn, CONFIG, ("twin",)) == value(conn, CONFIG, ("names",))
    assert conn.execute(TOKENIZER, ("twin",)).fetchall() == conn.execute(TOKENIZER, ("names",)).fetchall()
    text = "SELECT llm_generate('a', 8, seed => 1, model => %s)"
    assert value(conn, text, ("twin",)) == value(conn, text, ("names",))
    assert value(conn, "SELECT count(*) FROM llm_dataset WHERE model = 'twin'") == 0
    assert value(conn, "SELECT count(*) FROM llm_train_log WHERE model = 'twin'") == 0
    # Training one leaves the other alone.
    before = weights(conn, "names")
    conn.execute("SELECT llm_fill_dataset('twin', %s, 16)", (names_query(),))
    train(conn, "twin", 2)
    assert weights(conn, "names") == before
    assert weights(conn, "twin") != before


def test_finetuning_without_a_tokenizer_names_the_model_that_lacks_it(conn: Connection) -> None:
    conn.execute("SELECT llm_create_model('bare', n_layer => 1, n_head => 1, d_model => 4, vocab => 9)")
    with pytest.raises(errors.UndefinedObject, match='"bare" has no tokenizer'):
        conn.execute("SELECT llm_finetune('bare', 'SELECT 1', 1, 'tuned')")


def test_a_copy_without_optimizer_state(conn: Connection) -> None:
    make_names(conn)
    train(conn, "names", 3)
    conn.execute("SELECT llm_copy_model('names', 'fresh', false)")
    for key, (data, *state) in weights(conn, "fresh").items():
        assert data == weights(conn, "names")[key][0]
        assert state == [None, None, 0]


def test_refused_copies(conn: Connection) -> None:
    make_names(conn)
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT llm_copy_model('nobody', 'a')")
    with pytest.raises(errors.DuplicateObject):
        conn.execute("SELECT llm_copy_model('names', 'names')")
    conn.execute("SELECT llm_build_char_tokenizer('other', %s)", (names_query(),))
    with pytest.raises(errors.DuplicateObject, match="tokenizer"):
        conn.execute("SELECT llm_copy_model('names', 'other')")
    for name in ("''", "NULL"):
        with pytest.raises(errors.InvalidParameterValue):
            conn.execute(f"SELECT llm_copy_model('names', {name})")


def test_finetuning_is_its_parts(conn: Connection) -> None:
    make_names(conn, n_positions=16)
    train(conn, "names", 20, lr_max=0.01)
    before = weights(conn, "names")
    rows = value(conn, "SELECT count(*) FROM llm_dataset WHERE model = 'names'")
    query = names_query([f"{name[0]}anana{name[-1]}{name[0]}" for name in NAMES])
    row = conn.execute(
        "SELECT * FROM llm_finetune('names', %s, 40, lr_max => 0.01, batch_size => 4, validation => 0.2,"
        " dropout_p => 0, seed => 3, log_every => 0)",
        (query,),
    ).fetchone()
    assert row is not None
    name, perplexity_before, perplexity_after = row
    assert name == "names-finetuned"
    assert perplexity_after < 0.8 * perplexity_before
    assert weights(conn, "names") == before
    assert value(conn, "SELECT count(*) FROM llm_dataset WHERE model = 'names'") == rows
    # The same by hand, to the bit.
    conn.execute("SELECT llm_copy_model('names', 'hand', false)")
    conn.execute("SELECT llm_fill_dataset('hand', %s, 16, validation => 0.2, seed => 3)", (query,))
    assert value(conn, "SELECT perplexity FROM llm_evaluate('hand')") == perplexity_before
    train(conn, "hand", 40, lr_max=0.01, batch_size=4, dropout_p=0, seed=3, grad_clip=1.0)
    assert value(conn, "SELECT perplexity FROM llm_evaluate('hand')") == perplexity_after
    assert weights(conn, "hand") == weights(conn, name)
    assert math.isclose(perplexity_after, value(conn, "SELECT exp(nll) FROM llm_evaluate('hand')"))


def test_names_of_finetuned_models(conn: Connection) -> None:
    make_names(conn)
    call = "SELECT name FROM llm_finetune('names', %s, 1, log_every => 0)"
    assert value(conn, call, (names_query(),)) == "names-finetuned"
    assert value(conn, call, (names_query(),)) == "names-finetuned-2"
    named = "SELECT name FROM llm_finetune('names', %s, 1, 'mine', log_every => 0)"
    assert value(conn, named, (names_query(),)) == "mine"
    with pytest.raises(errors.DuplicateObject):
        conn.execute(named, (names_query(),))


def test_a_failed_finetuning_leaves_nothing(conn: Connection) -> None:
    make_names(conn)
    for arguments, error in (
        ("%s, 0", errors.InvalidParameterValue),
        ("%s, 1, validation => 0", errors.InvalidParameterValue),
        ("%s, 1, lr_max => -1", errors.InvalidParameterValue),
        ("'SELECT ''?''' || %s, 1", psycopg.Error),
    ):
        with pytest.raises(error):
            conn.execute(f"SELECT llm_finetune('names', {arguments})", (names_query(),))
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT llm_finetune('nobody', %s, 1)", (names_query(),))
    assert value(conn, "SELECT count(*) FROM llm_model_config WHERE model LIKE 'names-%%'", ()) == 0
