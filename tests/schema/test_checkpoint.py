"""Checkpoints: everything comes back, nothing damaged is loaded, no file outlives its transaction or row."""

from __future__ import annotations

import os
import threading
from typing import Any

import psycopg
import pytest
from psycopg import errors

from llm_sql.server import EmbeddedServer

from ..support.checkpoints import file_of, files, load, referenced, save, skip_unless_visible
from ..support.durable import provisioned
from ..support.small_models import make_model, make_names, make_trainable, state_sha256, train, weights
from ..support.tensors import value
from ..support.waiting import wait_for

Connection = psycopg.Connection[Any]
TOKENIZER = (
    "SELECT (SELECT array_agg((token_id, token, bytes, score)::text ORDER BY token_id) FROM llm_bpe_vocab"
    " WHERE model = %(m)s) || (SELECT array_agg((rank, left_token, right_token, pair)::text ORDER BY rank)"
    " FROM llm_bpe_merges WHERE model = %(m)s)"
)
CONFIG = "SELECT (to_jsonb(c) - 'created_at')::text FROM llm_model_config c WHERE model = %(m)s"


def test_everything_comes_back(conn: Connection) -> None:
    make_names(conn)
    conn.execute(
        "INSERT INTO llm_bpe_merges (model, rank, left_token, right_token, pair)"
        " VALUES ('names', 0, '\"', E'\\\\', E'\" \\\\')"
    )
    train(conn, "names", 4, lr_max=0.01)
    before = (
        weights(conn, "names"),
        value(conn, TOKENIZER, {"m": "names"}),
        value(conn, CONFIG, {"m": "names"}),
    )
    id_ = save(conn, "names", "four steps")
    row = conn.execute(
        "SELECT model, step, note, n_params, bytes FROM llm_checkpoint WHERE id = %s", (id_,)
    ).fetchone()
    n_params = value(conn, "SELECT sum(cardinality(data::real[])) FROM llm_param WHERE model = 'names'")
    assert row == ("names", 4, "four steps", n_params, file_of(conn, id_).stat().st_size)
    train(conn, "names", 3, lr_max=0.01)
    after_seven = weights(conn, "names")
    conn.execute("DELETE FROM llm_bpe_vocab WHERE model = 'names'")
    conn.execute("UPDATE llm_model_config SET layer_norm_eps = 0.1 WHERE model = 'names'")
    assert load(conn, id_, "names") == 4
    after = (
        weights(conn, "names"),
        value(conn, TOKENIZER, {"m": "names"}),
        value(conn, CONFIG, {"m": "names"}),
    )
    assert after == before
    log = "SELECT array_agg(step ORDER BY step) FROM llm_train_log WHERE model = 'names' AND NOT superseded"
    assert value(conn, log) == [1, 2, 3, 4]
    train(conn, "names", 3, lr_max=0.01)
    assert weights(conn, "names") == after_seven
    assert value(conn, log) == [1, 2, 3, 4, 5, 6, 7]


def test_a_dropped_model_comes_back(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, n_steps=2)
    before = weights(conn)
    id_ = save(conn)
    conn.execute("SELECT llm_drop_model('tiny')")
    assert load(conn, id_) == 2
    assert weights(conn) == before


def test_untrained_models_and_parts(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO llm_model_config (model, n_layer, n_head, d_model, n_positions, vocab)"
        " VALUES ('wide', 1, 1, 64, 8, 140000)"
    )
    conn.execute("SELECT llm_init_model('wide', 3)")
    before = weights(conn, "wide")
    id_ = save(conn, "wide")
    conn.execute("SELECT llm_init_model('wide', 4)")
    load(conn, id_, "wide")
    assert weights(conn, "wide") == before
    assert any(part > 0 for _, part in before)


