"""Settings, read-only transactions, NULL arguments: what is saved is exact, what is refused says why."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.checkpoints import (
    file_of,
    files,
    load,
    save,
    skip_unless_visible,
)
from ..support.small_models import make_model, make_names, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def only_where_files_can_be_seen(request: pytest.FixtureRequest) -> None:
    if "conn" in request.fixturenames:
        skip_unless_visible(request.getfixturevalue("conn"))


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
    conn.execute(
        "UPDATE llm_bpe_vocab SET score = 0.1::float8 + 0.2::float8 + token_id WHERE model = 'names'"
    )
    conn.execute("CREATE SCHEMA app")
    conn.execute(
        "CREATE FUNCTION app.wrong(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
        "CREATE FUNCTION app.wrong(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR app.= (LEFTARG = int, RIGHTARG = int, FUNCTION = app.wrong);"
        "CREATE OPERATOR app.= (LEFTARG = text, RIGHTARG = text, FUNCTION = app.wrong);"
        "CREATE FUNCTION app.shape(tensor) RETURNS int[] LANGUAGE sql AS 'SELECT ARRAY[1]'"
    )
    config = "SELECT float8send(layer_norm_eps) FROM public.llm_model_config WHERE model = 'names'"
    scores = "SELECT array_agg(float8send(score) ORDER BY token_id) FROM public.llm_bpe_vocab"
    expected = (value(conn, config), value(conn, scores), weights(conn, "names"))
    first = save(conn, "names")
    content = file_of(conn, first).read_bytes()
    try:
        for setting in SETTINGS:
            if conn.info.server_version < 160000:
                setting = setting.replace("debug_parallel_query", "force_parallel_mode")
            with contextlib.closing(connect()) as other:
                other.execute(f"SET {setting}")
                id_ = save(other, "names", "caf\u00e9")
                assert file_of(conn, id_).read_bytes() == content, setting
                other.execute(
                    "UPDATE public.llm_model_config SET layer_norm_eps = 1 WHERE model"
                    " OPERATOR(pg_catalog.=) 'names'"
                )
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
OPTIONAL = {"note", "keep", "megatron_version", "tied"}


def refusal(conn: Connection, statement: str) -> tuple[str | None, str] | None:
    """SQLSTATE and message of a statement that is undone; None when there is no error."""
    with conn.transaction(force_rollback=True):
        try:
            with conn.transaction():
                conn.execute(statement)
        except psycopg.Error as error:
            return error.sqlstate, str(error)
    return None


def test_null_arguments_are_named(conn: Connection) -> None:
    """Of every function of files and checkpoints: NULL gives NULL, or an error that names the argument."""
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
                f"NULL::{type_}"
                if a == argument or a in OPTIONAL
                else ("'[[1]]'" if type_ == "tensor" else FITTING[a])
                for a, type_ in zip(arguments, types, strict=True)
            ]
            told = refusal(conn, f"SELECT {name}({', '.join(given)})")
            if told is None or argument in OPTIONAL:
                continue
            sqlstate, message = told
            assert sqlstate in ("22004", "22023", "42704"), (name, argument, told)
            assert argument in message or (argument == "id" and "checkpoint NULL" in message), (name, message)


@pytest.mark.parametrize("function", ["llm_checkpoint_data", "llm_export_data"])
def test_tensors_go_to_the_file_one_by_one(conn: Connection, function: str) -> None:
    """The function is inlined; otherwise all of a model would be collected before a row is written."""
    make_model(conn)
    plan = conn.execute(f"EXPLAIN SELECT d.data, d.bytes FROM {function}('tiny') d").fetchall()
    assert "llm_param" in str(plan)
    assert f"Function Scan on {function}" not in str(plan)
