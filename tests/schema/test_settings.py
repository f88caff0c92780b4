"""Settings that change how text is read, printed or planned change nothing of what is stored or computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from ..amount import EXTENDED, grows, only_extended
from ..support import scenario
from ..support.tensors import value

Connection = psycopg.Connection[Any]

# Every boolean and enumeration of these categories takes each of its values in turn.
CATEGORIES = (
    "Client Connection Defaults / Locale and Formatting",
    "Client Connection Defaults / Statement Behavior",
    "Client Connection Defaults / Other Defaults",
    "Version and Platform Compatibility / Previous PostgreSQL Versions",
    "Version and Platform Compatibility / Other Platforms and Clients",
)
# Numbers and texts by hand.
EXTREMES = {
    "extra_float_digits": ("-15", "-12", "0", "3"),
    "DateStyle": ("German, DMY", "SQL, MDY", "Postgres, YMD"),
    "TimeZone": ("Pacific/Kiritimati", "<-03>+03"),
    "client_encoding": ("LATIN1", "WIN1252"),
    "lc_numeric": ("C.UTF-8", "C"),
    "lc_monetary": ("C",),
    "lc_messages": ("C",),
    "timezone_abbreviations": ("Australia",),
    "plpgsql.extra_errors": ("all",),
    "plpgsql.extra_warnings": ("all",),
    "plpgsql.check_asserts": ("off",),
    "plpgsql.variable_conflict": ("use_variable", "use_column"),
}
# No matter of text: a session that may write nothing is refused, one whose triggers are off does not record.
EXCEPT = {
    "default_transaction_read_only",
    "transaction_read_only",
    "transaction_isolation",
    "transaction_deferrable",
    "session_replication_role",
}
PLANNER = {
    "nothing but the worst": {
        "enable_%": "off",
        "work_mem": "64kB",
        "from_collapse_limit": "1",
        "join_collapse_limit": "1",
        "geqo_threshold": "2",
        "plan_cache_mode": "force_custom_plan",
        "cursor_tuple_fraction": "1",
        # Before PostgreSQL 18 what is off costs enough for all to be compiled, which is a way of its own.
        "jit": "off",
    },
    "whatever can be parallel": {
        "debug_parallel_query": "on",
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "min_parallel_index_scan_size": "0",
        "max_parallel_workers_per_gather": "4",
        "plan_cache_mode": "force_generic_plan",
    },
    "compiled": {
        "jit": "on",
        "jit_above_cost": "0",
        "jit_inline_above_cost": "0",
        "jit_optimize_above_cost": "0",
    },
}


def choices(conn: Connection) -> list[tuple[str, str]]:
    """Setting and value, of each that this server has."""
    found = conn.execute(
        "SELECT name, vartype, setting, enumvals FROM pg_settings"
        " WHERE context IN ('user', 'superuser') AND category = ANY (%s) AND vartype IN ('bool', 'enum')"
        " AND name <> ALL (%s) AND name NOT LIKE 'pg\\_llm.%%' ORDER BY name",
        (list(CATEGORIES), list(EXCEPT)),
    ).fetchall()
    pairs = [
        (name, other)
        for name, kind, setting, values in found
        for other in (["on", "off"] if kind == "bool" else values)
        if other != setting
    ]
    present = {name for (name,) in conn.execute("SELECT name FROM pg_settings")} | {"plpgsql.extra_errors"}
    pairs += [
        (name, v) for name, values in EXTREMES.items() for v in values if name in present or "plpgsql" in name
    ]
    return pairs


@pytest.fixture
def folder(fresh_conn: Connection) -> Path:
    return Path(value(fresh_conn, "SHOW data_directory"))


@pytest.fixture
def expected(fresh_conn: Connection, connect: Any, folder: Path) -> scenario.Results:
    return scenario.run(connect(), fresh_conn, folder)


def rounds(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Settings that a session has at the same time: each of its own, or the n-th value of all."""
    if EXTENDED:
        return [{name: setting} for name, setting in pairs]
    values: dict[str, list[str]] = {}
    for name, setting in pairs:
        values.setdefault(name, []).append(setting)
    most = max(map(len, values.values()))
    return [{name: v[n] for name, v in values.items() if n < len(v)} for n in range(most)]


@grows
def test_no_setting_of_text_changes_what_is_stored(
    fresh_conn: Connection, connect: Any, folder: Path, expected: scenario.Results
) -> None:
    pairs = choices(fresh_conn)
    names = {name for name, _ in pairs}
    assert {
        "bytea_output",
        "standard_conforming_strings",
        "array_nulls",
        "IntervalStyle",
        "row_security",
    } <= names
    wrong = []
    for together in rounds(pairs):
        session = connect()
        session.execute("LOAD 'plpgsql'")
        for name, setting in together.items():
            session.execute("SELECT set_config(%s, %s, false)", (name, setting))
        try:
            found = scenario.differences(scenario.run(session, fresh_conn, folder), expected)
        except psycopg.Error as error:
            found = [f"{type(error).__name__}: {error}"]
            cleanup(fresh_conn)
        wrong += [f"{together}: {difference}" for difference in found]
        session.close()
    assert wrong == [], "\n".join(difference[:500] for difference in wrong)


def cleanup(conn: Connection) -> None:
    """After a scenario that failed half-way."""
    conn.execute(
        "TRUNCATE llm_train_run, llm_train_log, llm_clip, llm_tape, llm_tensor_rt, llm_bpe_vocab,"
        " llm_bpe_merges, llm_dataset, llm_param, llm_tensor_map, llm_checkpoint"
    )
    conn.execute("DELETE FROM llm_model_config WHERE model = ANY (%s)", (list(scenario.MODELS),))


@pytest.mark.parametrize(
    "plans",
    # Compiling every statement takes minutes where the server has LLVM.
    [only_extended(plans, id=plans) if plans == "compiled" else plans for plans in PLANNER],
)
def test_no_plan_changes_a_bit(
    fresh_conn: Connection, connect: Any, folder: Path, expected: scenario.Results, plans: str
) -> None:
    session = connect()
    for pattern, setting in PLANNER[plans].items():
        if pattern == "debug_parallel_query" and fresh_conn.info.server_version < 160000:
            pattern = "force_parallel_mode"
        session.execute(
            "SELECT set_config(name, %s, false) FROM pg_settings"
            " WHERE name LIKE %s AND context IN ('user', 'superuser')",
            (setting, pattern),
        )
    assert scenario.differences(scenario.run(session, fresh_conn, folder), expected) == []


def test_hyperparameters_are_stored_exactly(conn: Connection) -> None:
    from ..support.small_models import make_trainable

    make_trainable(conn)
    conn.execute("SET extra_float_digits = -15")
    for call in (
        "SELECT llm_train('tiny', 1, lr_max => 1 / 3000.0::double precision, log_every => 0)",
        "CALL llm_train_loop('tiny', 1, 1, lr_max => 1 / 3000.0::double precision, log_every => 0)",
    ):
        conn.execute(call)
        stored = value(
            conn,
            "SELECT (hyperparameters ->> 'lr_max')::double precision = 1 / 3000.0::double precision"
            " AND (hyperparameters ->> 'beta2')::double precision = 0.999"
            " FROM llm_train_run ORDER BY run_id DESC LIMIT 1",
        )
        assert stored
    assert value(conn, "SHOW extra_float_digits") == "-15"
