"""Checkpoint files on the disk: what is taken for one, what is swept, where they are found, whose directories."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from .checkpoints import (
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
from .small_models import make_model, make_names, make_trainable, train, weights
from .tensors import value

Connection = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def only_where_files_can_be_seen(request: pytest.FixtureRequest) -> None:
    if "conn" in request.fixturenames:
        skip_unless_visible(request.getfixturevalue("conn"))


# ---- what is taken for a checkpoint's file ----


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory", "link to a device", "nothing"])
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
    ["a\nb", "1-1/x\n", "../1-1/x", "1-1/../x", "", "/", ".", "\u00e9", "1-1/" + "x" * 300, "pg_llm_checkpoints", "1-1/", "1-1"],
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
    """The checkpoint's file with another header, and a row that agrees with it: what only the server's owner can do."""
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
    assert str(caught.value.sqlstate) in ("22000", "22023", "23514", "23503", "23502", "54000", "22P02"), caught.value
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
        "DELETE FROM llm_checkpoint WHERE id = %s RETURNING model, step, format, file_path, bytes, sha256", (id_,)
    ).fetchone()
    other = connect(autocommit=False)
    again = other.execute(
        "INSERT INTO llm_checkpoint (model, step, format, file_path, bytes, sha256) VALUES (%s, %s, %s, %s, %s, %s)"
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


def test_files_of_one_transaction(conn: Connection, connect: Any) -> None:
    """Saved and given up in one transaction: gone with the commit; given up in a savepoint rolled back: there."""
    make_model(conn)
    other = connect(autocommit=False)
    save(other)
    last = save(other, keep=1)
    assert len(files(conn)) == 2
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
        " $$ BEGIN PERFORM llm_checkpoint_sweep(); RETURN NEW; END $$"
    )
    conn.execute("CREATE TRIGGER sweep_first BEFORE INSERT ON llm_checkpoint FOR EACH ROW EXECUTE FUNCTION sweep_first()")
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
        " WHERE $1 IS NOT NULL', 'SELECT NULL::tensor, ''\\x07''::bytea WHERE $1 IS NOT NULL', '', '{}', true)"
    )
    with conn.transaction(force_rollback=True):
        conn.execute(query, (where,))
        with pytest.raises(errors.DuplicateFile), conn.transaction():
            conn.execute(query, (where,))
        assert (folder(conn) / "by-hand.safetensors").exists()
    assert files(conn) == set(names)


def test_permissions_and_umask(conn: Connection) -> None:
    """A checkpoint is the server's; an exported file is readable; failing to create one leaves the umask alone."""
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


# ---- directories ----


@pytest.fixture
def elsewhere(conn: Connection) -> Iterator[Path]:
    """Another directory for checkpoints, which the server can make."""
    path = directory(conn).parent / "pg_llm_elsewhere"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_changed_directory_loses_nothing(conn: Connection, elsewhere: Path) -> None:
    """Files are found, and go with their rows, in the directory they were written to."""
    make_trainable(conn)
    train(conn, n_steps=2)
    before = weights(conn)
    old, gone = save(conn), save(conn)
    first = folder(conn)
    conn.execute(f"SET pg_llm.checkpoint_dir = '{elsewhere}'")
    train(conn, n_steps=1)
    assert load(conn, old) == 2
    assert weights(conn) == before
    new = save(conn, keep=2)
    assert (elsewhere / first.name).is_dir()
    assert {p.name for p in first.iterdir()} | files(conn) == referenced(conn)
    assert value(conn, "SELECT array_agg(id ORDER BY id) FROM llm_checkpoint") == [gone, new]
    conn.execute("RESET pg_llm.checkpoint_dir")
    assert load(conn, new) == 2
    save(conn, keep=1)
    assert list((elsewhere / first.name).iterdir()) == []
    # a directory that is gone hides nothing
    shutil.rmtree(elsewhere)
    assert load(conn, save(conn, keep=1)) == 2


