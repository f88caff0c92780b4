"""The embedded server: starting, stopping, sharing, and recovery from what went wrong before."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from llm_sql.errors import DatabaseUnreachableError, LLMSQLWarning, ServerError
from llm_sql.server import EmbeddedServer, layout, postmaster, waiting

from ..support.places import new_place
from ..support.waiting import wait_for

QUICK = {"fsync": "off", "shared_buffers": "16MB"}


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """A home where root's server account can go too; its server is stopped afterwards."""
    root = new_place("llm-sql-home-")
    yield root / "home"
    with contextlib.suppress(ServerError):
        EmbeddedServer(root / "home", settings=QUICK).stop()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def new_home() -> Iterator[Path]:
    """Where no server ever ran."""
    with temporary_home() as home:
        yield home


@pytest.fixture(scope="module")
def module_home() -> Iterator[Path]:
    with temporary_home() as home:
        yield home


@pytest.fixture
def home(module_home: Path) -> Iterator[Path]:
    """Where a server ran before, stopped."""
    yield module_home
    assert not EmbeddedServer(module_home, settings=QUICK).running


def answer(server: EmbeddedServer, statement: str = "SELECT 1") -> object:
    with psycopg.connect(server.url("postgres")) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def start_in_other_process(home: Path, then: str) -> subprocess.Popen[str]:
    code = (
        "from pathlib import Path; import sys, time, os\n"
        "from llm_sql.server import EmbeddedServer\n"
        f"server = EmbeddedServer(Path({str(home)!r}), settings={QUICK!r}); server.start()\n"
        f"print('up', flush=True)\n{then}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def test_start_gives_a_server_and_release_by_the_last_user_stops_it(home: Path) -> None:
    with EmbeddedServer(home, settings=QUICK) as server:
        assert answer(server) == 1
        assert answer(server, "SHOW listen_addresses") == ""
        assert answer(server, "SHOW max_wal_size") == "16GB"
        assert server.running
    assert not server.running


def test_two_processes_share_one_server(home: Path) -> None:
    other = start_in_other_process(home, "sys.stdin.readline()")
    assert other.stdout is not None
    assert other.stdout.readline() == "up\n"
    with EmbeddedServer(home, settings=QUICK) as server:
        started = answer(server, "SELECT pg_postmaster_start_time()")
        other.communicate("done\n", timeout=600)
        assert server.running, "the other's end must not stop a server in use"
        assert answer(server, "SELECT pg_postmaster_start_time()") == started
    assert not server.running


def test_a_killed_user_does_not_count(home: Path) -> None:
    other = start_in_other_process(home, "time.sleep(600)")
    assert other.stdout is not None
    assert other.stdout.readline() == "up\n"
    with EmbeddedServer(home, settings=QUICK) as server:
        other.kill()
        other.wait()
    assert not server.running


def test_concurrent_first_starts_make_one_data_directory(new_home: Path) -> None:
    others = [start_in_other_process(new_home, "sys.stdin.readline()") for _ in range(4)]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
    assert len(list(new_home.glob("pg*"))) == 1
    assert not list(new_home.glob("initdb-*"))
    for other in others:
        other.communicate("done\n", timeout=600)
        assert other.returncode == 0
    assert not EmbeddedServer(new_home).running


def test_keep_survives_the_last_user_until_stop(home: Path) -> None:
    server = EmbeddedServer(home, settings=QUICK)
    server.start(keep=True)
    server.release()
    assert server.running
    assert server.stop()
    assert not server.running
    assert not server.kept
    assert not server.stop()


def test_committed_work_survives_kill_9(home: Path) -> None:
    with EmbeddedServer(home, settings=QUICK) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
            server.kill()
        assert not server.running
        server.start()
        assert answer(server, "SELECT n FROM kept") == 42


def test_orphans_of_a_killed_postmaster_do_not_block_the_next_start(home: Path) -> None:
    with EmbeddedServer(home, settings=QUICK) as server:
        connection = psycopg.connect(server.url("postgres"))
        backend = connection.info.backend_pid
        # A busy backend does not notice that its postmaster died.
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")
        process = postmaster.find(server.data_directory)
        assert process is not None
        process.kill()
        while server.running:
            time.sleep(0.01)
        os.kill(backend, 0)
        server.start()
        assert answer(server) == 1
        connection.close()


def test_a_pid_file_whose_number_belongs_to_someone_else(home: Path) -> None:
    with EmbeddedServer(home, settings=QUICK) as server:
        server.stop()
        stale = f"{os.getpid()}\n{server.data_directory}\n1\n5432\n{home}/run\n\n 1 1\nready\n"
        (server.data_directory / "postmaster.pid").write_text(stale)
        assert not server.running
        server.start()
        assert answer(server) == 1


def test_a_path_too_long_for_a_socket(new_home: Path) -> None:
    with EmbeddedServer(new_home.parent / ("x" * 100) / "home", settings=QUICK) as server:
        assert answer(server) == 1
        directory = Path(str(answer(server, "SHOW unix_socket_directories")).strip('"'))
        assert directory.stat().st_mode & 0o077 == 0
        assert len(str(directory / layout.SOCKET_NAME)) <= layout.SOCKET_PATH_LIMIT
    shutil.rmtree(directory, ignore_errors=True)


def test_a_damaged_data_directory_is_named_and_left_alone(new_home: Path) -> None:
    with EmbeddedServer(new_home, settings=QUICK) as server:
        server.stop()
        (server.data_directory / "global" / "pg_control").unlink()
        with pytest.raises(ServerError, match="is damaged") as caught:
            server.start()
        assert str(server.data_directory) in caught.value.message
        assert (server.data_directory / "base").exists()


def test_a_server_that_refuses_to_start_shows_its_log(home: Path) -> None:
    server = EmbeddedServer(home, settings=QUICK | {"no_such_setting": "1"})
    with pytest.raises(ServerError, match="no_such_setting"):
        server.start()
    server.release()


def test_a_home_with_a_colon_is_refused(new_home: Path) -> None:
    with pytest.raises(ServerError, match="colon"):
        EmbeddedServer(new_home.parent / "a:b", settings=QUICK).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="as root the server runs under another account")
