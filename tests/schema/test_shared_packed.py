"""Shared files of weights as bf16, int8 and int4: the bits of private copies, in nobody's own memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ..support.limits import as_the_server, limits
from ..support.shared_files import files, listed, logits, mapped
from ..support.small_models import Connection, make_model, make_names, make_trainable, train
from ..support.tensors import value

Connect = Callable[..., Connection]
HIDDEN = "SELECT llm_hidden(%s, '{1,2,3}')::text"
TEXT = "SELECT llm_generate('em', 20, 1, 5, 0.9, 'names', 7)"

pytestmark = pytest.mark.usefixtures("no_files")
both = pytest.mark.parametrize("setting", ["bf16", "int8"])
every = pytest.mark.parametrize("setting", ["bf16", "int8", "int4"])


@pytest.fixture
def no_files(connect: Connect) -> Iterator[None]:
    yield
    connect().execute("SELECT llm_release(shared => true)")


@pytest.fixture
def session(connect: Connect, setting: str) -> Callable[..., Connection]:
    """Callable: a session that reads weights in fewer bits; `private`: one that shares nothing."""

    def open_session(*, private: bool = False, **arguments: Any) -> Connection:
        conn = connect(**arguments)
        conn.execute("SELECT set_config('pg_llm.weights', %s, false)", (setting,))
        if private:
            conn.execute("SET pg_llm.shared_dir = ''")
        return conn

    return open_session


def suffixes(names: list[str]) -> list[str]:
    return sorted(name.rpartition(".")[2] for name in names)


def kinds(setting: str) -> list[str]:
    """The files' suffixes: int4 has its head as int8."""
    return sorted({"f32", setting, "int8" if setting == "int4" else setting})


def packed_file(conn: Connection, setting: str) -> Path:
    (path,) = (path for path in mapped(conn) if path.endswith(f".{setting}"))
    return Path(path)


# ---- one copy ----


