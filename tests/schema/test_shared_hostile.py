"""Files of shared weights that are not what they say, or where nothing can be written."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg import errors

from llm_sql.server.install import server_account

from ..conftest import Server
from ..support.places import new_place
from ..support.shared_files import (
    files,
    listed,
    logits,
    mapped,
    notices,
    only_file,
    own,
    private_logits,
    using,
)
from ..support.small_models import Connection, make_model
from ..support.tensors import value

Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("no_files_left")
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


@pytest.mark.parametrize("setting", ["float32", "bf16", "int8", "int4"])
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
    # The log is a file under the limit, too: what there is of it stands at a segment's beginning, written.
    conn.execute("SELECT pg_switch_wal(), pg_logical_emit_message(true, 'test', 'a commit')")
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


def test_models_that_do_not_fit_beside_each_other_are_not_written_in_turn(
    conn: Connection, connect: Connect, place: Path
) -> None:
    """Who comes second has a copy of its own for a while."""
    for model in ("a", "b"):
        make_model(conn, model, d_model=32, vocab=5000)
    conn.execute("UPDATE llm_param SET updated_at = now() - interval '1 day'")
    expected = {model: private_logits(conn, model) for model in ("a", "b")}
    sessions = {model: using(connect(), place) for model in ("a", "b")}
    heard = notices(sessions["b"])
    for session in sessions.values():
        session.execute("SET pg_llm.shared_size = '1MB'")
        session.execute("SET pg_llm.shared_age = '1h'")
    written = set()
    for _ in range(3):
        for model, session in sessions.items():
            assert logits(session, model) == expected[model]
            session.execute("SELECT llm_release()")
            written.add((only_file(place).name, only_file(place).stat().st_mtime_ns))
    assert len(written) == 1
    assert len(heard) == 1
    assert "other models that are in use" in heard[0]
    os.utime(only_file(place), (1, only_file(place).stat().st_mtime - 7200))
    assert logits(sessions["b"], "b") == expected["b"]
    assert listed(sessions["b"]) == [("b", "float32", True)]
