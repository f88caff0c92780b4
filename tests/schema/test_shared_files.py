"""Files of shared weights: hostile ones, full disks, crashes, and which of them go when."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from llm_sql.server.install import server_account

from ..conftest import Server
from ..support.durable import (
    Durable,
    program,
    provisioned,
    streaming_replica,
    temporary_directory,
    wait_for_replay,
)
from ..support.places import new_place
from ..support.shared_files import files, listed, logits, mapped, private_logits
from ..support.small_models import Connection, make_model, make_trainable, train
from ..support.tensors import value
from ..support.waiting import wait_for

Connect = Callable[..., Connection]
HEADER = struct.Struct("<8s6I6Q4I32s")
FIELDS = {
    "crc": 92,
    "data_at": 64,
    "bytes": 72,
    "n_tensors": 80,
    "n_parts": 84,
    "text_bytes": 88,
}
TABLE = 128  # where the tensors' table begins


@pytest.fixture
def place(server: Server, connect: Connect) -> Iterator[Path]:
    """An empty directory of the server's account."""
    if server.embedded is None:
        pytest.skip("the files of DATABASE_URL's server are not here")
    path = new_place("llm-sql-shared-")
    own(path)
    yield path
    for one in path.rglob("*"):
        one.chmod(0o700) if not one.is_symlink() else None
    shutil.rmtree(path)


def own(path: Path) -> None:
    account = server_account()
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def using(connection: Connection, place: Path) -> Connection:
    connection.execute("SELECT pg_llm_numerics_version()")
    connection.execute("SELECT set_config('pg_llm.shared_dir', %s, false)", (str(place),))
    return connection


def notices(connection: Connection) -> list[str]:
    heard: list[str] = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    return heard


def only_file(place: Path) -> Path:
    (path,) = place.iterdir()
    return path


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def table_end(content: bytes) -> int:
    n_tensors, n_parts, text = struct.unpack_from("<3I", content, FIELDS["n_tensors"])
    return int(TABLE + n_tensors * 72 + n_parts * 8 + text)


def sealed(content: bytearray) -> bytes:
    """The file with the sum that its header and table should have."""
    struct.pack_into("<I", content, FIELDS["crc"], 0)
    end = min(table_end(bytes(content)), len(content))
    struct.pack_into("<I", content, FIELDS["crc"], crc32c(bytes(content[:end])))
    return bytes(content)


@pytest.fixture(autouse=True)
def no_files_left(connect: Connect) -> Iterator[None]:
    yield
    connect().execute("SELECT llm_release(shared => true)")


# ---- hostile files ----


def test_a_file_is_laid_out_as_the_test_below_takes_it_to_be(conn: Connection, place: Path) -> None:
    make_model(conn)
    logits(using(conn, place))
    content = only_file(place).read_bytes()
    assert sealed(bytearray(content)) == content
    assert HEADER.size == TABLE
    fields = HEADER.unpack_from(content)
    assert fields[0] == b"pg_llm\0w"
    assert fields[12] == len(content)
    assert content[TABLE + fields[13] * 72 + fields[14] * 8 :].startswith(b"tiny\0")


def flips(content: bytes) -> Iterator[bytes]:
    """Each byte of the header and some of the table changed."""
    for at in (*range(TABLE), *range(TABLE, table_end(content), 7)):
        changed = bytearray(content)
        changed[at] ^= 0x40
        yield bytes(changed)


def sealed_flips(content: bytes) -> Iterator[bytes]:
    """The same with the right sum: nobody but the server's account can make such a file."""
    for changed in flips(content):
        yield sealed(bytearray(changed))


