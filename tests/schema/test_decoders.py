"""Architectures llama, neox and opt: training, generation, files, and what their settings may be."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..support.small_models import (
    NAMES,
    Connection,
    add_rows,
    names_query,
    state_sha256,
    train,
    weights,
)
from ..support.tensors import value

FORMS = {
    "llama": ("llama", '{"n_kv_head": 2, "d_head": 6, "rope_theta": 500}'),
    "qwen3": (
        "llama",
        '{"n_kv_head": 1, "qk_norm": true, "qkv_bias": true, "o_bias": true, "mlp_bias": true}',
    ),
    "mistral": ("llama", '{"window": 3, "rope_scaling": {"rope_type": "linear", "factor": 2}}'),
    "neox": ("neox", '{"rope_dims": 4}'),
    "neox in turn": ("neox", '{"parallel": false}'),
    "opt": ("opt", "{}"),
    "opt-350m": ("opt", '{"norm_first": false, "d_embed": 12}'),
}
VOCAB = len({letter for name in NAMES for letter in name}) + 1


def create(conn: Connection, form: str, model: str = "m", *, vocab: int = VOCAB) -> str:
    arch, settings = FORMS[form]
    conn.execute("SELECT llm_create_model(%s, %s, 2, 4, 32, 16, %s, 3, %s)", (model, arch, vocab, settings))
    return model


@pytest.fixture(params=FORMS)
def model(request: pytest.FixtureRequest, conn: Connection) -> str:
    """With letters for tokens."""
    conn.execute("SELECT llm_build_char_tokenizer('m', %s)", (names_query(),))
    return create(conn, request.param)


def test_text_is_the_same_with_a_cache_alone_and_among_others(conn: Connection, model: str) -> None:
    # Away from the beginning, where nothing is decided.
    conn.execute("SELECT llm_fill_dataset('m', %s, 16)", (names_query(),))
    before = value(conn, "SELECT mean_nll FROM llm_evaluate('m', 'train')")
    train(conn, model, 12, lr_max=1e-2, batch_size=8, dropout_p=0.1, warmup=1)
    assert value(conn, "SELECT mean_nll FROM llm_evaluate('m', 'train')") < before - 0.3
    prompts = ["em", "sofia", "b"]
    alone = [value(conn, "SELECT llm_generate(%s, 8, 0, model => 'm')", (text,)) for text in prompts]
    assert value(conn, "SELECT llm_generate(%s::text[], 8, 0, model => 'm')", (prompts,)) == alone
    rows = conn.execute("SELECT token_id FROM llm_generate_stream('em', 8, 0, model => 'm')").fetchall()
    ids = value(conn, "SELECT llm_encode('em', 'm')")
    for (chosen,) in rows:
        logits = value(conn, "SELECT llm_logits(%s, 'm')", (ids,))
        assert int(np.argmax(logits[-1])) == chosen
        ids.append(chosen)
    batch = value(conn, "SELECT llm_logits(%s, 'm')", ([ids[:4], ids[1:5]],))
    assert np.array_equal(batch[1], value(conn, "SELECT llm_logits(%s, 'm')", (ids[1:5],)))
    best = conn.execute("SELECT text FROM llm_beam_search('em', 2, 4, model => 'm')").fetchall()
    assert len(best) == 2
    assert value(conn, "SELECT llm_embed_text('em', 'm')").shape == (32,)


def test_every_parameter_is_trained_and_a_run_is_repeated(conn: Connection, model: str) -> None:
    add_rows(conn, "m", length=16, vocab=VOCAB)
    before = weights(conn, "m")
    conn.execute("CALL llm_train_loop('m', 3, lr_max => 1e-2, warmup => 1, log_every => 0)")
    run = value(conn, "SELECT max(run_id) FROM llm_train_run")
    moved = {name for (name, _), row in weights(conn, "m").items() if row != before[name, 0]}
    # A bias of keys moves all scores of a query alike; decay moves nothing that is zero.
    assert {name for name, _ in before} - moved <= {f"h.{i}.attn.k_proj.bias" for i in (0, 1)}
    conn.execute("SELECT llm_checkpoint_save('m')")
    kept = state_sha256(conn, "m")
    train(conn, model, 1)
    assert state_sha256(conn, "m") != kept
    conn.execute("SELECT llm_checkpoint_load('m', (SELECT max(id) FROM llm_checkpoint))")
    assert state_sha256(conn, "m") == kept
    conn.execute("SELECT llm_copy_model('m', 'fork')")
    query = "SELECT llm_logits('{1,2,3,1}', %s)"
    assert np.array_equal(value(conn, query, ("m",)), value(conn, query, ("fork",)))
    total = value(conn, "SELECT sum(llm_elements(shape)) FROM llm_parameters('m')")
    assert total == value(conn, "SELECT sum(llm_elements(shape(data))) FROM llm_param WHERE model = 'm'")
    assert value(conn, "SELECT heap_bytes + toast_bytes FROM llm_write_cost('m') WHERE part = 'total'") > 0
    assert run is not None


def test_replay_repeats_every_step(conn: Connection, model: str) -> None:
    add_rows(conn, "m", length=16, vocab=VOCAB)
    conn.execute("SELECT llm_checkpoint_save('m')")
    conn.execute("CALL llm_train_loop('m', 3, log_every => 0)")
    run = value(conn, "SELECT max(run_id) FROM llm_train_run")
    assert conn.execute("SELECT same FROM llm_replay(%s)", (run,)).fetchall() == [(True,)] * 3


@pytest.fixture
def folder() -> Iterator[Path]:
    """That the server's account can write, too."""
    folder = Path(tempfile.mkdtemp(prefix="llm-sql-decoders-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_a_file_of_the_server_there_and_back(conn: Connection, model: str, folder: Path, kind: str) -> None:
    conn.execute("UPDATE llm_model_config SET tied = false WHERE model = 'm'")
    conn.execute("SELECT llm_init_model('m', 8)")
    conn.execute("UPDATE llm_param SET data = data + 0.125 WHERE model = 'm' AND name LIKE '%.bias'")
    path = str(folder / f"model.{kind}")
    query = "SELECT llm_logits('{1,2,3,1,5}', 'm')"
    before, kept = value(conn, query), {key: row[0] for key, row in weights(conn, "m").items()}
    conn.execute(f"SELECT pg_llm_export_{kind}(%s, 'm')", (path,))
    names = {name for (name,) in conn.execute("SELECT name FROM pg_llm_file_tensors(%s, 1000000)", (path,))}
    assert not any(name.startswith("h.") for name in names)
    conn.execute("SELECT llm_init_model('m', 9)")
    conn.execute(f"SELECT pg_llm_import_{kind}(%s, 'm')", (path,))
    assert {key: row[0] for key, row in weights(conn, "m").items()} == kept
    assert np.array_equal(value(conn, query), before)


@pytest.mark.parametrize(
    ("arch", "settings", "message"),
    [
        ("llama", '{"n_kv_head": 3}', '"n_kv_head" of model "m" must be an integer, at least 1, a div'),
        ("llama", '{"n_kv_head": 0}', "at least 1"),
        ("llama", '{"n_kv_head": 8}', "a divisor of n_head"),
        ("llama", '{"d_head": 65537}', "at most 65536"),
        ("llama", '{"window": 0}', '"window" of model "m" must be'),
        ("llama", '{"rope_theta": 0.5}', "at least 1"),
        ("llama", '{"rope_scaling": {"rope_type": ["linear"]}}', "texts, numbers, true or false"),
        ("llama", '{"rope_scaling": {"rope_type": {"a": 1}}}', "texts, numbers, true or false"),
        ("llama", '{"rope_scaling": "linear"}', "an object whose values are"),
        ("llama", '{"parallel": true}', '"parallel" of model "m" is not known'),
        ("neox", '{"d_head": 8}', '"d_head" of model "m" is not known'),
        ("opt", '{"d_embed": 0}', "at least 1"),
    ],
)  # fmt: skip
def test_settings_that_are_not_allowed(conn: Connection, arch: str, settings: str, message: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=message):
        conn.execute("SELECT llm_create_model('m', %s, 1, 4, 32, 8, 5, 0, %s)", (arch, settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"rope_scaling": {"rope_type": "yarn"}}', 'unknown type "yarn"'),
        ('{"rope_scaling": {"rope_type": "linear"}}', 'no number "factor"'),
        ('{"d_head": 7}', "cannot turn 7 of the 7"),
        ('{"rope_dims": 9}', "cannot turn 9"),
    ],
)
def test_turns_that_cannot_be(conn: Connection, settings: str, message: str) -> None:
    conn.execute("SELECT llm_create_model('m', 'llama', 1, 4, 32, 8, 5, 0, %s)", (settings,))
    with pytest.raises(errors.InvalidParameterValue, match=message):
        conn.execute("SELECT llm_logits('{1,2}', 'm')")


def test_heads_need_not_divide_the_width_where_theirs_is_given(conn: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="d_model 30 is not a multiple of n_head 4"):
        conn.execute("SELECT llm_create_model('m', 'llama', 1, 4, 30, 8, 5)")
    conn.execute("SELECT llm_create_model('m', 'llama', 1, 4, 30, 8, 5, 0, '{\"d_head\": 8}')")
    assert value(conn, "SELECT llm_logits('{1,2}', 'm')").shape == (2, 5)
    with pytest.raises(errors.CheckViolation):
        conn.execute("UPDATE llm_model_config SET settings = '{}' WHERE model = 'm'")
    huge = '{"d_head": 65536}'
    with pytest.raises(errors.ProgramLimitExceeded):
        conn.execute("SELECT llm_create_model('h', 'llama', 1000, 4, 65536, 8, 5, 0, %s)", (huge,))


def test_a_window_hides_what_lies_before_it(conn: Connection) -> None:
    create(conn, "mistral", vocab=9)
    conn.execute("UPDATE llm_model_config SET n_layer = 1 WHERE model = 'm'")
    conn.execute("SELECT llm_init_model('m', 1)")
    query = "SELECT llm_logits(%s, 'm')"
    seen, changed = (value(conn, query, ([first, 2, 3, 4, 5],)) for first in (1, 7))
    assert not np.array_equal(seen[2], changed[2])
    assert np.array_equal(seen[3:], changed[3:])


def test_published_sizes_are_registered(conn: Connection) -> None:
    rows: dict[str, Any] = dict(
        conn.execute(
            "SELECT model, (SELECT sum(llm_elements(p.shape)) FROM llm_parameters(model) p)"
            " FROM unnest('{smollm2-135m,pythia-70m,opt-125m}'::text[]) model"
        ).fetchall()
    )
    assert rows == {"smollm2-135m": 134515008, "pythia-70m": 70426624, "opt-125m": 125239296 - 2 * 768}


def test_other_names_are_refused(conn: Connection) -> None:
    create(conn, "llama")
    tensors = '[{"name": "h.0.attn.q_proj.weight", "dtype": "F32", "shape": [32, 24]}]'
    with pytest.raises(psycopg.Error, match="tensors that model") as error:
        conn.execute("SELECT llm_import_check('m', %s)", (tensors,))
    assert error.value.sqlstate == "22023"
    assert error.value.diag.message_hint
