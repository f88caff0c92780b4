"""The release after this one, rehearsed: its revision and its extension scripts, up and down.

The database holds a trained model, a checkpoint, and a user's own tables, views and functions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from llm_sql import provision
from llm_sql.cli import checks
from llm_sql.migrations import build

from ..amount import extended
from .conftest import Migrations
from .next_release import CHANGED_LINE, NEXT, NEXT_KERNELS, PRESENT, PRESENT_KERNELS, NextRelease

TEXTS = "SELECT unnest('{emma ate an apple,olivia runs,ava sees emma,noah and liam sing}'::text[])"
TRAIN = """
SELECT llm_train(
    'small', 3, batch_size => 2, lr_max => 1e-2, warmup => 0, dropout_p => 0.1, seed => 7, log_every => 0)
"""
# What a user builds on ours: types, functions, views and rows of their own.
LIVED_IN = f"""
SELECT llm_create_model('small', 'gpt2', 2, 2, 16, 24, llm_build_char_tokenizer('small', $${TEXTS}$$), 5);
SELECT llm_fill_dataset('small', $${TEXTS}$$, block_size => 12, validation => 0.25, seed => 1);
{TRAIN};
SELECT llm_checkpoint_save('small', 'before the upgrade');
CREATE SCHEMA mine;
CREATE TABLE mine.notes (
    id int PRIMARY KEY, body text, embedding tensor, model text REFERENCES llm_model_config (model));
INSERT INTO mine.notes
SELECT row_number() OVER (), t, llm_embed_text(t, 'small'), 'small' FROM ({TEXTS}) AS n (t);
CREATE TABLE mine.kept AS SELECT name, data, grad, m, v, step FROM llm_param WHERE model = 'small';
CREATE VIEW mine.continued AS
SELECT id, llm_generate(body, 8, model => 'small', seed => id) AS text,
    llm_perplexity('small', body) AS surprise
FROM mine.notes;
CREATE VIEW mine.learned AS SELECT * FROM llm_train_log WHERE model = 'small';
CREATE FUNCTION mine.nearest(query text) RETURNS int LANGUAGE sql
BEGIN ATOMIC
SELECT id FROM mine.notes ORDER BY norm(embedding - llm_embed_text(query, 'small')) LIMIT 1;
END
"""
# What must stay the same to the bit.
WEIGHTS = "SELECT name, token_id, data::bytea, m::bytea, v::bytea, step FROM llm_param"
OF_USERS = {
    "weights": WEIGHTS,
    "rows of weights": "SELECT model, name, grad::bytea, layer, updated_at FROM llm_param",
    "checkpoint": "SELECT * FROM llm_checkpoint",
    "log": "SELECT * FROM mine.learned",
    "runs": "SELECT * FROM llm_train_run",
    "data": "SELECT * FROM llm_dataset",
    "vocabulary": "SELECT * FROM llm_bpe_vocab",
    "models": "SELECT * FROM llm_model_config",
    "notes": "SELECT id, body, embedding::bytea, model FROM mine.notes",
    "copy": "SELECT name, data::bytea, m::bytea, v::bytea FROM mine.kept",
    "written": "SELECT id, text, surprise::text FROM mine.continued",
    "nearest": "SELECT mine.nearest('noah and liam')",
}


def of_users(database: Migrations) -> dict[str, list[tuple[Any, ...]]]:
    return {name: sorted(database.execute(query), key=repr) for name, query in OF_USERS.items()}


def shape(database: Migrations) -> set[tuple[Any, ...]]:
    """The catalog, but for the traces of the way: dropped columns, privileges that were given and revoked."""
    return {(*row[:3], row[4]) for row in database.catalog() if "pg.dropped" not in row[2]}


class Offer:
    """Lets databases of the server see the next release's extension scripts, without a change of its own."""

    def __init__(self, server: Any, release: NextRelease) -> None:
        self.server = server
        self.release = release
        self.scripts = sorted(release.kernels.glob("pg_llm*.sql"))

    def to(self, database: Migrations) -> None:
        if self.version() >= 180000:
            ((path,),) = database.execute("SHOW extension_control_path")
            self.server.execute(
                sql.SQL("ALTER DATABASE {} SET extension_control_path = {}").format(
                    sql.Identifier(database.name), f"{self.release.folder / 'share'}:{path}"
                )
            )
        versions = database.execute(
            "SELECT version FROM pg_available_extension_versions WHERE name = 'pg_llm'"
        )
        if (NEXT_KERNELS,) not in versions:
            pytest.skip("the server runs on another machine, which does not see this one's files")

    def version(self) -> int:
        with psycopg.connect(self.server.url()) as connection:
            return connection.info.server_version

    def files(self, stack: ExitStack) -> None:
        """Since 18 a database can have its own folder; before it there is only the server's."""
        if self.version() >= 180000:
            folder = self.release.folder / "share" / "extension"
            folder.mkdir(parents=True)
            for path in (*self.scripts, self.release.kernels / "pg_llm.control"):
                shutil.copy(path, folder)
            for path in (self.release.folder, folder.parent, folder):
                path.chmod(0o755)
            return
        with psycopg.connect(self.server.url()) as connection:
            row = connection.execute("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'").fetchone()
        folder = Path(row[0] if row else "") / "extension"
        try:
            for path in self.scripts:
                if not (folder / path.name).exists():
                    shutil.copy(path, folder)
                    stack.callback((folder / path.name).unlink)
        except OSError as error:
            pytest.skip(f"no extension script can be added to the server's before PostgreSQL 18: {error}")