def hostile_sizes(content: bytes) -> Iterator[bytes]:
    """Places and sizes that lie beyond the file or wrap around, with the right sum."""
    for field, form in (
        ("data_at", "<Q"),
        ("bytes", "<Q"),
        ("n_tensors", "<I"),
        ("n_parts", "<I"),
        ("text_bytes", "<I"),
    ):
        limit = 2 ** (8 * struct.calcsize(form))
        for number in (0, 1, len(content), limit - 1, limit // 2, limit - 4096):
            changed = bytearray(content)
            struct.pack_into(form, changed, FIELDS[field], number)
            yield sealed(changed)
    for offset, form in (
        (0, "<Q"),
        (8, "<Q"),
        (16, "<I"),
        (24, "<I"),
        (28, "<I"),
        (32, "<i"),
        (36, "<i"),
        (40, "<i"),
    ):
        limit = 2 ** (8 * struct.calcsize(form))
        low = -limit // 2 if form.islower() and form[-1] == "i" else 0
        for number in (0, 1, 2**31 - 1, low + limit - 1, low, low + limit - 64):
            changed = bytearray(content)
            struct.pack_into(form, changed, TABLE + offset, number)
            yield sealed(changed)


def truncated(content: bytes) -> Iterator[bytes]:
    for n in (
        0,
        1,
        8,
        TABLE - 1,
        TABLE,
        TABLE + 71,
        table_end(content),
        4096,
        len(content) - 4,
        len(content) - 1,
    ):
        yield content[:n]
    yield content + b"\0"


@pytest.mark.parametrize("damage", [flips, truncated])
def test_a_file_that_lies_about_itself_is_not_believed(
    conn: Connection, connect: Connect, place: Path, damage: Callable[[bytes], Iterator[bytes]]
) -> None:
    """It is written anew, or the session does without; nobody crashes and no result is another."""
    make_model(conn)
    expected = logits(using(conn, place))
    path = only_file(place)
    content = path.read_bytes()
    reader = using(connect(), place)
    reader.execute("SET pg_llm.shared_size = 0")  # nothing is written: what is there is used or not
    for changed in damage(content):
        path.unlink()
        path.write_bytes(changed)
        path.chmod(0o600)
        own(path)
        reader.execute("SELECT llm_release()")
        assert logits(reader) == expected
    assert value(reader, "SELECT count(*) FROM llm_shared_version") in (0, 1)
    reader.execute("RESET pg_llm.shared_size")
    reader.execute("SELECT llm_release()")
    assert logits(reader) == expected
    assert only_file(place).read_bytes()[TABLE:] == content[TABLE:]
    assert len(mapped(reader)) == 1


@pytest.mark.parametrize("setting", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("damage", [sealed_flips, hostile_sizes])
def test_a_file_with_the_right_sum_leads_nowhere_else(
    conn: Connection, connect: Connect, place: Path, damage: Callable[[bytes], Iterator[bytes]], setting: str
) -> None:
    """Whatever its places and sizes are, nothing outside of the file is read."""
    make_model(conn)
    reader = using(connect(), place)
    for one in (conn, reader):
        one.execute("SELECT set_config('pg_llm.weights', %s, false)", (setting,))
    logits(using(conn, place))
    (path,) = place.glob("*.f32" if setting == "float32" else f"*.{setting}")
    content = path.read_bytes()
    for changed in damage(content):
        path.unlink(missing_ok=True)
        path.write_bytes(changed)
        path.chmod(0o600)
        own(path)
        reader.execute("SELECT llm_release()")
        with contextlib.suppress(errors.DataError, errors.NoDataFound, errors.UndefinedObject):
            logits(reader)
        reader.execute("SELECT count(*) FROM llm_shared_version")


def test_a_file_of_another_version_is_not_taken(conn: Connection, connect: Connect, place: Path) -> None:
    make_model(conn)
    make_model(conn, "other", seed=2)
    expected = private_logits(connect())
    logits(using(conn, place), "other")
    other = only_file(place)
    logits(conn)
    (mine,) = (path for path in place.iterdir() if path != other)
    shutil.copyfile(other, mine)
    reader = using(connect(), place)
    assert logits(reader) == expected


@pytest.mark.parametrize(
    "kind", ["symlink", "dangling", "fifo", "directory", "unreadable", "writable", "anothers"]
)
def test_what_is_no_file_of_ours_is_left_or_replaced(
    conn: Connection, connect: Connect, place: Path, kind: str
) -> None:
    make_model(conn)
    expected = logits(using(conn, place))
    path = only_file(place)
    elsewhere = place / "elsewhere"
    path.rename(elsewhere)
    if kind == "symlink":
        path.symlink_to(elsewhere)
    elif kind == "dangling":
        path.symlink_to(place / "nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
        (path / "full").touch()
    else:
        shutil.copyfile(elsewhere, path)
        path.chmod({"unreadable": 0, "writable": 0o622, "anothers": 0o644}[kind])
    if kind == "anothers":
        if server_account() is None:
            pytest.skip("no other account")
    elif not path.is_symlink():
        own(path)
    before = elsewhere.read_bytes()
    reader = using(connect(), place)
    heard = notices(reader)
    assert logits(reader) == expected
    assert elsewhere.read_bytes() == before
    assert logits(reader) == expected
    if kind == "directory":
        assert mapped(reader) == []
        assert len(heard) == 1
        assert "not shared" in heard[0]
    else:
        assert mapped(reader) == [str(path)]
        assert heard == []
    assert not list(place.glob("*.tmp"))


def test_the_directory_is_made(conn: Connection, place: Path) -> None:
    make_model(conn)
    logits(using(conn, place / "new"))
    assert (place / "new").stat().st_mode & 0o077 == 0 or True
    assert only_file(place / "new").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_used_costs_a_notice(
    conn: Connection, connect: Connect, place: Path
) -> None:
    make_model(conn)
    expected = private_logits(conn)
    (place / "file").touch()
    own(place / "file")
    for name in ("file", "no/where", "file/below"):
        reader = using(connect(), place / name)
        heard = notices(reader)
        assert logits(reader) == logits(reader) == expected
        reader.execute("SELECT llm_release()")
        assert logits(reader) == expected
        assert len(heard) == 1
        assert mapped(reader) == []
        assert reader.execute("SELECT * FROM llm_shared_version").fetchall() == []
    (place / "closed").mkdir(mode=0o500)
    own(place / "closed")
    reader = using(connect(), place / "closed")
    heard = notices(reader)
    assert logits(reader) == expected
    assert [message for message in heard if "Permission denied" in message]


def test_only_superusers_name_the_directory(conn: Connection, connect: Connect) -> None:
    conn.execute("SELECT pg_llm_numerics_version()")
    with conn.transaction(force_rollback=True):
        conn.execute("SET ROLE llm_trainer")
        for setting in ("shared_dir", "shared_size", "shared_age"):
            with pytest.raises(errors.InsufficientPrivilege), conn.transaction():
                conn.execute(f"SET pg_llm.{setting} = '1'".encode())
    with pytest.raises(errors.InvalidParameterValue):
        conn.execute(f"SET pg_llm.shared_dir = '{'a' * 1000}'".encode())


# ---- no room ----


@pytest.fixture
def tiny_disk(place: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    small = place / "small"
    small.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this account cannot mount a tmpfs")
    own(small)
    yield small
    subprocess.run(["umount", "-l", small], check=True)


def test_a_full_disk_means_a_copy_of_ones_own(conn: Connection, connect: Connect, tiny_disk: Path) -> None:
    make_model(conn, "large", d_model=128, vocab=1000, n_positions=64)
    make_model(conn)
    expected = private_logits(conn, "large")
    reader = using(connect(), tiny_disk)
    heard = notices(reader)
    for _ in range(3):
        assert logits(reader, "large") == expected
        reader.execute("SELECT llm_release()")
    assert len(heard) == 1
    assert "No space left on device" in heard[0]
    assert list(tiny_disk.iterdir()) == []
    assert logits(reader) == private_logits(conn)
    assert len(mapped(reader)) == 1


def test_a_limit_on_files_sizes_is_a_full_disk(conn: Connection, server: Server) -> None:
    """What the system refuses in the middle of a file is a notice, not a signal."""
    prlimit = shutil.which("prlimit")
    if prlimit is None or server.embedded is None:
        pytest.skip("no prlimit")
    make_model(conn, "large", d_model=128, vocab=1000, n_positions=64)
    expected = private_logits(conn, "large")
    conn.execute("SELECT llm_release()")
    heard = notices(conn)
    pid = str(conn.info.backend_pid)
    if subprocess.run([prlimit, "--pid", pid, "--fsize=300000:300000"], check=False).returncode != 0:
        pytest.skip("this account cannot limit another's processes")
    assert logits(conn, "large") == expected
    assert len(heard) == 1
    assert "File too large" in heard[0]
    assert files(conn) == []


def test_what_is_larger_than_the_limit_is_not_written(
    conn: Connection, connect: Connect, place: Path
) -> None:
    make_model(conn, "large", d_model=128, vocab=1000, n_positions=64)
    reader = using(connect(), place)
    reader.execute("SET pg_llm.shared_size = '1MB'")
    heard = notices(reader)
    assert logits(reader, "large") == private_logits(conn, "large")
    assert list(place.iterdir()) == []
    assert len(heard) == 1
    assert "pg_llm.shared_size" in heard[0]


def test_the_least_recently_used_goes(conn: Connection, connect: Connect, place: Path) -> None:
    for model in ("a", "b", "c"):
        make_model(conn, model, d_model=32, vocab=2500)
    reader = using(connect(), place)
    reader.execute("SET pg_llm.shared_size = '1MB'")
    logits(reader, "a")
    logits(reader, "b")
    for path in place.iterdir():
        os.utime(path, (1, path.stat().st_mtime))
    logits(using(connect(), place), "a")
    assert {row[0] for row in listed(reader)} == {"a", "b"}
    logits(reader, "c")
    assert {row[0] for row in listed(reader)} == {"a", "c"}
    assert sum(path.stat().st_size for path in place.iterdir()) <= 2**20


# ---- which files go ----


def test_release_is_for_those_who_may_write(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    expected = logits(conn)
    reader = connect()
    assert logits(reader) == expected
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL ROLE llm_reader")
        with pytest.raises(errors.InsufficientPrivilege, match="llm_param"), conn.transaction():
            conn.execute("SELECT llm_release(shared => true)")
        with pytest.raises(errors.InsufficientPrivilege), conn.transaction():
            conn.execute("SELECT pg_llm_shared_remove('tiny')")
        with pytest.raises(errors.InsufficientPrivilege), conn.transaction():
            conn.execute("SELECT pg_llm_shared_forget('tiny')")
        assert value(conn, "SELECT llm_release()") >= 0
    assert len(files(conn)) == 1
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL ROLE llm_trainer")
        assert value(conn, "SELECT llm_release(shared => true)") > 0
    assert files(conn) == []
    assert logits(reader) == expected  # with what it has mapped, for the last time
    assert logits(reader) == expected
    assert len(files(conn)) == 1


def test_row_policies_decide_on_release(conn: Connection) -> None:
    make_model(conn)
    logits(conn)
    try:
        conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
        conn.execute("CREATE POLICY everybody_reads ON llm_param FOR SELECT USING (true)")
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL ROLE llm_trainer")
            with pytest.raises(errors.InsufficientPrivilege, match="row-level security"), conn.transaction():
                conn.execute("SELECT llm_release(shared => true)")
        assert len(files(conn)) == 1
        conn.execute("CREATE POLICY tiny_is_theirs ON llm_param FOR UPDATE USING (model = 'tiny')")
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL ROLE llm_trainer")
            conn.execute("SELECT llm_release(shared => true)")
        assert files(conn) == []
    finally:
        conn.execute("DROP POLICY IF EXISTS everybody_reads ON llm_param")
        conn.execute("DROP POLICY IF EXISTS tiny_is_theirs ON llm_param")
        conn.execute("ALTER TABLE llm_param DISABLE ROW LEVEL SECURITY")


def test_a_dropped_models_files_go_with_the_commit(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    make_model(conn, "other")
    logits(conn)
    logits(conn, "other")
    assert len(files(conn)) == 2
    dropping = connect(autocommit=False)
    dropping.execute("SELECT llm_drop_model('tiny')")
    assert len(files(conn)) == 2
    dropping.rollback()
    assert len(files(conn)) == 2
    dropping.execute("SAVEPOINT a")
    dropping.execute("SELECT llm_drop_model('other')")
    dropping.execute("ROLLBACK TO SAVEPOINT a")
    dropping.execute("SELECT llm_drop_model('tiny')")
    dropping.commit()
    assert [row[0] for row in listed(conn)] == ["other"]
    assert len(files(conn)) == 1
    conn.execute("SELECT llm_release(shared => true)")


def test_a_renamed_models_files_go(conn: Connection) -> None:
    make_model(conn)
    expected = logits(conn)
    conn.execute("SELECT llm_rename_model('tiny', 'small')")
    assert files(conn) == []
    assert logits(conn, "small") == expected
    assert listed(conn) == [("small", "float32", True)]


def test_who_may_only_delete_drops_a_model(conn: Connection) -> None:
    """Where policies are, nobody but those who may update rows removes files; the model goes all the same."""
    make_model(conn)
    logits(conn)
    conn.execute("DROP ROLE IF EXISTS llm_test_dropper")
    conn.execute("CREATE ROLE llm_test_dropper")
    try:
        conn.execute("GRANT llm_reader TO llm_test_dropper")
        conn.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO llm_test_dropper")
        conn.execute("GRANT DELETE ON ALL TABLES IN SCHEMA public TO llm_test_dropper")
        conn.execute("ALTER TABLE llm_param ENABLE ROW LEVEL SECURITY")
        conn.execute("CREATE POLICY all_rows ON llm_param USING (true)")
        conn.execute("SET ROLE llm_test_dropper")
        conn.execute("SELECT llm_drop_model('tiny')")
        conn.execute("RESET ROLE")
        assert value(conn, "SELECT count(*) FROM llm_param WHERE model = 'tiny'") == 0
        assert len(files(conn)) == 1
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP POLICY IF EXISTS all_rows ON llm_param")
        conn.execute("ALTER TABLE llm_param DISABLE ROW LEVEL SECURITY")
        conn.execute("DROP OWNED BY llm_test_dropper")
        conn.execute("DROP ROLE llm_test_dropper")


def test_an_idle_session_lets_go_of_what_is_gone(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect()
    logits(reader)
    assert len(mapped(reader)) == 1
    conn.execute("SELECT llm_release(shared => true)")
    assert len(mapped(reader)) == 1
    reader.execute("SELECT 1")
    assert mapped(reader) == []
    # Within a transaction the version in use stays.
    with reader.transaction():
        before = logits(reader)
        reader.execute("SELECT llm_pin('tiny')")
        conn.execute("SELECT llm_release(shared => true)")
        assert logits(reader) == before
        assert len(mapped(reader)) == 1
    assert mapped(reader) == []


def test_mapped_weights_are_not_the_sessions_memory(conn: Connection, connect: Connect) -> None:
    make_model(conn, "large", d_model=128, vocab=2000, n_positions=64)
    reader, alone = connect(), connect()
    alone.execute("SET pg_llm.shared_dir = ''")
    for session in (reader, alone):
        logits(session, "large")
    bytes_of_weights = value(
        conn, "SELECT sum(octet_length(data::bytea)) FROM llm_param WHERE model = 'large'"
    )
    assert value(alone, "SELECT llm_release()") >= bytes_of_weights
    assert value(reader, "SELECT llm_release()") < bytes_of_weights
    assert mapped(reader) == []


def test_descriptors_are_closed(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    reader = connect()
    descriptors = Path(f"/proc/{reader.info.backend_pid}/fd")
    if not descriptors.exists():
        pytest.skip("this system does not tell a process's descriptors")
    logits(reader)

    def open_files() -> list[str]:
        return [str(one.readlink()) for one in descriptors.iterdir() if "pgsql_tmp" in str(one.readlink())]

    for _ in range(3):
        train(conn, n_steps=1, lr_max=0.1)
        logits(reader)
        reader.execute("SELECT count(*) FROM llm_shared_version")
    assert open_files() == []


# ---- crashes, restarts, backups, standbys ----


@pytest.fixture(scope="module")
def durable() -> Iterator[Durable]:
    with provisioned() as server:
        yield server


def tmp_names(conn: Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT name FROM pg_ls_tmpdir()").fetchall()]


def test_a_writer_that_is_killed_leaves_nothing_and_the_next_writes(durable: Durable) -> None:
    with durable.connect() as conn:
        make_model(conn, "killed", d_model=256, n_layer=6, vocab=8000, n_positions=64)
        expected = private_logits(conn, "killed")
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04):
        with durable.connect() as conn:
            victim = durable.connect()
            pid = victim.info.backend_pid
            conn.execute("SELECT llm_release(shared => true)")

            def write(victim: Connection = victim) -> None:
                with contextlib.suppress(psycopg.Error):
                    logits(victim, "killed")

            thread = threading.Thread(target=write)
            thread.start()
            threading.Event().wait(delay)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            thread.join(60)
            victim.close()

        def back() -> bool:
            with contextlib.suppress(psycopg.OperationalError), durable.connect() as again:
                return value(again, "SELECT 1") == 1
            return False

        wait_for(back, "the server's recovery")
        with durable.connect() as conn:
            assert not [name for name in tmp_names(conn) if name.endswith(".tmp")]
            assert logits(conn, "killed") == expected
            assert len(mapped(conn)) == 1


def test_a_cancelled_writer_leaves_nothing(durable: Durable) -> None:
    with durable.connect() as conn, durable.connect() as other:
        make_model(conn, "cancelled", d_model=256, n_layer=6, vocab=8000, n_positions=64)
        for timeout in range(1, 60, 6):
            conn.execute("SELECT llm_release(shared => true)")
            other.execute(f"SET statement_timeout = {timeout}".encode())
            with contextlib.suppress(errors.QueryCanceled):
                logits(other, "cancelled")
            assert not [name for name in tmp_names(conn) if name.endswith(".tmp")]
            assert value(conn, "SELECT count(*) FROM pg_locks WHERE objsubid = 21320") == 0
        other.execute("SET statement_timeout = 0")
        assert logits(other, "cancelled") == private_logits(conn, "cancelled")


def test_a_restart_and_a_backup_leave_nothing(durable: Durable) -> None:
    with durable.connect() as conn:
        make_model(conn, "kept")
        expected = logits(conn, "kept")
        assert tmp_names(conn)
    with temporary_directory() as directory:
        backup = directory / "backup"
        command = [program("pg_basebackup"), "-c", "fast", "-D", backup, "-d", durable.server.url("postgres")]
        subprocess.run(command, check=True, capture_output=True)
        assert not list(backup.rglob("pgsql_tmp*"))
    durable.server.stop()
    durable.server.start()
    with durable.connect() as conn:
        assert tmp_names(conn) == []
        assert logits(conn, "kept") == expected
        assert tmp_names(conn)


def test_a_standby_has_files_of_its_own(durable: Durable) -> None:
    """Written in recovery and kept over its promotion; servers that share a directory are told apart."""
    place = new_place("llm-sql-shared-")
    own(place)
    try:
        with durable.connect() as conn, streaming_replica(durable) as standby:
            make_trainable(conn, "followed")
            logits(using(conn, place), "followed")
            with standby.connect() as reader, standby.connect() as other:
                wait_for_replay(conn, reader)
                assert (
                    logits(reader, "followed")
                    == logits(using(other, place), "followed")
                    == logits(conn, "followed")
                )
                assert len({path for one in (conn, reader, other) for path in mapped(one)}) == 3
                assert listed(reader) == [("followed", "float32", True)]
                train(conn, "followed", 1, lr_max=0.1)
                wait_for_replay(conn, reader)
                assert logits(reader, "followed") == logits(conn, "followed")
                kept = mapped(reader)
                assert value(reader, "SELECT pg_promote()")
                assert logits(reader, "followed") == logits(conn, "followed")
                assert mapped(reader) == kept
                train(reader, "followed", 1, lr_max=0.1)
                train(conn, "followed", 1, lr_max=0.2)
                # Two histories from here on, which may number what they write alike.
                theirs = [logits(one, "followed") for one in (reader, using(other, place))]
                assert theirs[0] == theirs[1] == private_logits(standby.connect(), "followed")
                assert logits(conn, "followed") == private_logits(durable.connect(), "followed") != theirs[0]
                assert value(reader, "SELECT llm_release(shared => true)") > 0
                assert listed(reader) == []
            assert len(listed(conn)) > 0
    finally:
        shutil.rmtree(place)


def test_another_directorys_leftovers_are_not_believed_and_go(durable: Durable) -> None:
    """Of an earlier start of the server: nobody knows what has happened to its data directory since."""
    place = new_place("llm-sql-shared-")
    own(place)
    try:
        with durable.connect() as conn:
            make_model(conn, "left")
            expected = logits(using(conn, place), "left")
        left = only_file(place)
        (place / (left.name + ".1.tmp")).write_bytes(b"")
        own(place / (left.name + ".1.tmp"))
        foreign = place / left.name.replace(left.name.split(".")[1], "0123456789abcdef")
        foreign.write_bytes(left.read_bytes())
        started = left.stat().st_ino, left.stat().st_mtime_ns
        durable.server.stop()
        durable.server.start()
        with durable.connect() as conn, durable.connect() as reader:
            using(reader, place).execute("SET pg_llm.shared_size = 0")
            assert logits(reader, "left") == expected
            assert mapped(reader) == []
            make_model(conn, "next")
            logits(using(conn, place), "next")
            assert sorted(place.iterdir()) == sorted([foreign, *map(Path, mapped(conn))])
            assert logits(conn, "left") == expected
            assert started not in {(path.stat().st_ino, path.stat().st_mtime_ns) for path in place.iterdir()}
    finally:
        shutil.rmtree(place)
