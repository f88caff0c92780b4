"""Two databases in one cluster, and an application's own Alembic in the same database."""

from __future__ import annotations

import textwrap

import psycopg
import pytest
from psycopg import sql

ENV = """
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table, create_engine

metadata = MetaData()
Table("app_user", metadata, Column("id", Integer, primary_key=True))

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, {options})
    with context.begin_transaction():
        context.run_migrations()
"""

REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "a1"
down_revision = None


def upgrade():
    op.create_table("app_user", sa.Column("id", sa.Integer, primary_key=True))


def downgrade():
    op.drop_table("app_user")
"""


@pytest.fixture
def application(tmp_path):
    """An application's Alembic, as `alembic init` would make it; it has never heard of us."""

    def make(url, options=""):
        (tmp_path / "alembic" / "versions").mkdir(parents=True)
        (tmp_path / "alembic" / "env.py").write_text(ENV.format(options=options))
        (tmp_path / "alembic" / "versions" / "a1.py").write_text(REVISION)
        escaped = url.replace("%", "%%")
        ini = f"[alembic]\nscript_location = %(here)s/alembic\nsqlalchemy.url = {escaped}\n"
        (tmp_path / "alembic.ini").write_text(textwrap.dedent(ini))
        return tmp_path

    return make


@pytest.mark.parametrize("options", ["", "include_schemas=True, compare_type=True"])
def test_an_application_does_not_see_us_as_drift(at_head, application, run_alembic, options):
    home = application(at_head.url, options)
    for arguments in (("upgrade", "head"), ("check",)):
        process = run_alembic(*arguments, cwd=home)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
    at_head.check()
    at_head.execute("CREATE TABLE app_forgotten (id integer)")
    process = run_alembic("check", cwd=home)
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "app_forgotten" in output
    assert "llm_" not in output.split("New upgrade operations detected", 1)[1]


def test_provisioning_beside_an_application(empty, application, run_alembic):
    home = application(empty.url)
    process = run_alembic("upgrade", "head", cwd=home)
    assert process.wait(timeout=600) == 0
    before = empty.catalog()
    empty.upgrade()
    empty.check()
    empty.downgrade()
    assert empty.catalog() == before
    assert empty.execute("SELECT version_num FROM alembic_version") == [("a1",)]


def roles(database):
    query = "SELECT rolname FROM pg_roles WHERE rolname IN ('llm_reader', 'llm_trainer') ORDER BY rolname"
    return [name for (name,) in database.execute(query)]


def test_roles_stay_while_another_database_uses_them(new_database):
    first, second = new_database(), new_database()
    first.upgrade()
    second.upgrade()
    first.downgrade()
    assert roles(second) == ["llm_reader", "llm_trainer"]
    second.check()
    assert second.execute("SELECT has_table_privilege('llm_reader', 'llm_param', 'SELECT')") == [(True,)]
    first.upgrade()
    first.check()


def renamed(migrations, suffix, **arguments):
    """The offline script for roles of other names, which no other database of the cluster uses."""
    return (
        migrations.script(**arguments)
        .replace("llm_reader", f"llm_reader_{suffix}")
        .replace("llm_trainer", f"llm_trainer_{suffix}")
    )


def own_roles(database, suffix):
    query = f"SELECT rolname FROM pg_roles WHERE rolname LIKE 'llm\\_%\\_{suffix}' ORDER BY rolname"
    return [name for (name,) in database.execute(query)]


def test_roles_go_with_the_last_database(empty):
    suffix = empty.name
    psql = ("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d")
    up = empty.program(*psql, text=renamed(empty, suffix))
    assert up.returncode == 0, up.stderr
    assert own_roles(empty, suffix) == [f"llm_reader_{suffix}", f"llm_trainer_{suffix}"]
    empty.execute(f"CREATE ROLE member_{suffix} IN ROLE llm_reader_{suffix}")
    down = renamed(empty, suffix, down="0004:0003")
    assert empty.program(*psql, text=down).returncode == 0
    # Somebody is still a member of the one, nobody of the other.
    assert own_roles(empty, suffix) == [f"llm_reader_{suffix}"]
    empty.execute(f"DROP ROLE member_{suffix}; DROP ROLE llm_reader_{suffix}")


@pytest.fixture
def owner(empty):
    """Owns the database and no more; an administrator has installed the extension there."""
    name = f"owner_{empty.name}"
    empty.execute(f"CREATE ROLE {name} LOGIN; ALTER DATABASE {empty.name} OWNER TO {name}")
    empty.execute("CREATE EXTENSION pg_llm")
    yield name
    empty.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")


def test_the_owner_of_the_database_can_provision_it(template, empty, owner):
    administrator, empty.url = empty.url, empty.server.sqlalchemy_url(empty.name, user=owner)
    before = empty.catalog()
    empty.upgrade()
    empty.check()
    empty.url = administrator
    empty.check()
    empty.url = empty.server.sqlalchemy_url(empty.name, user=owner)
    empty.downgrade()
    assert empty.catalog() == before


def test_provisioning_without_createrole(empty, owner):
    suffix = empty.name
    with empty.connect(user=owner, options="-c client_min_messages=notice") as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda d: notices.append(d.message_primary or ""))
        connection.execute(renamed(empty, suffix))  # type: ignore[arg-type]
    assert f"role llm_reader_{suffix} is not created: this takes CREATEROLE" in notices
    assert any("session_preload_libraries is left alone" in notice for notice in notices)
    assert own_roles(empty, suffix) == []
    assert empty.execute("SELECT count(*) > 0 FROM llm_model_config") == [(True,)]


@pytest.fixture
def member(at_head):
    """Opens connections as members of our roles, or of none."""
    made = []

    def connect(*roles):
        name = f"user_{len(made)}_{at_head.name}"
        at_head.execute(f"CREATE ROLE {name} LOGIN" + (f" IN ROLE {', '.join(roles)}" if roles else ""))
        made.append((name, at_head.connect(user=name)))
        return made[-1][1]

    yield connect
    for name, connection in made:
        connection.close()
        at_head.execute(f"DROP ROLE {name}")


TRAINING_WRITES = [
    "llm_param",
    "llm_dataset",
    "llm_train_log",
    "llm_train_run",
    "llm_clip",
    "llm_tape",
    "llm_tensor_rt",
]


def test_what_the_roles_may(member):
    reader, trainer, outsider = member("llm_reader"), member("llm_trainer"), member()
    for table in TRAINING_WRITES:
        select = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        delete = sql.SQL("DELETE FROM {}").format(sql.Identifier(table))
        reader.execute(select)
        trainer.execute(select)
        trainer.execute(delete)
        for connection, statement in ((reader, delete), (outsider, select)):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        trainer.execute("UPDATE llm_arch SET forward = 'public.mine'")


@pytest.mark.parametrize("view", ["llm_param_er", "llm_heldout", "llm_step"])
def test_views_give_nobody_more_than_the_tables(at_head, member, view):
    outsider = member()
    user = outsider.info.user
    at_head.execute(f"GRANT SELECT ON {view} TO {user}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        outsider.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(view)))
    at_head.execute(f"REVOKE SELECT ON {view} FROM {user}")
