"""doctor and provision look at what is there: damage is named, and mended where nothing is lost."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from llm_sql import provision
from llm_sql.cli import checks, database
from llm_sql.errors import LLMSQLError, NotProvisionedError
from llm_sql.migrations import build
from llm_sql.migrations.operations import SQL_DIRECTORY
from llm_sql.url import normalize_url

from ..amount import extended, only_extended

CHANGED = """
CREATE OR REPLACE FUNCTION public.llm_perplexity(a integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'
"""

# What somebody did, and a word of doctor's that names it. provision puts all of these right.
DAMAGE = {
    "a dropped function": ("DROP FUNCTION public.llm_perplexity", "llm_perplexity"),
    "a changed body": (
        "UPDATE pg_proc SET prosrc = 'BEGIN RETURN NULL; END' WHERE proname = 'llm_config'", "llm_config",
    ),
    "a changed comment": ("COMMENT ON FUNCTION public.llm_release(boolean) IS 'else'", "llm_release"),
    "a dropped view": ("DROP VIEW public.llm_step", "llm_step"),
    "a view on which another stands": ("DROP VIEW public.llm_train_progress CASCADE", "llm_train_progress"),
    "a dropped trigger": ("DROP TRIGGER llm_autograd_mode_write ON llm_autograd_mode", "llm_autograd_mode"),
    "a revoked grant": ("REVOKE SELECT ON llm_param FROM llm_reader", "llm_reader lacks SELECT"),
    "the version table's grant": (
        "REVOKE SELECT ON llm_sql_version FROM llm_reader, llm_trainer", "llm_sql_version",
    ),
    "a dropped empty table": ("DROP TABLE llm_clip CASCADE", "table llm_clip"),
    "a dropped column": ("ALTER TABLE llm_checkpoint DROP note CASCADE", "llm_checkpoint.note"),
    "a dropped index": ("DROP INDEX uq_llm_train_log_model_step", "uq_llm_train_log_model_step"),
    "a dropped check": (
        "ALTER TABLE llm_dataset DROP CONSTRAINT ck_llm_dataset_length", "ck_llm_dataset_length",
    ),
    "a default": ("ALTER TABLE llm_dataset ALTER split SET DEFAULT 'test'", "llm_dataset.split"),
    "a NOT NULL": ("ALTER TABLE llm_dataset ALTER target DROP NOT NULL", "llm_dataset.target"),
    "storage": ("ALTER TABLE llm_param ALTER data SET STORAGE EXTENDED", "storage data of llm_param"),
    "the sequence": ("DROP SEQUENCE llm_pass_seq CASCADE", "llm_pass_seq"),
    "built-in architectures": ("DELETE FROM llm_model_config; DELETE FROM llm_arch", "llm_arch gpt2"),
    "the preloaded library": ("ALTER DATABASE {database} RESET session_preload_libraries", "session_preload"),
    "the version table": ("DROP TABLE llm_sql_version", "llm_sql_version is missing"),
    "the version": ("DELETE FROM llm_sql_version", "llm_sql_version is missing"),
    "the extension": ("DROP EXTENSION pg_llm CASCADE", "not installed"),
    "the extension, made again": (
        "DROP EXTENSION pg_llm CASCADE; CREATE EXTENSION pg_llm", "column llm_param.data is missing",
    ),
    "all tables": ("DROP TABLE {tables} CASCADE", "llm_param is gone"),
}  # fmt: skip


# Damage that leaves the others to be seen: at once by default, one by one in the extended tests.
TOGETHER = {
    "objects": [
        "a dropped function", "a changed body", "a changed comment", "a dropped view", "a dropped trigger",
        "a revoked grant", "the version table's grant", "the preloaded library", "built-in architectures",
        "storage",
    ],
    "tables": [
        "a view on which another stands", "a dropped empty table", "a dropped column", "a dropped index",
        "a dropped check", "a default", "a NOT NULL", "the sequence",
    ],
}  # fmt: skip
ALONE = [name for name in DAMAGE if not any(name in names for names in TOGETHER.values())]


@pytest.fixture
def at_head(at_head):
    """Copies of a database lack its settings."""
    at_head.execute((SQL_DIRECTORY / "0004" / "preload.sql").read_text())
    return at_head


def looked_at(database):
    """doctor's lines on this database, and the statuses."""
    found = checks.examine(database.url)
    return [f"{check.status} {check.name}: {check.found} ({check.hint})" for check in found]


def assert_sound(database):
    lines = looked_at(database)
    assert not [line for line in lines if line.startswith(("failed", "warning"))], lines
    database.check()


@pytest.mark.parametrize("damages", [
    *(pytest.param(names, id=f"{kind}, together") for kind, names in TOGETHER.items()),
    *(pytest.param([name], id=name) for name in ALONE),
    *(only_extended([name], id=name) for name in DAMAGE if name not in ALONE),
])  # fmt: skip
def test_damage_is_named_and_mended(at_head, damages, monkeypatch):
    monkeypatch.setattr(checks, "SHOWN", 100)
    tables = "llm_arch, llm_model_config, llm_param, llm_tape, llm_dataset, llm_train_log, llm_train_run"
    for damage in damages:
        at_head.execute(DAMAGE[damage][0].format(database=at_head.name, tables=tables))
    lines = looked_at(at_head)
    named = [line for line in lines if line.startswith(("failed", "warning"))]
    for damage in damages:
        assert any(DAMAGE[damage][1] in line for line in named), (damage, lines)
    report = provision.provision(at_head.url)
    assert report.left == [], report
    assert report.mended, report
    assert_sound(at_head)
    assert provision.provision(at_head.url) == provision.Report(provision.head())


@pytest.mark.parametrize(
    "damage", ["the extension, made again", "the extension", "all tables", "a dropped function"]
)
def test_the_way_down_is_open_whatever_is_missing(at_head, damage):
    tables = "llm_arch, llm_model_config, llm_param, llm_tape, llm_dataset, llm_train_log, llm_train_run"
    at_head.execute(DAMAGE[damage][0].format(database=at_head.name, tables=tables))
    at_head.downgrade()
    left = at_head.execute("SELECT relname FROM pg_class WHERE relname LIKE 'llm\\_%'")
    assert left == []
    at_head.upgrade()
    assert_sound(at_head)


@extended
def test_weights_that_went_with_the_extension_are_named_with_what_to_do(at_head):
    at_head.execute("SELECT llm_create_model('m', 'gpt2', 1, 1, 4, 4, 4)")
    at_head.execute("DROP EXTENSION pg_llm CASCADE; CREATE EXTENSION pg_llm")
    report = provision.provision(at_head.url)
    ((what, hint),) = [entry for entry in report.left if "weights of model m are lost" in entry[0]]
    assert "llm_checkpoint" in hint
    assert "llm_drop_model('m')" in hint
    assert any("weights of model m are lost" in line for line in looked_at(at_head))
    at_head.execute("SELECT llm_drop_model('m')")
    assert provision.provision(at_head.url).left == [], what
    assert_sound(at_head)


def test_an_extension_of_another_version_is_named(at_head):
    at_head.execute("UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'pg_llm'")
    assert any("pg_llm 0.9 installed" in line for line in looked_at(at_head))
    ((what, _),) = provision.provision(at_head.url).left
    assert "0.9, not 1.0" in what


def test_tables_of_somebody_else_are_left_alone(empty):
    empty.execute("CREATE TABLE llm_param (id integer, note text)")
    with pytest.raises(NotProvisionedError, match="llm_param has no column") as caught:
        provision.provision(empty.url)
    assert "rename" in str(caught.value.hint)
    assert empty.execute("SELECT count(*) FROM pg_extension WHERE extname = 'pg_llm'") == [(0,)]


def test_a_function_of_somebody_elses_is_an_error_that_says_so(empty):
    empty.execute(
        "CREATE FUNCTION llm_release(shared boolean) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'"
    )
    with pytest.raises((NotProvisionedError, DBAPIError)) as caught:
        database.run_upgrade(normalize_url(empty.url))
    assert isinstance(caught.value, LLMSQLError)
    assert "llm_release" in caught.value.message
    assert "rename or drop" in caught.value.hint


def test_what_others_added_is_named_and_left(at_head):
    at_head.execute(CHANGED)
    at_head.execute("GRANT UPDATE ON llm_param TO llm_reader; ALTER TABLE llm_clip ADD mine integer")
    report = provision.provision(at_head.url)
    assert (report.left, report.mended) == ([], [])
    shown = " ".join(what for what, _ in report.foreign)
    assert all(word in shown for word in ("llm_perplexity(a integer)", "UPDATE on public.llm_param", "mine"))
    assert at_head.execute("SELECT llm_perplexity(5)") == [(1,)]


def test_a_column_of_another_type_is_left_with_what_to_do(at_head):
    at_head.execute("ALTER TABLE llm_train_log ALTER lr TYPE real")
    ((what, hint),) = provision.provision(at_head.url).left
    assert "llm_train_log.lr" in what
    assert "downgrade base" in hint


def test_dropped_roles_come_back_with_their_grants(at_head, server):
    at_head.execute("DROP OWNED BY llm_reader")
    lines = looked_at(at_head)
    assert any("llm_reader lacks" in line for line in lines), lines
    assert provision.provision(at_head.url).left == []
    assert_sound(at_head)


def comment(database):
    return database.execute("SELECT obj_description('llm_sql_version'::regclass)")[0][0]


@extended
def test_another_build_of_the_same_revision_is_noticed(at_head):
    ours = build.of_revision(provision.head())
    assert build.read(comment(at_head)) == ours
    other = ours._replace(schema="0" * 12, kernels="1" * 12)
    for note in (f"'{other.comment}'", "NULL"):
        at_head.execute(f"COMMENT ON TABLE llm_sql_version IS {note}")
        assert any(
            line.startswith("warning build: provisioned by another build") for line in looked_at(at_head)
        )
        assert provision.provision(at_head.url).left == []
        assert build.read(comment(at_head)) == ours


def test_what_two_builds_differ_in_is_shown(at_head):
    ours = build.of_revision(provision.head())
    for other in (ours._replace(schema="0" * 12), ours._replace(kernels="1" * 12)):
        at_head.execute(f"COMMENT ON TABLE llm_sql_version IS '{other.comment}'")
        line = next(line for line in looked_at(at_head) if line.startswith("warning build"))
        for mine, theirs in zip(ours, other, strict=True):
            assert mine == theirs or (mine in line and theirs in line), line


def test_another_builds_extension_is_left_with_what_to_do(at_head):
    at_head.execute("COMMENT ON TABLE llm_sql_version IS NULL")
    at_head.execute("ALTER FUNCTION public.pg_llm_gelu(tensor) STABLE")
    at_head.execute("ALTER EXTENSION pg_llm DROP FUNCTION public.pg_llm_megatron_order; "
                    "DROP FUNCTION public.pg_llm_megatron_order")  # fmt: skip
    line = next(line for line in looked_at(at_head) if line.startswith("failed build"))
    assert all(word in line for word in ("pg_llm_gelu", "pg_llm_megatron_order", "downgrade base"))
    left = provision.provision(at_head.url).left
    assert any("pg_llm_gelu" in what and "downgrade base" in hint for what, hint in left)
    assert comment(at_head) is None, "the note is of what is there"


def test_partial_upgrades_note_the_build_that_made_them(empty):
    empty.upgrade("0002")
    assert build.read(comment(empty)) == build.of_revision("0002")
    empty.upgrade()
    assert build.read(comment(empty)) == build.of_revision(provision.head())
    empty.downgrade("0003")
    other = build.of_revision("0003")._replace(schema="0" * 12)
    empty.execute(f"COMMENT ON TABLE llm_sql_version IS '{other.comment}'")
    empty.upgrade()
    assert build.read(comment(empty)).schema == "0" * 12, "part of it is still the other build's"


def test_objects_without_their_revision_are_an_error_that_says_so(at_head):
    at_head.execute("UPDATE llm_sql_version SET version_num = '0002'")
    with pytest.raises(NotProvisionedError, match="already exists"):
        database.run_upgrade(normalize_url(at_head.url))


def test_a_revision_of_a_newer_llm_sql_is_named(at_head):
    at_head.execute("UPDATE llm_sql_version SET version_num = '0099'")
    with pytest.raises(NotProvisionedError, match="0099"):
        database.run_upgrade(normalize_url(at_head.url))


@pytest.fixture
def login(at_head):
    """Makes a login role that goes with the test."""
    names = []

    def make(name, *memberships):
        names.append(name)
        at_head.execute(f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN")
        for role in memberships:
            at_head.execute(f"GRANT {role} TO {name}")
        return at_head.server.sqlalchemy_url(at_head.name, user=name)

    yield make
    for name in names:
        at_head.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("role", ["llm_reader", "llm_trainer"])
def test_doctor_and_provision_work_for_each_role(at_head, login, role):
    url = login(f"as_{role}", role)
    statuses = {check.name: check for check in checks.examine(url)}
    assert {name for name, check in statuses.items() if check.status == "failed"} == set(), statuses
    assert statuses["objects"].status == "ok"
    assert statuses["build"].status == "ok"
    database.open_engine(url).dispose()
    assert provision.provision(url).left == []


def test_doctor_tells_a_role_without_grants_what_it_lacks(at_head, login):
    url = login("as_nobody")
    line = next(check for check in checks.examine(url) if check.name == "schema")
    assert line.status == "warning"
    assert "GRANT llm_reader TO as_nobody" in line.hint
    database.open_engine(url).dispose()


def test_a_library_that_is_gone_locks_nobody_out_for_good(at_head):
    """As the hint says, a superuser gets in by PGOPTIONS; sessions then start again."""
    at_head.execute(f"ALTER DATABASE {at_head.name} SET session_preload_libraries = 'pg_llm_gone'")
    with pytest.raises(psycopg.OperationalError, match="pg_llm_gone"):
        at_head.connect()
    with at_head.connect(options="-c session_preload_libraries=") as connection:
        connection.execute(f"ALTER DATABASE {at_head.name} RESET session_preload_libraries".encode())
    at_head.connect().close()
