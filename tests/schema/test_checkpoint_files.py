"""Checkpoint files on the disk: what is taken for one, and what is swept."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.checkpoints import (
    directory,
    file_of,
    files,
    folder,
    give_to_server,
    load,
    referenced,
    save,
    skip_unless_visible,
)
from ..support.small_models import make_model, make_trainable, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def only_where_files_can_be_seen(request: pytest.FixtureRequest) -> None:
    if "conn" in request.fixturenames:
        skip_unless_visible(request.getfixturevalue("conn"))


# ---- what is taken for a checkpoint's file ----


@pytest.mark.parametrize(
    "kind", ["link", "dangling link", "pipe", "directory", "link to a device", "nothing"]
)
def test_what_is_no_regular_file_is_not_opened(conn: Connection, kind: str) -> None:
    make_model(conn)
    id_ = save(conn)
    path = file_of(conn, id_)
    aside = path.with_name("1-aside.safetensors")
    path.rename(aside)
    if kind == "link":
        path.symlink_to(aside)
    elif kind == "dangling link":
        path.symlink_to("/nonexistent")
    elif kind == "pipe":
        os.mkfifo(path, 0o666)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    with pytest.raises(errors.UndefinedFile if kind == "nothing" else errors.WrongObjectType):
        load(conn, id_)
    if kind != "nothing":
        path.rmdir() if kind == "directory" else path.unlink()
    aside.rename(path)
    assert load(conn, id_) == 0


def test_a_file_that_becomes_shorter_while_it_is_open(conn: Connection) -> None:
    make_model(conn)
    id_ = save(conn)
    path = file_of(conn, id_)
    whole = path.read_bytes()
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT pg_llm_checkpoint_tensor(%s, 'wte.weight')", (id_,))
        os.truncate(path, len(whole) // 2)
        with pytest.raises(errors.DataException), conn.transaction():
            conn.execute("SELECT pg_llm_checkpoint_bytes(%s, 'tokenizer.vocab')", (id_,))
        os.truncate(path, 0)
        with pytest.raises(errors.DataException), conn.transaction():
            load(conn, id_)
    path.write_bytes(whole)
    assert load(conn, id_) == 0


@pytest.mark.parametrize(
    "path",
    [
        "a\nb",
        "1-1/x\n",
        "../1-1/x",
        "1-1/../x",
        "",
        "/",
        ".",
        "\u00e9",
        "1-1/" + "x" * 300,
        "pg_llm_checkpoints",
        "1-1/",
        "1-1",
    ],
)
def test_names_that_are_none(conn: Connection, path: str) -> None:
    make_model(conn)
    id_ = save(conn)
    conn.execute("UPDATE llm_checkpoint SET file_path = %s WHERE id = %s", (path, id_))
    with pytest.raises((errors.InvalidParameterValue, errors.UndefinedFile)):
        load(conn, id_)


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    n = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + n]), content[8 + n :]


def rewrite(conn: Connection, id_: int, change: Any) -> None:
    """The file with another header, and a row that agrees with it: what only the server's owner can do."""
    path = file_of(conn, id_)
    header, data = header_of(path.read_bytes())
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    content = struct.pack("<Q", len(text)) + text + data
    path.write_bytes(content)
    conn.execute(
        "UPDATE llm_checkpoint SET bytes = %s, sha256 = %s WHERE id = %s",
        (len(content), hashlib.sha256(content).hexdigest(), id_),
    )


