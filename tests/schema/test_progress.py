"""Progress that others see, and trainers' locks: what the dead leave, and what cannot be taken."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.durable import Durable, provisioned
from ..support.small_models import Connection, make_model, make_trainable
from ..support.tensors import value
from ..support.waiting import wait_for

Connect = Callable[..., Connection]

SLOT = struct.Struct("=IiIIQqqqqddqqqq128s")


@pytest.fixture(scope="module")
def durable() -> Iterator[Durable]:
    with provisioned() as server:
        yield server


def slots(path: Path) -> dict[int, tuple[Any, ...]]:
    """What the file has of running trainings: by their places, what is in them."""
    content = path.read_bytes()
    found = {}
    for at in range(0, len(content) // SLOT.size * SLOT.size, SLOT.size):
        fields = SLOT.unpack_from(content, at)
        if fields[1]:
            found[at] = fields
    return found


def test_a_dead_session_s_training_is_not_another_s_with_its_process_id(durable: Durable) -> None:
    """In a container, numbers of processes begin anew with each start."""
    with durable.connect() as conn:
        make_trainable(conn, d_model=64)
        trainer = durable.connect()

        def work() -> None:
            with pytest.raises(psycopg.OperationalError):
                trainer.execute("CALL llm_train_loop('tiny', 1000000, 1, 1000000)")

        thread = threading.Thread(target=work)
        thread.start()
        wait_for(lambda: value(conn, "SELECT count(*) > 2 FROM llm_train_progress, llm_train_log"))
        run = value(conn, "SELECT run_id FROM llm_train_progress")
        directory = Path(value(conn, "SHOW data_directory"))
    durable.crash()
    thread.join(60)
    trainer.close()
    (path,) = (directory / "pg_stat_tmp").glob("pg_llm_progress*")
    with durable.connect() as conn:
        left = slots(path)
        (dead,) = left.values()
        # Every slot is now the dead session's with our number, and somebody wants the run to end.
        forged = SLOT.pack(2, conn.info.backend_pid, *dead[2:4], run, *dead[5:])
        with path.open("r+b") as file:  # which is mapped: it must not become shorter
            file.write(forged * (path.stat().st_size // SLOT.size))
        assert len(slots(path)) > 1
        assert value(conn, "SELECT count(*) FROM llm_train_progress") == 0
        assert value(conn, "SELECT status FROM llm_train_status WHERE run_id = %s", (run,)) == "interrupted"
        assert value(conn, "SELECT llm_train_stop(%s)", (run,)) is False
        # A wish of before does not end the run that is taken up again.
        assert value(conn, "SELECT pg_llm_progress('tiny', %s, 1, 9, 1.5, 0.1, 7)", (run,)) is not None
        assert value(conn, "SELECT pg_llm_stop_wanted(%s)", (run,)) is False
        assert value(conn, "SELECT count(*) FROM llm_train_progress") == 1
        conn.execute("SELECT pg_llm_progress_clear()")
        assert value(conn, "SELECT count(*) FROM llm_train_progress") == 0


def test_nobody_wants_what_is_no_run_to_end(conn: Connection) -> None:
    conn.execute("SELECT pg_llm_progress('tiny', 0, 1, 9, 1.5, 0.1, 7)")
    for run in (0, -1, 2**63 - 1, -(2**63)):
        assert value(conn, "SELECT pg_llm_stop_wanted(%s::bigint)", (run,)) is False
        assert value(conn, "SELECT pg_llm_stop_training(%s::bigint)", (run,)) is False
    conn.execute("SELECT pg_llm_progress_clear()")


def test_a_name_that_is_cut_is_hidden_where_policies_are(conn: Connection, connect: Connect) -> None:
    """The file holds the beginning of a model's name, which may be another's whole name."""
    shown = "m" * 127
    make_model(conn, shown)
    trainer = connect()
    trainer.execute("SELECT pg_llm_progress(%s, 1, 1, 9, 1.5, 0.1, 7)", (shown + "hidden",))
    conn.execute("ALTER TABLE llm_model_config ENABLE ROW LEVEL SECURITY")
    try:
        conn.execute(f"CREATE POLICY one ON llm_model_config USING (model = '{shown}')".encode())
        assert value(conn, "SELECT count(*) FROM llm_train_progress") == 1
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL ROLE llm_reader")
            assert value(conn, "SELECT count(*) FROM llm_train_progress") == 0
    finally:
        conn.execute("DROP POLICY one ON llm_model_config")
        conn.execute("ALTER TABLE llm_model_config DISABLE ROW LEVEL SECURITY")


@pytest.mark.parametrize("function", ["try_lock", "hold_lock", "lock_holder"])
def test_objects_of_catalogs_cannot_be_locked(conn: Connection, function: str) -> None:
    """A name whose hash is an object's number can be found; DDL would wait for whoever holds that lock."""
    for relation in ("pg_class", "pg_database", "pg_namespace"):
        with pytest.raises(errors.WrongObjectType, match="is the system's"):
            conn.execute(f"SELECT pg_llm_{function}('{relation}', 'a')".encode())
    with conn.transaction(force_rollback=True):
        conn.execute(f"SELECT pg_llm_{function}('llm_train_run', 'a')".encode())