@every
def test_sessions_map_the_same_bits(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    make_names(conn)
    alone = session(private=True)
    expected, text = logits(alone, "names"), value(alone, TEXT)
    for one in (session(), session()):
        assert logits(one, "names") == logits(one, "names") == expected != logits(conn, "names")
        assert value(one, TEXT) == text
        assert suffixes(mapped(one)) == kinds(setting)
    assert suffixes(files(conn)) == kinds(setting)
    assert set(listed(conn)) == {("names", kind.replace("f32", "float32"), True) for kind in kinds(setting)}
    size = value(conn, "SELECT bytes FROM llm_shared_version WHERE precision = %s", (setting,))
    assert size == packed_file(one, setting).stat().st_size
    assert suffixes(mapped(conn)) == ["f32"]


@both
def test_a_part_first_and_the_rest_later(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    """What was used goes into the file, and what others use later is added to it."""
    make_model(conn, vocab=500)
    alone, first, second = session(private=True), session(), session()
    hidden, expected = value(alone, HIDDEN, ("tiny",)), logits(alone)
    assert value(first, HIDDEN, ("tiny",)) == hidden
    part = packed_file(first, setting).stat()
    assert logits(second) == expected
    whole = packed_file(second, setting).stat()
    assert whole.st_ino != part.st_ino
    assert whole.st_size > part.st_size + 500 * 16  # the head
    assert value(first, HIDDEN, ("tiny",)) == hidden  # the older file, or the new one
    assert logits(first) == expected
    assert value(second, HIDDEN, ("tiny",)) == hidden
    for one in (first, second, session()):
        assert logits(one) == expected
        assert packed_file(one, setting).stat().st_ino == whole.st_ino
    assert len(files(conn)) == 2


@every
def test_sessions_that_pack_at_the_same_time(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    make_model(conn, n_layer=4, d_model=64, vocab=2000)
    alone = session(private=True)
    calls = [HIDDEN, "SELECT llm_logits('{1,2,3}', %s)::text"]
    expected = [value(alone, call, ("tiny",)) for call in calls]
    sessions = [session() for _ in range(4)]
    together = threading.Barrier(4)
    found: list[Any] = [None] * 4

    def use(i: int) -> None:
        together.wait(30)
        found[i] = value(sessions[i], calls[i % 2], ("tiny",))

    for _ in range(3):
        threads = [threading.Thread(target=use, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == expected * 2
        conn.execute("SELECT llm_release(shared => true)")
        for one in sessions:
            one.execute("SELECT llm_release()")
    for one in sessions:
        assert [value(one, call, ("tiny",)) for call in calls] == expected
    assert len({packed_file(one, setting) for one in sessions}) == 1
    assert suffixes(files(conn)) == kinds(setting)


def test_a_session_that_changes_its_mind(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    one, alone = connect(), connect()
    alone.execute("SET pg_llm.shared_dir = ''")
    for setting in ("bf16", "int8", "float32", "int4", "int8", "bf16", "int4"):
        for each in (one, alone):
            each.execute("SELECT set_config('pg_llm.weights', %s, false)", (setting,))
        assert logits(one) == logits(alone)
    assert suffixes(mapped(one)) == suffixes(files(conn)) == ["bf16", "f32", "int4", "int8"]


def own_memory(conn: Connection) -> int:
    """Bytes that a session has written to, and that are no file's."""
    try:
        lines = Path(f"/proc/{conn.info.backend_pid}/smaps").read_text().splitlines()
    except OSError:
        pytest.skip("this system does not tell how much memory a process has of its own")
    bytes_, shared = 0, False
    for line in lines:
        key, *rest = line.split()
        if not key.endswith(":"):
            shared = rest[0].endswith("s")
        elif key == "Private_Dirty:" and not shared:
            bytes_ += int(rest[0]) << 10
    return bytes_


@every
def test_nothing_of_the_weights_is_in_a_sessions_own_memory(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    make_model(conn, d_model=512, vocab=20000, n_layer=1)
    alone, writer, reader = session(private=True), session(), session()
    expected = logits(alone)
    both_copies = 20000 * 512 * (6 if setting == "bf16" else 5)
    assert own_memory(alone) > both_copies
    for one in (writer, reader):
        assert logits(one) == expected
        assert own_memory(one) < both_copies // 2
    assert packed_file(writer, setting) == packed_file(reader, setting)


# ---- versions ----


@every
def test_a_new_version_has_files_of_its_own_and_old_ones_go(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    make_trainable(conn)
    reader, alone = session(), session(private=True)
    for _ in range(4):
        assert logits(reader) == logits(alone)
        train(conn, n_steps=1, lr_max=0.1)
    assert logits(reader) == logits(alone)
    assert suffixes(files(conn)) == sorted(2 * kinds(setting))
    value(reader, "SELECT 1")
    assert suffixes(mapped(reader)) == kinds(setting)
    conn.execute("SELECT llm_release(shared => true)")
    value(reader, "SELECT 1")
    assert mapped(reader) == files(conn) == []
    assert logits(reader) == logits(alone)


@every
def test_a_file_that_goes_alone_is_made_again(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    make_model(conn)
    reader = session()
    expected = logits(reader)
    packed_file(reader, setting).unlink()
    value(reader, "SELECT 1")
    assert suffixes(mapped(reader)) == [kind for kind in kinds(setting) if kind != setting]
    assert logits(reader) == expected
    assert packed_file(reader, setting).exists()


@every
def test_numbers_that_a_session_feeds_itself_reach_no_file(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    """Its copies of them are not what is published when it exchanges its weights for the shared ones."""
    make_model(conn)
    conn.execute("UPDATE llm_param SET updated_at = clock_timestamp() + '1 day'")
    expected = logits(session(private=True))
    forger = session()
    fingerprint = value(forger, "SELECT llm_fingerprint('tiny')")
    forger.execute("SET pg_llm.shared_age = '200ms'")
    with forger.transaction():
        forger.execute("SELECT pg_llm_arena_open('tiny', %s, false)", (fingerprint,))
        assert value(forger, "SELECT pg_llm_shared_open('tiny')") is False
        forger.execute(
            "SELECT pg_llm_arena_put(model, name, token_id, data * 2.0, NULL, NULL)"
            " FROM llm_param WHERE model = 'tiny'"
        )
        forger.execute("SELECT pg_llm_arena_seal('tiny')")
        assert logits(forger) != expected
        forger.execute("SELECT pg_llm_arena_close('tiny')")
    assert mapped(forger) == []
    forger.execute("SELECT pg_sleep(0.3)")
    assert logits(forger) == expected
    assert suffixes(mapped(forger)) == suffixes(files(conn)) == kinds(setting)
    assert logits(session()) == expected


# ---- failures ----


@limits
@both
def test_a_full_disk_leaves_a_session_its_own_copy(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    """As far as a limit on the size of files stands for it."""
    make_model(conn, d_model=256, vocab=20000, n_layer=1)
    expected = logits(session(private=True))
    logits(conn)
    reader = session()
    notices: list[str] = []
    reader.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    as_the_server(["prlimit", f"--pid={reader.info.backend_pid}", "--fsize=2000000:"])
    for _ in range(3):
        # The log is such a file, too: what a reader would flush of it is at a segment's beginning, and there.
        conn.execute("SELECT pg_switch_wal(), pg_logical_emit_message(true, 'test', 'a commit')")
        assert logits(reader) == expected
        assert suffixes(files(conn)) == ["f32"]
    assert suffixes(mapped(reader)) == ["f32"]
    assert len(notices) == 1
    assert "weights are not shared between sessions: could not write a file" in notices[0]
    as_the_server(["prlimit", f"--pid={reader.info.backend_pid}", "--fsize=unlimited:"])
    assert logits(reader) == expected
    assert suffixes(mapped(reader)) == kinds(setting)


@both
def test_no_file_without_room_for_both(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    make_model(conn, d_model=256, vocab=4000)
    expected = logits(session(private=True))
    reader = session()
    notices: list[str] = []
    reader.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    size = value(conn, "SELECT sum(octet_length(data::bytea)) FROM llm_param WHERE model = 'tiny'")
    reader.execute("SELECT set_config('pg_llm.shared_size', %s, false)", (f"{size // 2**20 + 1}MB",))
    assert logits(reader) == expected
    assert suffixes(files(conn)) == ["f32"]
    assert any("and pg_llm.shared_size allows" in notice for notice in notices)
    reader.execute("SET pg_llm.shared_size = '100MB'")
    assert logits(reader) == expected
    assert suffixes(files(conn)) == kinds(setting)


@both
def test_above_the_limit_a_version_goes_with_its_files(
    conn: Connection, session: Callable[..., Connection], setting: str
) -> None:
    """The least recently used first, and never float32 before what is read beside it."""
    for model in ("a", "b"):
        make_model(conn, model, d_model=256, vocab=4000)
    reader = session()
    logits(reader, "a")
    size = value(conn, "SELECT sum(bytes) FROM llm_shared_version")
    reader.execute("SELECT set_config('pg_llm.shared_size', %s, false)", (f"{size // 2**20 + 4}MB",))
    logits(reader, "b")
    assert {row[:2] for row in listed(conn) if row[0] == "b"} == {("b", setting), ("b", "float32")}
    assert [row[:2] for row in listed(conn) if row[0] == "a"] in ([], [("a", "float32")])


@every
@pytest.mark.parametrize("damage", ["empty", "short", "long", "table", "other"])
def test_a_file_that_is_not_what_it_should_be_is_made_again(
    conn: Connection, session: Callable[..., Connection], setting: str, damage: str
) -> None:
    make_model(conn)
    make_model(conn, "other")
    reader = session()
    expected = logits(reader)
    logits(reader, "other")
    path = next(
        Path(one) for one in mapped(reader) if one.endswith(setting) and b"tiny" in Path(one).read_bytes()
    )
    content = bytearray(path.read_bytes())
    if damage == "other":
        content[:] = next(
            Path(one).read_bytes() for one in mapped(reader) if one.endswith(setting) and Path(one) != path
        )
    elif damage == "table":
        content[300] ^= 1
    whole = {"empty": b"", "short": content[:-1], "long": content + b"\0"}.get(damage, content)
    status = path.stat()
    forged = path.with_name(path.name + ".1.tmp")
    forged.write_bytes(whole)
    forged.chmod(0o600)
    os.chown(forged, status.st_uid, status.st_gid)
    forged.rename(path)
    other = session()
    assert logits(other) == logits(reader) == expected
    assert packed_file(other, setting).read_bytes()[:8] == b"pg_llm\0w"
    assert logits(other, "other") == logits(reader, "other")
    assert not any(name.endswith(".tmp") for name in files(conn))


@every
def test_cancels_leave_nothing(conn: Connection, session: Callable[..., Connection], setting: str) -> None:
    """At whatever moment of packing and writing."""
    make_model(conn, d_model=256, vocab=20000, n_layer=2)
    expected = logits(session(private=True))
    logits(conn)
    done = cancelled = 0
    for milliseconds in (5, 10, 15, 20, 25, 30, 40, 60, 80, 120, 5000):
        one = session()
        one.execute("SELECT set_config('statement_timeout', %s, false)", (f"{milliseconds}ms",))
        try:
            assert logits(one) == expected
            done += 1
        except psycopg.errors.QueryCanceled:
            cancelled += 1
        assert not any(name.endswith(".tmp") for name in files(conn))
        one.execute("SET statement_timeout = 0")
        if milliseconds < 5000:
            conn.execute("SELECT llm_release(shared => true)")
            assert logits(one) == expected
            conn.execute("SELECT llm_release(shared => true)")
            logits(conn)
    assert done > 0
    assert cancelled > 0
    assert suffixes(files(conn)) == kinds(setting)