def set_config(**changes: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        metadata = header["__metadata__"]
        config = json.loads(metadata["config"]) | changes
        metadata["config"] = json.dumps({k: v for k, v in config.items() if v is not ...})

    return change


def set_metadata(**changes: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        metadata = header["__metadata__"] | changes
        header["__metadata__"] = {k: v for k, v in metadata.items() if v is not ...}

    return change


def rename_tensor(old: str, new: str) -> Any:
    def change(header: dict[str, Any]) -> None:
        header[new] = header.pop(old)

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(set_config(model="other"), id="another model's configuration"),
        pytest.param(set_config(model=...), id="no model"),
        pytest.param(set_config(n_head=0), id="a size of none"),
        pytest.param(set_config(n_layer=1), id="fewer layers"),
        pytest.param(set_config(n_layer=10**9), id="a billion layers"),
        pytest.param(set_config(n_layer="many"), id="a size that is no number"),
        pytest.param(set_config(vocab=7), id="another vocabulary"),
        pytest.param(set_config(arch="unheard of"), id="no such architecture"),
        pytest.param(set_config(arch="microgpt"), id="another architecture"),
        pytest.param(set_config(d_model=...), id="a size left out"),
        pytest.param(set_config(layer_norm_eps=-1), id="a negative epsilon"),
        pytest.param(set_config(activation_function="evil"), id="no such activation"),
        pytest.param(set_metadata(config="[]"), id="a list for a configuration"),
        pytest.param(set_metadata(config="{"), id="broken JSON"),
        pytest.param(set_metadata(config=...), id="no configuration"),
        pytest.param(set_metadata(model="other"), id="another model's file"),
        pytest.param(set_metadata(llm_sql="checkpoint 2"), id="another format"),
        pytest.param(set_metadata(llm_sql=...), id="no checkpoint"),
        pytest.param(set_metadata(steps="{}"), id="no steps"),
        pytest.param(set_metadata(steps=...), id="no list of steps"),
        pytest.param(set_metadata(steps='{"wte.weight": "x"}'), id="steps that are no numbers"),
        pytest.param(rename_tensor("wte.weight", "other.weight"), id="an unknown parameter"),
        pytest.param(rename_tensor("wte.weight", "wpe2.weight"), id="a missing parameter"),
        pytest.param(rename_tensor("tokenizer.vocab", "tokenizer.words"), id="no vocabulary"),
        pytest.param(rename_tensor("optimizer.m.wte.weight", "optimizer.m.none"), id="moments of nothing"),
    ],
)
def test_a_file_that_disagrees_with_itself_changes_nothing(conn: Connection, change: Any) -> None:
    for model in ("tiny", "other"):
        make_trainable(conn, model)
    train(conn, "tiny", 2)
    id_ = save(conn)
    rewrite(conn, id_, change)
    state = (
        "SELECT (SELECT jsonb_agg(to_jsonb(c) ORDER BY model) FROM llm_model_config c)::text,"
        " (SELECT count(*) FROM llm_train_log WHERE superseded)"
    )
    before = (conn.execute(state).fetchone(), weights(conn), weights(conn, "other"))
    with pytest.raises(psycopg.Error) as caught:
        load(conn, id_)
    assert str(caught.value.sqlstate) in ("22000", "22023", "23514", "23503", "23502", "54000", "22P02"), (
        caught.value
    )
    assert (conn.execute(state).fetchone(), weights(conn), weights(conn, "other")) == before


# ---- what is swept ----


def test_leftovers_are_swept_and_what_is_being_written_stays(conn: Connection, connect: Any) -> None:
    import fcntl

    make_model(conn)
    kept = save(conn)
    at = folder(conn)
    xid = int(value(conn, "SELECT pg_current_xact_id()::text"))
    left = [
        at / "x.safetensors.30429.tmp",
        at / f"{xid}-00ff-tiny-step0.safetensors.tmp",
        at / f"{xid}-00ff-tiny-step0.safetensors",
        at / "3-00ff-tiny-step0.safetensors",
    ]
    # of transactions to come: somebody moved these here from another server, or will correct their rows
    others = [at / f"{xid + 10**6}-00ff-tiny-step0.safetensors", at / "notes.txt"]
    writing = at / f"{xid + 1}-00aa-tiny-step0.safetensors.tmp"
    for path in (*left, *others, writing):
        path.write_bytes(b"x")
        give_to_server(conn, path)
    with writing.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        save(conn)
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in (*others, writing))
    save(conn)
    assert not writing.exists()
    assert {path.name for path in others} | referenced(conn) == files(conn)
    for path in others:
        path.unlink()
    assert load(conn, kept) == 0


def test_a_row_about_to_be_committed_keeps_its_file(conn: Connection, connect: Any) -> None:
    """Rows that nobody sees yet count: a restore in progress loses nothing to another session's sweep."""
    make_model(conn)
    id_ = save(conn)
    row = conn.execute(
        "DELETE FROM llm_checkpoint WHERE id = %s RETURNING model, step, format, file_path, bytes, sha256",
        (id_,),
    ).fetchone()
    other = connect(autocommit=False)
    again = other.execute(
        "INSERT INTO llm_checkpoint (model, step, format, file_path, bytes, sha256) VALUES (%s, %s, %s,"
        " %s, %s, %s)"
        " RETURNING id",
        row,
    ).fetchone()
    conn.execute("SELECT llm_checkpoint_sweep()")
    other.commit()
    assert again is not None
    assert load(conn, again[0]) == 0


def test_a_deletion_that_is_not_committed_keeps_the_file(conn: Connection, connect: Any) -> None:
    make_model(conn)
    id_ = save(conn)
    other = connect(autocommit=False)
    other.execute("DELETE FROM llm_checkpoint")
    conn.execute("SELECT llm_checkpoint_sweep()")
    other.execute("SELECT llm_checkpoint_sweep()")
    other.rollback()
    assert load(conn, id_) == 0
    # an old snapshot does not bring back what is gone, nor take what is there
    other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT 1 FROM llm_checkpoint")
    newer = save(conn)
    other.execute("SELECT llm_checkpoint_sweep()")
    other.commit()
    assert files(conn) == referenced(conn)
    assert load(conn, newer) == 0


