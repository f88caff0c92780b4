"""Autovacuum hears of the versions that a loop's write-backs leave while its CALL still runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import psycopg

from ..conftest import Connect
from ..support.small_models import make_trainable
from ..support.tensors import value
from ..support.waiting import wait_for

Connection = psycopg.Connection[Any]

TOAST = "(SELECT reltoastrelid FROM pg_class WHERE oid = 'llm_param'::regclass)"


def statistic(conn: Connection, column: str, relation: str = TOAST) -> int:
    found = value(conn, f"SELECT {column} FROM pg_stat_all_tables WHERE relid = {relation}")
    assert isinstance(found, int)
    return found


@contextlib.contextmanager
def writing_back(conn: Connection, connect: Connect) -> Iterator[Connection]:
    """A loop in another session that writes back after every step, until it is told to stop."""
    trainer = connect()
    problems: list[psycopg.Error] = []

    def work() -> None:
        try:
            trainer.execute(
                "CALL llm_train_loop('tiny', 99999, commit_every => 1, write_back_every => 1, log_every => 0)"
            )
        except psycopg.Error as error:
            problems.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        wait_for(lambda: value(conn, "SELECT count(*) > 3 FROM llm_train_log"), "the first steps")
        yield trainer
    finally:
        wait_for(
            lambda: value(conn, "SELECT llm_train_stop(max(run_id)) FROM llm_train_run"), "a running loop"
        )
        thread.join(60)
    assert not thread.is_alive()
    assert problems == []


def in_its_call(conn: Connection, trainer: Connection) -> bool:
    query = "SELECT state = 'active' AND query LIKE 'CALL %%' FROM pg_stat_activity WHERE pid = %s"
    return value(conn, query, (trainer.info.backend_pid,)) is True


def test_dead_rows_are_known_while_the_loop_runs_and_once(fresh_conn: Connection, connect: Connect) -> None:
    conn = fresh_conn
    conn.execute("ALTER TABLE llm_param SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)")
    make_trainable(conn, d_model=64, vocab=101)
    with writing_back(conn, connect) as trainer:
        for relation in (TOAST, "'llm_param'::regclass"):
            # The dead rows of several write-backs, one after the other
            for _ in range(3):
                before = statistic(conn, "n_dead_tup", relation)
                wait_for(lambda b=before, r=relation: statistic(conn, "n_dead_tup", r) != b, "a report")
        assert statistic(conn, "n_dead_tup") > 0
        assert in_its_call(conn, trainer)
        pid = trainer.info.backend_pid
    # At its end the session hands over the rest.
    trainer.close()
    there = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
    wait_for(lambda: not value(conn, there, (pid,)), "the end of the session")
    assert statistic(conn, "n_tup_del") > 0
    assert statistic(conn, "n_dead_tup") == statistic(conn, "n_tup_del")
    assert statistic(conn, "n_live_tup") == statistic(conn, "n_tup_ins - n_tup_del")
    # Who inserted them reports within seconds, too.
    n_rows = value(conn, "SELECT count(*) FROM llm_param")
    wait_for(lambda: statistic(conn, "n_live_tup", "'llm_param'::regclass") == n_rows, "the live rows")
    assert statistic(conn, "n_dead_tup - n_tup_upd", "'llm_param'::regclass") <= 0


def test_autovacuum_comes_while_the_loop_runs(fresh_conn: Connection, connect: Connect) -> None:
    conn = fresh_conn
    make_trainable(conn, d_model=64, vocab=101)
    # Because of what is dead, not of what is new
    conn.execute("ALTER TABLE llm_param SET (toast.autovacuum_vacuum_insert_threshold = -1)")
    conn.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    conn.execute("SELECT pg_reload_conf()")
    try:
        with writing_back(conn, connect) as trainer:
            before = statistic(conn, "autovacuum_count")
            wait_for(lambda: statistic(conn, "autovacuum_count") > before + 1, "autovacuum", pause=0.1)
            assert in_its_call(conn, trainer)
    finally:
        conn.execute("ALTER SYSTEM RESET autovacuum_naptime")
        conn.execute("SELECT pg_reload_conf()")


def reports(conn: Connection, *steps: str) -> list[int]:
    """What each report of one DO block returned, which is one statement, as a CALL is."""
    body = "\n".join(
        "INSERT INTO reported (dead) SELECT pg_llm_report_dead('parts');" if step == "report" else f"{step};"
        for step in steps
    )
    conn.execute(f"DO $do$ BEGIN {body} END $do$")
    return [dead for (dead,) in conn.execute("SELECT dead FROM reported ORDER BY id")]


def make_parts(conn: Connection) -> None:
    conn.execute(
        """CREATE TABLE parts (k int, v text) PARTITION BY LIST (k);
        CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1) WITH (autovacuum_enabled = off);
        CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2) WITH (autovacuum_enabled = off);
        ALTER TABLE part_2 ALTER v SET STORAGE EXTERNAL;
        CREATE TABLE reported (id int GENERATED ALWAYS AS IDENTITY, dead bigint);
        INSERT INTO parts VALUES (1, 'x'), (1, 'y'), (2, repeat('z', 3 * 1996));
        SELECT pg_stat_force_next_flush()"""
    )


def test_what_the_open_transaction_did_waits_for_its_end(fresh_conn: Connection, connect: Connect) -> None:
    """Of partitions and their TOAST tables (3 chunks), rolled back too; nothing twice."""
    make_parts(fresh_conn)
    dead = reports(
        fresh_conn,
        "DELETE FROM parts WHERE v = 'x'",
        "report",
        "COMMIT",
        "DELETE FROM parts WHERE k = 2",
        "report",
        "report",
        "COMMIT",
        "report",
        "COMMIT",
        "INSERT INTO parts VALUES (1, 'undone')",
        "ROLLBACK",
        "report",
        "report",
    )
    assert dead == [0, 1, 0, 4, 1, 0]
    fresh_conn.execute("SELECT pg_stat_force_next_flush()")
    for name, number in {"part_1": 2, "part_2": 1}.items():
        assert statistic(connect(), "n_dead_tup", f"'{name}'::regclass") == number
    assert statistic(connect(), "n_live_tup", "'part_1'::regclass") == 1


def test_a_truncated_table_has_no_dead_rows(fresh_conn: Connection, connect: Connect) -> None:
    make_parts(fresh_conn)
    steps = ("DELETE FROM parts WHERE v = 'x'", "COMMIT", "report", "TRUNCATE parts", "COMMIT", "report")
    more = (
        "INSERT INTO parts VALUES (1, 'new'), (1, 'more')",
        "DELETE FROM parts WHERE v = 'new'",
        "COMMIT",
        "report",
    )
    assert reports(fresh_conn, *steps, *more) == [1, 0, 1]
    fresh_conn.execute("SELECT pg_stat_force_next_flush()")
    assert statistic(connect(), "n_dead_tup", "'part_1'::regclass") == 1
    assert statistic(connect(), "n_live_tup", "'part_1'::regclass") == 1


def test_relations_that_have_nothing_to_report(conn: Connection) -> None:
    for relation in (
        "0",
        "4711",
        "4294967295",
        "'pg_database'",
        "'pg_class_oid_index'",
        "'llm_train_status'",
    ):
        assert value(conn, f"SELECT pg_llm_report_dead({relation}::regclass)") == 0, relation
    assert value(conn, "SELECT pg_llm_report_dead(NULL)") is None
