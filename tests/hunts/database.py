"""A database to be hunted in: models with data, a role of each kind, functions that run text as another role.

Everything the hunts spoil is put back by restore(), from copies.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

from ..support.hostile_values import MODEL
from ..support.small_models import Connection, make_model, make_names, names_query, train

MICRO = "micro"
LEARNT = "learnt"
ROLES = {
    "nobody": "LOGIN",
    "reader": "LOGIN IN ROLE llm_reader",
    "trainer": "LOGIN IN ROLE llm_trainer",
    "superuser": "LOGIN SUPERUSER",
}
# What calls change and later calls need.
KEPT = (
    "llm_model_config",
    "llm_param",
    "llm_dataset",
    "llm_bpe_vocab",
    "llm_bpe_merges",
    "llm_tokenizer",
)
GROWING = (
    "llm_tape",
    "llm_tensor_rt",
    "llm_tensor_map",
    "llm_tensor",
    "llm_clip",
    "llm_train_log",
    "llm_checkpoint",
)

HELPERS = """
CREATE FUNCTION hunt.caught(statement text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    result text;
BEGIN
    EXECUTE statement INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN format('!%s %s', SQLSTATE, left(SQLERRM, 200));
END $$;
CREATE FUNCTION hunt.twice(statement text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    result text;
BEGIN
    BEGIN
        EXECUTE statement INTO result;
        RAISE EXCEPTION division_by_zero;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
    EXECUTE statement INTO result;
    RETURN result;
END $$;
"""


def login(role: str) -> str:
    return f"hunt_{role}"


def prepare(conn: Connection) -> None:
    """Roles, models, helpers and copies; the database is a provisioned one that nothing else needs."""
    conn.execute("SET client_min_messages = error")
    for role, options in ROLES.items():
        exists = conn.execute("SELECT FROM pg_roles WHERE rolname = %s", (login(role),)).fetchone()
        if exists is None:
            conn.execute(f"CREATE ROLE {login(role)} {options}")
        # The hunt sees its errors itself; a million lines of them would hide what the log is read for.
        conn.execute(f"ALTER ROLE {login(role)} SET log_min_messages = log")
    conn.execute("DROP SCHEMA IF EXISTS hunt CASCADE")
    for model in (MODEL, MICRO, LEARNT):
        conn.execute("SELECT llm_drop_model(%(m)s) FROM llm_model_config WHERE model = %(m)s", {"m": model})
        for table in ("llm_bpe_vocab", "llm_bpe_merges", "llm_tokenizer", "llm_dataset"):
            conn.execute(sql.SQL("DELETE FROM {} WHERE model = %s").format(sql.Identifier(table)), (model,))
    make_names(conn, MODEL, n_positions=8, d_model=8)
    train(conn, MODEL, 2)
    make_names(conn, MICRO, arch="microgpt", n_layer=1, n_head=2, n_positions=8, d_model=8)
    conn.execute("SELECT llm_train_bpe(%s, %s, 270)", (LEARNT, names_query()))
    rows = conn.execute("SELECT max(token_id) + 1 FROM llm_bpe_vocab WHERE model = %s", (LEARNT,)).fetchone()
    assert rows is not None
    make_model(conn, LEARNT, vocab=rows[0], n_positions=8, d_model=8, n_layer=1)
    conn.execute("CREATE SCHEMA hunt; GRANT USAGE ON SCHEMA hunt TO PUBLIC")
    conn.execute(HELPERS)
    for role in ROLES:
        body = "DECLARE result text; BEGIN EXECUTE statement INTO result; RETURN result; END"
        conn.execute(
            f"CREATE FUNCTION hunt.as_{role}(statement text) RETURNS text LANGUAGE plpgsql VOLATILE"
            f" SECURITY DEFINER AS $${body}$$; ALTER FUNCTION hunt.as_{role} OWNER TO {login(role)}"
        )
    for table in KEPT:
        conn.execute(f"CREATE TABLE hunt.{table} AS TABLE public.{table}")


def clean(conn: Connection) -> None:
    """Away with the roles, which belong to the whole server, and with what they own here."""
    conn.execute("DROP SCHEMA hunt CASCADE")
    for role in map(login, ROLES):
        conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")  # type: ignore[arg-type]


def restore(conn: Connection) -> None:
    """Put back what calls changed. Waits for nobody: what is locked is left for the next time."""
    try:
        with conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '200ms'")
            for table in GROWING:
                conn.execute(f"DELETE FROM public.{table}")
            for table in reversed(KEPT):
                conn.execute(f"DELETE FROM public.{table}")
            for table in KEPT:
                columns = conn.execute(
                    "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
                    " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
                    " AND attgenerated = '' AND attidentity <> 'a'",
                    (f"public.{table}",),
                ).fetchone()
                assert columns is not None
                conn.execute(
                    f"INSERT INTO public.{table} ({columns[0]}) SELECT {columns[0]} FROM hunt.{table}"  # type: ignore[arg-type]
                )
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        pass


def server_log(conn: Connection, log: Path | None) -> Path | None:
    """The file the server writes its log to, where this machine can read it."""
    if log is not None:
        return log
    row = conn.execute("SHOW data_directory").fetchone()
    assert row is not None
    guess = Path(row[0]).parent / "server.log"
    return guess if guess.exists() else None