def test_a_row_that_moves_during_a_sweep_keeps_its_file(conn: Connection, connect: Any) -> None:
    """An UPDATE that commits meanwhile may put the row where the scan has been already."""
    make_model(conn)
    id_ = save(conn)
    conn.execute(
        "INSERT INTO llm_checkpoint (model, step, format, file_path, bytes, sha256)"
        " SELECT c.model, c.step, c.format, c.file_path || n, c.bytes, c.sha256"
        " FROM llm_checkpoint c CROSS JOIN generate_series(1, 10000) n"
    )
    other = connect()
    done = threading.Event()

    def move() -> None:
        while not done.is_set():
            for note in ("a", "a longer note"):
                other.execute("UPDATE llm_checkpoint SET note = %s WHERE id = %s", (note, id_))
            other.execute("VACUUM llm_checkpoint")

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(100):
            conn.execute("SELECT llm_checkpoint_sweep()")
    finally:
        done.set()
        mover.join()
    assert load(conn, id_) == 0


def test_files_of_one_transaction(conn: Connection, connect: Any) -> None:
    """Given up in the transaction that saved: gone with its commit; in a savepoint rolled back: there."""
    make_model(conn)
    save(conn)
    before = files(conn)
    other = connect(autocommit=False)
    save(other)
    last = save(other, keep=1)
    assert len(files(conn)) == len(before) + 2
    other.execute("SAVEPOINT s")
    other.execute("DELETE FROM llm_checkpoint")
    other.execute("SELECT llm_checkpoint_sweep()")
    other.execute("ROLLBACK TO s")
    other.commit()
    assert files(conn) == referenced(conn)
    assert load(conn, last) == 0


def test_a_trigger_that_sweeps_before_the_row_is_there(conn: Connection) -> None:
    make_model(conn)
    conn.execute(
        "CREATE FUNCTION sweep_first() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM public.llm_checkpoint_sweep(); RETURN NEW; END $$"
    )
    conn.execute(
        "CREATE TRIGGER sweep_first BEFORE INSERT ON llm_checkpoint FOR EACH ROW EXECUTE FUNCTION"
        " sweep_first()"
    )
    try:
        id_ = save(conn)
        assert load(conn, id_) == 0
    finally:
        conn.execute("DROP FUNCTION sweep_first CASCADE")


def test_names_cannot_be_guessed_nor_taken(conn: Connection) -> None:
    make_model(conn)
    with conn.transaction():
        names = [file_of(conn, save(conn)).name for _ in range(3)]
    assert len({name.split("-")[1] for name in names}) == 3
    assert all(len(name.split("-")[1]) == 16 for name in names)
    # an administrator's file of a given name is not replaced
    where = value(conn, "SELECT pg_llm_checkpoint_name('by-hand.safetensors')")
    query = (
        "SELECT * FROM pg_llm_file_write(%s, 'safetensors', 'SELECT ''a''::text, ''U8''::text, ARRAY[1]"
        " WHERE $1 IS NOT NULL', 'SELECT NULL::tensor, ''\\x07''::bytea WHERE $1 IS NOT NULL', '', '{}',"
        " true)"
    )
    with conn.transaction(force_rollback=True):
        conn.execute(query, (where,))
        with pytest.raises(errors.DuplicateFile), conn.transaction():
            conn.execute(query, (where,))
        assert (folder(conn) / "by-hand.safetensors").exists()
    assert files(conn) == set(names)


def test_permissions_and_umask(conn: Connection) -> None:
    """A checkpoint is the server's, an exported file readable; a failure leaves the umask alone."""
    make_model(conn)
    at = directory(conn)
    for _ in range(2):
        assert file_of(conn, save(conn)).stat().st_mode & 0o777 == 0o600
        assert folder(conn).stat().st_mode & 0o777 == 0o700
        conn.execute("SELECT pg_llm_export_npz(%s, 'tiny')", (str(at / "exported"),))
        assert (at / "exported").stat().st_mode & 0o777 == 0o644
        with pytest.raises(errors.UndefinedFile):
            conn.execute("SELECT pg_llm_export_npz('/nonexistent/x', 'tiny')")
    (at / "exported").unlink()


def test_an_export_takes_the_place_of_what_a_crash_left(conn: Connection) -> None:
    import fcntl

    make_model(conn)
    save(conn)
    target, temporary = directory(conn) / "exported", directory(conn) / "exported.tmp"
    temporary.write_bytes(b"half")
    give_to_server(conn, temporary)
    with temporary.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(errors.DuplicateFile, match="could not create"):
            conn.execute("SELECT pg_llm_export_npz(%s, 'tiny')", (str(target),))
        assert temporary.read_bytes() == b"half"
    conn.execute("SELECT pg_llm_export_npz(%s, 'tiny')", (str(target),))
    assert target.exists()
    assert not temporary.exists()
    temporary.symlink_to("/etc/passwd")
    with pytest.raises(errors.DuplicateFile):
        conn.execute("SELECT pg_llm_export_npz(%s, 'tiny')", (str(target),))
    temporary.unlink()
    target.unlink()