@pytest.fixture(scope="module")
def release() -> Iterator[NextRelease]:
    # Directly below /tmp: the server's account must be able to read there.
    folder = Path(tempfile.mkdtemp(prefix="llm-sql-next-", dir="/tmp"))
    try:
        made = NextRelease(folder)
        made.change_kernels()
        made.change_declarations()
        yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def offer(server: Any, release: NextRelease) -> Iterator[Offer]:
    made = Offer(server, release)
    with ExitStack() as stack:
        made.files(stack)
        yield made


@pytest.fixture(scope="module")
def revision(server: Any, template: str, release: NextRelease, offer: Offer) -> str:
    """The revision that autogenerate writes on a database at the present head."""
    name = server.create_database(template, prefix="migrations")
    try:
        database = Migrations(server, name)
        offer.to(database)
        message = "scales of the weights"
        release.alembic("revision", "--autogenerate", "-m", message, "--rev-id", NEXT, url=database.url)
    finally:
        server.drop_database(name)
    (written,) = release.versions.glob(f"{NEXT}_*.py")
    return written.read_text()


@pytest.fixture
def lived_in(at_head: Migrations, offer: Offer, revision: str) -> Migrations:
    """At the present head, with a model, a checkpoint and a user's own."""
    offer.to(at_head)
    at_head.execute(LIVED_IN)
    return at_head


def test_the_revision_can_be_read(release: NextRelease, revision: str) -> None:
    upgrade, _, downgrade = revision.partition("def downgrade")
    for text, steps in (
        (upgrade, (f'update_kernels("{NEXT_KERNELS}")', "grants.sql", "add_column", "upgrade.sql")),
        (downgrade, ("downgrade.sql", "drop_column", f'update_kernels("{PRESENT_KERNELS}")', "grants.sql")),
    ):
        places = [text.index(step) for step in steps]
        assert places == sorted(places), text
    assert "Column('scales', Tensor()" in upgrade
    up, down = ((release.sql / f"{name}.sql").read_text() for name in ("upgrade", "downgrade"))
    assert CHANGED_LINE in up
    assert up.count("CREATE OR REPLACE FUNCTION public.llm_generate(") == 1, (
        "the overload that did not change is left out"
    )
    assert CHANGED_LINE not in down
    assert "CREATE OR REPLACE FUNCTION public.llm_generate(" in down
    assert "DROP FUNCTION public.llm_scales" in down


def test_up_and_down_keep_what_users_have(lived_in: Migrations, release: NextRelease) -> None:
    before, catalog = of_users(lived_in), shape(lived_in)
    release.alembic("upgrade", "head", url=lived_in.url)
    release.alembic("check", url=lived_in.url)
    assert lived_in.execute("SELECT extversion FROM pg_extension WHERE extname = 'pg_llm'") == [
        (NEXT_KERNELS,)
    ]
    assert lived_in.execute("SELECT DISTINCT llm_scales('small')") == [(1.0,)]
    checkpoint = lived_in.execute("SELECT max(id) FROM llm_checkpoint")[0][0]
    assert of_users(lived_in) == before
    release.alembic("downgrade", "-1", url=lived_in.url)
    assert of_users(lived_in) == before
    assert shape(lived_in) == catalog
    lived_in.check()
    lived_in.execute(f"SELECT llm_checkpoint_load('small', {checkpoint})")
    assert sorted(lived_in.execute(WEIGHTS), key=repr) == before["weights"]