@pytest.mark.parametrize("where", ["header", "middle", "last", "longer", "shorter", "gone"])
def test_damaged_files_are_refused(conn: Connection, where: str) -> None:
    make_trainable(conn)
    train(conn, n_steps=2)
    id_ = save(conn)
    train(conn, n_steps=1)
    before = weights(conn)
    path = file_of(conn, id_)
    whole = path.read_bytes()
    at = {"header": 20, "middle": len(whole) // 2, "last": len(whole) - 1}.get(where)
    if at is not None:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    elif where == "gone":
        path.unlink()
    else:
        path.write_bytes(whole + b"\0" if where == "longer" else whole[:-1])
    with pytest.raises(errors.UndefinedFile if where == "gone" else errors.DataException) as refused:
        load(conn, id_)
    if where != "gone":
        assert refused.value.sqlstate == "22000"
        assert "damaged" in str(refused.value)
    assert weights(conn) == before
    assert value(conn, "SELECT count(*) FROM llm_train_log WHERE superseded") == 0
    path.write_bytes(whole)
    assert load(conn, id_) == 2


def test_unknown_ids_and_other_models(conn: Connection) -> None:
    make_model(conn)
    make_model(conn, "other")
    id_ = save(conn, "other")
    with pytest.raises(errors.UndefinedObject):
        load(conn, id_ + 1000)
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT llm_checkpoint_load('tiny', NULL)")
    with pytest.raises(errors.InvalidParameterValue, match='belongs to model "other", not to "tiny"'):
        load(conn, id_)
    # a row that lies about the file does not help
    conn.execute("UPDATE llm_checkpoint SET model = 'tiny' WHERE id = %s", (id_,))
    with pytest.raises(errors.InvalidParameterValue, match='not a checkpoint of model "tiny"'):
        load(conn, id_)
    with pytest.raises(errors.UndefinedObject):
        save(conn, "nobody")
    with pytest.raises(errors.NoDataFound):
        save(conn, "gpt2-small")


def test_rows_that_lead_elsewhere(conn: Connection) -> None:
    make_model(conn)
    id_ = save(conn)
    for path in ("/etc/passwd", "../postgresql.conf", "x", "1-1/../../postgresql.conf", "postgresql.conf"):
        conn.execute("UPDATE llm_checkpoint SET file_path = %s WHERE id = %s", (path, id_))
        with pytest.raises(errors.InvalidParameterValue, match="does not name a checkpoint file"):
            load(conn, id_)


def test_retention(conn: Connection) -> None:
    make_model(conn)
    make_model(conn, "other")
    other = save(conn, "other")
    ids = [save(conn) for _ in range(4)]
    assert save(conn, keep=3) > ids[-1]
    left = value(conn, "SELECT array_agg(id ORDER BY id) FROM llm_checkpoint WHERE model = 'tiny'")
    assert left == [*ids[2:], ids[3] + 1]
    assert files(conn) == referenced(conn)
    assert value(conn, "SELECT count(*) FROM llm_checkpoint WHERE id = %s", (other,)) == 1
    for keep in (0, -1):
        with pytest.raises(errors.InvalidParameterValue):
            save(conn, keep=keep)


def test_rollbacks_leave_no_file_and_take_none(conn: Connection, connect: Any) -> None:
    make_model(conn)
    kept = save(conn)
    before = files(conn)
    other = connect(autocommit=False)
    save(other, keep=1)
    assert len(files(conn)) == len(before) + 1
    other.rollback()
    assert files(conn) == before
    # savepoints: of three saves the outer two stay
    save(other)
    other.execute("SAVEPOINT s")
    save(other, keep=1)
    other.execute("ROLLBACK TO s")
    other.execute("SAVEPOINT t")
    save(other)
    other.execute("RELEASE t")
    other.commit()
    assert value(conn, "SELECT count(*) FROM llm_checkpoint") == 3
    assert files(conn) == referenced(conn)
    assert load(conn, kept) == 0


def test_another_sessions_unfinished_save_is_left_alone(conn: Connection, connect: Any) -> None:
    make_model(conn)
    other = connect(autocommit=False)
    theirs = save(other)
    save(conn, keep=1)
    other.commit()
    assert files(conn) == referenced(conn)
    assert load(conn, theirs) == 0


def test_deleted_rows_lose_their_files_at_the_next_save(conn: Connection) -> None:
    make_model(conn)
    save(conn)
    conn.execute("DELETE FROM llm_checkpoint")
    assert len(files(conn)) == 1
    save(conn)
    assert files(conn) == referenced(conn)


def test_a_trainer_needs_no_more(conn: Connection, connect: Any) -> None:
    make_model(conn)
    conn.execute("DROP ROLE IF EXISTS llm_test_saver")
    conn.execute("CREATE ROLE llm_test_saver LOGIN")
    try:
        trainer = connect(user="llm_test_saver")
        conn.execute("GRANT llm_reader TO llm_test_saver")
        with pytest.raises(errors.InsufficientPrivilege):
            save(trainer)
        conn.execute("GRANT llm_trainer TO llm_test_saver")
        assert load(trainer, save(trainer)) == 0
        trainer.close()
    finally:
        conn.execute("DROP ROLE llm_test_saver")


def test_a_crash_while_saving_leaves_the_older_checkpoint() -> None:
    if "DATABASE_URL" in os.environ:
        pytest.skip("DATABASE_URL's server cannot be killed by a test")
    with provisioned() as durable:
        with durable.connect() as conn:
            make_model(conn, n_layer=2, d_model=256, n_head=4, vocab=20000)
            older, before, one_file = save(conn), state_sha256(conn), files(conn)
        crash_while_saving(durable.server, one_file)
        with durable.connect() as conn:
            assert value(conn, "SELECT array_agg(id) FROM llm_checkpoint") == [older]
            assert len(files(conn)) == 2
            conn.execute("SELECT llm_init_model('tiny', 9)")
            load(conn, older)
            assert state_sha256(conn) == before
            save(conn)
            assert files(conn) == referenced(conn)


def crash_while_saving(server: EmbeddedServer, known: set[str]) -> None:
    """Kills the server as soon as a new file is in the folder and its transaction has not ended."""

    def save_on() -> None:
        query = "SELECT llm_checkpoint_save('tiny'), pg_sleep(60)"
        with pytest.raises(psycopg.OperationalError), psycopg.connect(server.url()) as conn:
            conn.execute(query)

    thread = threading.Thread(target=save_on)
    with psycopg.connect(server.url(), autocommit=True) as observer:
        thread.start()
        wait_for(lambda: files(observer) - known, "the beginning of a save", pause=0.001)
    server.kill()
    thread.join(600)
    server.start()


@pytest.fixture(autouse=True)
def only_where_files_can_be_seen(request: pytest.FixtureRequest) -> None:
    if "conn" in request.fixturenames:
        skip_unless_visible(request.getfixturevalue("conn"))