@pytest.mark.parametrize(
    "path",
    ["", "base", "base/5", "global", "pg_wal", "pg_wal/x", ".", "a\nb", "x" * 2000, "pg_llm_checkpoints/6543210987654321098-5"],
)
def test_directories_that_are_refused(conn: Connection, path: str) -> None:
    data = value(conn, "SHOW data_directory")
    for spelt in (path, f"{data}/{path}" if "\n" not in path and path != "x" * 2000 else path):
        with pytest.raises(errors.InvalidParameterValue):
            conn.execute("SELECT set_config('pg_llm.checkpoint_dir', %s, false)", (spelt,))
    assert value(conn, "SHOW pg_llm.checkpoint_dir") == "pg_llm_checkpoints"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/nonexistent/deeper", errors.UndefinedFile),
        ("/proc/llm_sql", errors.UndefinedFile),
        ("/etc/passwd", psycopg.Error),
        ("/etc/passwd/x", psycopg.Error),
        ("/usr/llm_sql_checkpoints", errors.InsufficientPrivilege),
    ],
)
def test_directories_that_cannot_be_written(conn: Connection, path: str, error: type[Exception]) -> None:
    make_model(conn)
    kept = save(conn)
    conn.execute("SELECT set_config('pg_llm.checkpoint_dir', %s, false)", (path,))
    with pytest.raises(error) as caught:
        save(conn)
    assert isinstance(caught.value, psycopg.Error)
    assert str(caught.value.sqlstate)[:2] in ("58", "42"), caught.value
    assert load(conn, kept) == 0 if path.startswith("/nonexistent") else True


def test_folders_of_dropped_databases(conn: Connection, server: Any, template: str) -> None:
    make_model(conn)
    kept = save(conn)
    other = server.create_database(template)
    with psycopg.connect(server.url(other), autocommit=True) as theirs:
        make_model(theirs)
        save(theirs)
        save(theirs)
        orphan = folder(theirs)
        size = sum(path.stat().st_size for path in orphan.iterdir())
        assert str(orphan) not in str(conn.execute("SELECT folder FROM llm_checkpoint_orphans()").fetchall())
    server.drop_database(other)
    relative = f"{value(conn, 'SHOW pg_llm.checkpoint_dir')}/{orphan.name}"
    found = conn.execute("SELECT folder, files, bytes FROM llm_checkpoint_orphans() WHERE folder = %s", (relative,))
    assert found.fetchall() == [(relative, 2, size)]
    assert orphan.exists()
    removed = {row[0] for row in conn.execute("SELECT folder FROM llm_checkpoint_orphans(remove => true)")}
    assert relative in removed
    assert not orphan.exists()
    assert value(conn, "SELECT count(*) FROM llm_checkpoint_orphans()") == 0
    assert load(conn, kept) == 0


def test_rows_from_another_database_say_where_files_go(conn: Connection) -> None:
    """A clone, a dump, pg_upgrade: 58P01, and after what the hint says the checkpoint loads."""
    make_trainable(conn)
    train(conn, n_steps=2)
    before = weights(conn)
    id_ = save(conn)
    path = file_of(conn, id_)
    foreign = path.parent.with_name("6543210987654321098-4711")
    conn.execute(
        "UPDATE llm_checkpoint SET file_path = %s || '/' || split_part(file_path, '/', 2) WHERE id = %s",
        (foreign.name, id_),
    )
    foreign.mkdir()
    moved = path.rename(foreign / path.name)
    with pytest.raises(errors.UndefinedFile) as caught:
        load(conn, id_)
    assert "not on this server" in str(caught.value)
    assert path.parent.name in str(caught.value.diag.message_hint)
    assert "pg_upgrade" in str(caught.value.diag.message_hint)
    # first the rows, then the files: a save in between sweeps nothing
    conn.execute(
        "UPDATE llm_checkpoint SET file_path = pg_llm_checkpoint_name(split_part(file_path, '/', 2)) WHERE file_path LIKE %s",
        (f"{foreign.name}/%",),
    )
    moved.rename(path)
    foreign.rmdir()
    save(conn)
    conn.execute("SELECT llm_init_model('tiny', 5)")
    assert load(conn, id_) == 2
    assert weights(conn) == before


# ---- settings, encodings, transactions ----

SETTINGS = (
    "extra_float_digits = -15",
    "extra_float_digits = 0",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kathmandu'",
    "bytea_output = escape",
    "standard_conforming_strings = off",
    "client_encoding = LATIN1",
    "search_path = ''",
    "search_path = 'app', 'pg_catalog'",
    "quote_all_identifiers = on",
    "xmloption = document",
    "default_transaction_isolation = 'serializable'",
    "array_nulls = off",
    "lc_numeric = 'C'",
    "enable_seqscan = off",
    "debug_parallel_query = on",
    "plpgsql.variable_conflict = use_column",
    "row_security = off",
)