def test_a_home_that_roots_server_account_cannot_reach_is_named(new_home: Path) -> None:
    closed = new_home.parent / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServerError, match=str(closed)):
        EmbeddedServer(closed / "home", settings=QUICK).start()
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_newly_built_extension_is_found_by_new_sessions(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_home.parent / "package"
    monkeypatch.setattr(layout, "packaged_extension", lambda major: source)

    def build(version: str) -> None:
        (source / "share" / "extension").mkdir(parents=True, exist_ok=True)
        (source / "lib").mkdir(exist_ok=True)
        control = f"default_version = '{version}'\n"
        (source / "share" / "extension" / "pg_llm.control").write_text(control)
        (source / "share" / "extension" / f"pg_llm--{version}.sql").write_text(
            "CREATE TABLE made_by_script (n int);\n"
        )

    def available(server: EmbeddedServer) -> object:
        return answer(server, "SELECT default_version FROM pg_available_extensions WHERE name = 'pg_llm'")

    build("1")
    with EmbeddedServer(new_home, settings=QUICK) as server:
        if server.installation.major < 18:
            pytest.skip("extension_control_path came with PostgreSQL 18")
        assert available(server) == "1"
        build("2")
        server.start()
        wait_for(lambda: available(server) == "2", "the reload")
        assert len(list((new_home / "extension").iterdir())) == 2, "running sessions may still need the first"
        server.stop()
        server.start()
        assert len(list((new_home / "extension").iterdir())) == 1


def test_whoever_comes_while_the_server_recovers_from_a_crash_waits_for_it(home: Path) -> None:
    """The startup process is held, so that recovery takes as long as this test wants."""
    with EmbeddedServer(home, settings=QUICK) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS long (t text)")
            connection.execute("INSERT INTO long SELECT repeat('x', 1000) FROM generate_series(1, 50000)")
            process = postmaster.find(server.data_directory)
            assert process is not None
            os.kill(connection.info.backend_pid, signal.SIGKILL)
        held = hold_startup(process)
        code = (
            f"from pathlib import Path\nfrom llm_sql.server import EmbeddedServer\n"
            f"server = EmbeddedServer(Path({str(home)!r}), settings={QUICK!r})\n"
            "server.start(); server.ensure_database('d'); print('up')\n"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert other.stderr is not None
        if held is not None:
            assert "recovering from a crash: waiting for it" in other.stderr.readline()
            held.resume()
        output, errors = other.communicate(timeout=120)
        assert (output, other.returncode) == ("up\n", 0), errors


def hold_startup(process: postmaster.Process) -> postmaster.Process | None:
    """Stop the process that recovers; None when it was faster."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for child in process.children():
            with contextlib.suppress(psutil.Error):
                if "startup" in " ".join(child.cmdline()):
                    child.suspend()
                    return child
    return None


def test_a_server_that_recovers_for_too_long_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(waiting, "ping", lambda _: waiting.Ping.REJECT)
    with pytest.raises(DatabaseUnreachableError, match="recovering from a crash"):
        waiting.until_accepting("host=/nowhere", told.append, patience=1.2)
    assert len(told) == 1


def test_a_server_that_is_not_there_is_not_waited_for() -> None:
    waiting.until_accepting("host=/nowhere port=1", lambda _: pytest.fail("it waits"))


def test_another_installation_does_not_change_what_the_running_server_loads(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def package(name: str) -> Path:
        root = new_home.parent / name
        (root / "share" / "extension").mkdir(parents=True)
        (root / "lib").mkdir()
        (root / "share" / "extension" / "pg_llm.control").write_text(f"default_version = '1.0' # {name}\n")
        return root

    one, two = package("one"), package("two")
    monkeypatch.setattr(layout, "packaged_extension", lambda major: one)
    with EmbeddedServer(new_home, settings=QUICK) as server:
        if server.installation.major < 18:
            pytest.skip("extension_control_path came with PostgreSQL 18")
        loaded = answer(server, "SHOW dynamic_library_path")
        monkeypatch.setattr(layout, "packaged_extension", lambda major: two)
        with pytest.warns(LLMSQLWarning, match=rf"runs with the extension of {one}.*llm-sql down"):
            EmbeddedServer(new_home, settings=QUICK).start()
        assert answer(server, "SHOW dynamic_library_path") == loaded
        server.stop()
        with pytest.warns(LLMSQLWarning, match=f"changes from the extension of {one} to that of {two}"):
            server.start()
        assert answer(server, "SHOW dynamic_library_path") != loaded


def test_a_staged_library_that_somebody_deleted_comes_back(new_home: Path) -> None:
    with EmbeddedServer(new_home, settings=QUICK) as server:
        copies = list((new_home / "extension").glob("*/lib/*"))
        if not copies:
            pytest.skip("the extension was not built")
        for copy in copies:
            copy.unlink()
        server.start()
        assert all(copy.exists() for copy in copies)


def test_a_database_that_loads_a_library_that_is_gone_opens_again(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "packaged_extension", lambda major: None)
    # The server's own directory of libraries may hold one, too.
    elsewhere = QUICK | {"dynamic_library_path": str(new_home.parent)}
    with EmbeddedServer(new_home, settings=elsewhere) as server:
        server.ensure_database("d")
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER DATABASE d SET session_preload_libraries = pg_llm")
        with pytest.raises(psycopg.OperationalError, match="pg_llm"):
            psycopg.connect(server.url("d"))
        with pytest.warns(LLMSQLWarning, match="whose file is gone"):
            server.ensure_database("d")
        psycopg.connect(server.url("d")).close()