@extended
def test_training_goes_on_as_without_an_upgrade(
    lived_in: Migrations, new_database: Callable[..., Migrations], release: NextRelease
) -> None:
    """Steps before, between and after: the same bits as in a database that was left alone."""
    alone = new_database(lived_in.name)
    for steps in (
        (("upgrade", "head"),),
        (("downgrade", PRESENT), ("upgrade", "head"), ("downgrade", PRESENT)),
    ):
        for step in steps:
            release.alembic(*step, url=lived_in.url)
        for database in (alone, lived_in):
            database.execute(TRAIN)
        for query in (
            f"{WEIGHTS} ORDER BY name, token_id",
            "SELECT step, loss, lr FROM llm_train_log ORDER BY step",
            "SELECT id, text, surprise FROM mine.continued ORDER BY id",
        ):
            assert lived_in.execute(query) == alone.execute(query)
    lived_in.execute("SELECT llm_checkpoint_save('small')")


@extended
def test_provision_and_doctor_find_nothing_wrong(lived_in: Migrations, release: NextRelease) -> None:
    noted = "SELECT obj_description('llm_sql_version'::regclass)"
    ours = build.of_revision(PRESENT).comment
    assert lived_in.execute(noted) == [(ours,)]
    release.llm_sql("provision", url=lived_in.url)
    release.alembic("check", url=lived_in.url)
    ((after,),) = lived_in.execute(noted)
    assert f"revision {NEXT}, " in after
    report = release.llm_sql("doctor", url=lived_in.url)
    assert "another build" not in report, report
    assert f"revision {NEXT}" in report, report
    release.alembic("downgrade", PRESENT, url=lived_in.url)
    assert lived_in.execute(noted) == [(ours,)], "what a release before notes of its own build is still so"
    statuses = {check.name: check.status for check in checks.examine(lived_in.url)}
    assert (statuses["objects"], statuses["build"]) == ("ok", "ok"), statuses
    assert provision.provision(lived_in.url).mended == []


@extended
def test_the_script_for_psql_does_the_same(
    lived_in: Migrations, new_database: Callable[..., Migrations], release: NextRelease, offer: Offer
) -> None:
    other = new_database(lived_in.name)
    offer.to(other)
    before, catalog = of_users(other), shape(other)
    release.alembic("upgrade", "head", url=lived_in.url)
    for command, span in (("upgrade", f"{PRESENT}:{NEXT}"), ("downgrade", f"{NEXT}:{PRESENT}")):
        script = release.alembic(command, span, "--sql", url=other.url)
        psql = other.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", text=script)
        assert psql.returncode == 0, psql.stderr
        assert of_users(other) == before
        if command == "upgrade":
            assert other.catalog() == lived_in.catalog()
    assert shape(other) == catalog


MEMBERS = """
SELECT pg_describe_object(d.classid, d.objid, 0), p.proacl::text, p.prosrc, p.provolatile::text,
    p.proparallel::text, obj_description(d.objid, c.relname)
FROM pg_depend AS d
JOIN pg_extension AS e
    ON e.oid = d.refobjid AND e.extname = 'pg_llm' AND d.refclassid = 'pg_extension'::regclass
JOIN pg_class AS c ON c.oid = d.classid
LEFT JOIN pg_proc AS p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
WHERE d.deptype = 'e'
"""


def test_both_ways_to_the_new_extension_lead_to_the_same(empty: Migrations, offer: Offer) -> None:
    offer.to(empty)
    members = []
    for version in (NEXT_KERNELS, PRESENT_KERNELS):
        empty.execute(f"CREATE EXTENSION pg_llm VERSION '{version}'")
        empty.execute(f"ALTER EXTENSION pg_llm UPDATE TO '{NEXT_KERNELS}'")
        members.append(set(empty.execute(MEMBERS)))
        empty.execute("DROP EXTENSION pg_llm")
    assert members[0] == members[1]


@extended
def test_an_extension_that_is_newer_stays(
    empty: Migrations, offer: Offer, release: NextRelease, revision: str
) -> None:
    """An administrator may have installed it before: the first revision does not take it back."""
    offer.to(empty)
    empty.execute(f"CREATE EXTENSION pg_llm VERSION '{NEXT_KERNELS}'")
    empty.execute("CREATE VIEW uses_it AS SELECT pg_llm_rank('[1]'::tensor)")
    release.alembic("upgrade", "head", url=empty.url)
    release.alembic("check", url=empty.url)


@extended
def test_what_cannot_go_leaves_everything_as_it_was(lived_in: Migrations, release: NextRelease) -> None:
    release.alembic("upgrade", "head", url=lived_in.url)
    lived_in.execute("CREATE VIEW mine.ranks AS SELECT name, pg_llm_rank(data) FROM llm_param")
    before, catalog = of_users(lived_in), lived_in.catalog()
    with pytest.raises(AssertionError, match=r"view mine\.ranks depends on"):
        release.alembic("downgrade", "-1", url=lived_in.url)
    assert (of_users(lived_in), lived_in.catalog()) == (before, catalog)