def test_no_setting_changes_what_a_checkpoint_holds(conn: Connection, connect: Any) -> None:
    make_names(conn)
    train(conn, "names", 2, lr_max=0.01)
    conn.execute("UPDATE llm_model_config SET layer_norm_eps = 1.2345678901234567e-5 WHERE model = 'names'")
    conn.execute("UPDATE llm_bpe_vocab SET score = 0.1::float8 + 0.2::float8 + token_id WHERE model = 'names'")
    conn.execute("CREATE SCHEMA app")
    conn.execute(
        "CREATE FUNCTION app.wrong(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
        "CREATE FUNCTION app.wrong(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR app.= (LEFTARG = int, RIGHTARG = int, FUNCTION = app.wrong);"
        "CREATE OPERATOR app.= (LEFTARG = text, RIGHTARG = text, FUNCTION = app.wrong);"
        "CREATE FUNCTION app.shape(tensor) RETURNS int[] LANGUAGE sql AS 'SELECT ARRAY[1]'"
    )
    config = "SELECT float8send(layer_norm_eps) FROM public.llm_model_config WHERE model = 'names'"
    scores = "SELECT array_agg(float8send(score) ORDER BY token_id) FROM public.llm_bpe_vocab WHERE model = 'names'"
    expected = (value(conn, config), value(conn, scores), weights(conn, "names"))
    first = save(conn, "names")
    content = file_of(conn, first).read_bytes()
    try:
        for setting in SETTINGS:
            with contextlib.closing(connect()) as other:
                other.execute(f"SET {setting}")
                id_ = save(other, "names", "caf\u00e9")
                assert file_of(conn, id_).read_bytes() == content, setting
                other.execute("UPDATE public.llm_model_config SET layer_norm_eps = 1 WHERE model OPERATOR(pg_catalog.=) 'names'")
                other.execute("DELETE FROM public.llm_bpe_vocab")
                load(other, id_, "names")
            assert (value(conn, config), value(conn, scores), weights(conn, "names")) == expected, setting
            assert value(conn, "SELECT note FROM llm_checkpoint WHERE id = %s", (id_,)) == "caf\u00e9"
    finally:
        conn.execute("DROP SCHEMA app CASCADE")


def test_where_nothing_can_be_written(conn: Connection) -> None:
    make_model(conn)
    id_ = save(conn)
    for call in (
        "llm_checkpoint_save('tiny')",
        f"llm_checkpoint_load('tiny', {id_})",
        "llm_checkpoint_sweep()",
        "llm_checkpoint_orphans(true)",
        "pg_llm_checkpoint_write('tiny')",
    ):
        with conn.transaction(force_rollback=True):
            conn.execute("SET TRANSACTION READ ONLY")
            with pytest.raises(errors.ReadOnlySqlTransaction) as caught, conn.transaction():
                conn.execute(f"SELECT {call}")
            assert "xact" not in str(caught.value)
    assert len(files(conn)) == 1
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        assert value(conn, "SELECT (llm_checkpoint_verify('tiny', %s)).id", (id_,)) == id_


# An argument that each takes for itself, by name
FITTING = {
    "model": "'tiny'",
    "id": "(SELECT max(id) FROM llm_checkpoint)",
    "path": "'/nonexistent/x'",
    "name": "'wte.weight'",
    "key": "'model'",
    "keep": "1",
    "format": "'npz'",
    "formats": "'{npz}'",
    "tensors": "'[]'",
    "data": "'SELECT 1'",
    "argument": "''",
    "metadata": "'{}'",
    "checkpoint": "false",
    "max_bytes": "1000",
    "first_row": "0",
    "rows": "-1",
    "tied": "true",
    "shape": "'{2,2}'",
    "sources": "'{a}'",
    "how": "'same'",
    "n_head": "2",
    "vocab": "13",
    "n_sources": "1",
    "gzip": "false",
    "file": "'x'",
    "remove": "false",
    "action": "'save'",
    "config": "llm_config('tiny')",
}
OPTIONAL = {"note", "keep", "megatron_version"}


def test_null_arguments_are_named(conn: Connection) -> None:
    """Every function of files and checkpoints, every argument: NULL gives NULL or an error that names the argument."""
    make_model(conn)
    save(conn)
    functions = conn.execute(
        "SELECT proname, coalesce(proargnames[:pronargs], '{}'), proargtypes::regtype[]::text[] FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' AND (proname ~"
        " '^(llm|pg_llm)_(checkpoint|import|export|file)' OR proname IN ('llm_parts', 'llm_elements'))"
    ).fetchall()
    assert len(functions) > 40
    for name, arguments, types in functions:
        for argument in arguments:
            given = [
                f"NULL::{type_}" if a == argument or a in OPTIONAL else
                ("'[[1]]'" if type_ == "tensor" else FITTING[a])
                for a, type_ in zip(arguments, types, strict=True)
            ]
            with conn.transaction(force_rollback=True):
                try:
                    with conn.transaction():
                        conn.execute(f"SELECT {name}({', '.join(given)})")
                except psycopg.Error as error:
                    if argument in OPTIONAL:
                        continue
                    told = str(error)
                    assert error.sqlstate in ("22004", "22023", "42704"), (name, argument, told)
                    assert argument in told or (argument == "id" and "checkpoint NULL" in told), (name, argument, told)
