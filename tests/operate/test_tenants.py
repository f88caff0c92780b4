"""Row policies by model, as docs/operate/roles.md sets them up: each tenant has models of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import make_trainable, train
from ..support.tensors import value

Connection = psycopg.Connection[Any]
PAGE = Path(__file__).parents[2] / "docs" / "operate" / "roles.md"
BLOCK = re.compile(r"```sql\n(CREATE TABLE model_tenant.*?)```", re.S)


@pytest.fixture
def tenants(fresh_conn: Connection) -> Iterator[Connection]:
    """The page's policies, and two tenants with a model each."""
    fresh_conn.execute(BLOCK.search(PAGE.read_text(encoding="utf-8"))[1])  # type: ignore[index]
    for name in ("acme", "beta"):
        make_trainable(fresh_conn, name)
        train(fresh_conn, name, 1)
        fresh_conn.execute(f"DROP ROLE IF EXISTS llm_test_{name}")
        fresh_conn.execute(f"CREATE ROLE llm_test_{name} IN ROLE llm_trainer")
        fresh_conn.execute("INSERT INTO model_tenant VALUES (%s, %s)", (name, f"llm_test_{name}"))
    yield fresh_conn
    fresh_conn.execute("RESET ROLE")
    for name in ("acme", "beta"):
        fresh_conn.execute(f"DROP ROLE llm_test_{name}")


def test_a_tenant_finds_its_own_models_in_every_table(tenants: Connection) -> None:
    tenants.execute("SELECT llm_checkpoint_save('beta')")
    tenants.execute("INSERT INTO llm_autograd_mode VALUES (true)")
    tenants.execute("SELECT llm_train_step('beta', (SELECT min(id) FROM llm_dataset WHERE model = 'beta'))")
    tables = tenants.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        " AND relname LIKE 'llm\\_%' AND relname NOT IN ('llm_arch', 'llm_sql_version')"
    ).fetchall()
    views = [("llm_heldout",), ("llm_param_er",), ("llm_step",), ("llm_train_status",)]
    own = "SELECT count(*) FROM llm_tensor_rt WHERE run IN (SELECT run FROM llm_tape WHERE model = 'acme')"
    recorded = value(tenants, own)
    tenants.execute("SET ROLE llm_test_acme")
    for (table,) in [*tables, *views]:
        row = f"SELECT count(*) FROM {table} t WHERE to_jsonb(t) ->> 'model' = 'beta'"
        assert value(tenants, row) == 0, table
    assert value(tenants, "SELECT count(*) FROM llm_tensor_rt") == recorded > 0
    assert value(tenants, "SELECT count(*) FROM llm_clip") == 0
    assert value(tenants, "SELECT count(DISTINCT model) FROM llm_param") == 1


def test_a_tenant_uses_its_own_model_and_no_other(tenants: Connection) -> None:
    tenants.execute("SET ROLE llm_test_acme")
    tenants.execute("SELECT llm_logits('{1,2}', 'acme')")
    train(tenants, "acme", 1)
    tenants.execute("SELECT llm_checkpoint_save('acme')")
    for statement in ("SELECT llm_logits('{1,2}', 'beta')", "SELECT llm_train('beta', 1)"):
        with pytest.raises(errors.UndefinedObject, match='model "beta" does not exist'):
            tenants.execute(statement)
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        tenants.execute("SELECT llm_create_model('other', 'gpt2', 1, 1, 8, 8, 8, 1)")


def test_progress_shows_no_model_that_policies_hide(tenants: Connection, connect: Any) -> None:
    """The view, and the function below it; a model that nobody else sees yet shows where no policy is."""
    watcher = connect()
    with tenants.transaction(force_rollback=True):
        tenants.execute("SELECT pg_llm_progress('beta', 1, 1, 10, 0.5, 0.1, 100)")
        for source in ("llm_train_progress", "pg_llm_train_progress()"):
            models = f"SELECT array_agg(model) FROM {source}"
            assert value(watcher, models) == ["beta"]
            watcher.execute("SET ROLE llm_test_beta")
            assert value(watcher, models) == ["beta"]
            watcher.execute("SET ROLE llm_test_acme")
            assert value(watcher, models) is None
            watcher.execute("RESET ROLE")
    watcher.close()
