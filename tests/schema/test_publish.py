"""llm_publish: another database gets a model by logical replication, whole, and nothing else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from llm_sql.models import MODELS

from ..support.durable import Durable, provisioned
from ..support.replication import (
    forget,
    make_follower,
    subscribe,
    subscribed,
    unsubscribe,
    wait_for_apply,
    wait_for_copy,
    waiting,
)
from ..support.small_models import Connection, make_model, make_names, names_query, train
from ..support.tensors import value
from ..support.waiting import wait_for

TABLES = (
    "llm_adapter",
    "llm_bpe_merges",
    "llm_bpe_vocab",
    "llm_model_config",
    "llm_param",
    "llm_tokenizer",
)
SETTINGS = {"wal_level": "logical", "wal_retrieve_retry_interval": "100ms", "max_worker_processes": "20"}
READS = (
    "SELECT llm_generate('emma', 12, 1, 5, 0.9, %s, 7)",
    "SELECT string_agg(token, '|') FROM llm_generate_stream('em', 12, 1, 5, 0.9, %s, 7)",
    "SELECT llm_encode('oliviaemma', %s)",
    "SELECT llm_perplexity(%s, 'emma')",
    "SELECT llm_embed_text('emma', %s)::text",
    "SELECT md5(llm_logits('{1,2,3}', %s)::text)",
    "SELECT sum(rank * rank) FROM llm_beam_search('em', 3, 6, %s)",
)
QUOTED = 'Emma\'s "own" модель, and forty-four bytes more of it'


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Durable, Durable]]:
    with provisioned(**SETTINGS) as publisher, provisioned(**SETTINGS) as subscriber:
        with publisher.connect() as conn:
            make_follower(conn)
            make_bpe(conn, "served")
            make_names(conn, "other")
            make_names(conn, QUOTED)
            # Sent as the numbers that they are, and float32 on the other side.
            conn.execute("UPDATE llm_param SET data = pg_llm_to_bf16(data) WHERE model = %s", (QUOTED,))
        yield publisher, subscriber


def make_bpe(conn: Connection, model: str) -> None:
    """A model with byte pair encoding, trained, whose token embedding is in two parts."""
    conn.execute("SELECT llm_train_bpe(%s, %s, 280)", (model, names_query()))
    make_model(conn, model, vocab=280, n_positions=16)
    conn.execute("SELECT llm_fill_dataset(%s, %s, 16)", (model, names_query()))
    train(conn, model, 3, lr_max=0.01)
    conn.execute(
        """WITH whole AS (
            DELETE FROM llm_param WHERE model = %(m)s AND name = 'wte.weight' RETURNING *
        )
        INSERT INTO llm_param (model, name, token_id, data, m, v, step)
        SELECT model, name, f, pg_llm_slice(data, 0, f, t), pg_llm_slice(m, 0, f, t),
            pg_llm_slice(v, 0, f, t), step
        FROM whole, (VALUES (0, 200), (200, 280)) p (f, t)""",
        {"m": model},
    )


@pytest.fixture
def pair(servers: tuple[Durable, Durable]) -> Iterator[tuple[Connection, Connection]]:
    """Sessions on publisher and subscriber, where nothing of the models is."""
    with servers[0].connect() as publisher, servers[1].connect() as subscriber:
        yield publisher, subscriber
        unsubscribe(subscriber)
        for model in ("served", "other", QUOTED, "renamed"):
            forget(subscriber, model)


def answers(conn: Connection, model: str) -> list[Any]:
    return [value(conn, statement, (model,)) for statement in READS]


def digest(conn: Connection, model: str) -> Any:
    """Of all that the model's rows hold, but what stays at home; moments as bits."""
    return conn.execute(
        """SELECT (SELECT md5(string_agg(md5(data::bytea) || name || token_id || step || layer::text, ' '
                ORDER BY name, token_id)) FROM llm_param WHERE model = %(m)s),
            (SELECT to_jsonb(c) - 'created_at' FROM llm_model_config c WHERE model = %(m)s),
            (SELECT md5(string_agg(v::text, ' ' ORDER BY token_id)) FROM llm_bpe_vocab v WHERE model = %(m)s),
            (SELECT md5(string_agg(b::text, ' ' ORDER BY rank)) FROM llm_bpe_merges b WHERE model = %(m)s)""",
        {"m": model},
    ).fetchone()


def models_of(conn: Connection) -> set[str]:
    """Models of which a table has rows, and which are not seeded."""
    query = " UNION ".join(f"SELECT model FROM {table}" for table in TABLES)
    return {row[0] for row in conn.execute(query).fetchall()} - {seed["model"] for seed in MODELS}


@pytest.mark.parametrize("model", ["served", QUOTED])
def test_a_subscriber_has_the_model_and_nothing_else(
    servers: tuple[Durable, Durable], pair: tuple[Connection, Connection], model: str
) -> None:
    publisher, subscriber = pair
    name = value(publisher, "SELECT llm_publish(%s)", (model,))
    assert len(name.encode()) <= 63
    with subscribed(servers[0], subscriber, model):
        assert models_of(subscriber) == {model}
        assert digest(subscriber, model) == digest(publisher, model)
        assert answers(subscriber, model) == answers(publisher, model)
        assert value(subscriber, "SELECT count(*) FROM llm_param WHERE num_nonnulls(grad, m, v) > 0") == 0
        # what comes later, too; and nothing of another model's
        before = answers(subscriber, model)
        train(publisher, model, 2, lr_max=0.05, keep_grad=True)
        train(publisher, "other", 1)
        wait_for_apply(publisher, subscriber)
        assert models_of(subscriber) == {model}
        assert digest(subscriber, model) == digest(publisher, model)
        assert answers(subscriber, model) == answers(publisher, model) != before
        assert value(subscriber, "SELECT count(*) FROM llm_param WHERE num_nonnulls(grad, m, v) > 0") == 0
        # no parameter, no token changed here: the subscriber may evaluate and train as with any model
        with subscriber.transaction(force_rollback=True):
            subscriber.execute("SELECT llm_fill_dataset(%s, %s, 16)", (model, names_query()))
            train(subscriber, model, 1)


def test_two_models_by_two_subscriptions(
    servers: tuple[Durable, Durable], pair: tuple[Connection, Connection]
) -> None:
    publisher, subscriber = pair
    for model in ("served", "other"):
        publisher.execute("SELECT llm_publish(%s)", (model,))
    with (
        subscribed(servers[0], subscriber, "served"),
        subscribed(servers[0], subscriber, "other", "served_too"),
    ):
        for model in ("served", "other"):
            assert answers(subscriber, model) == answers(publisher, model)
            train(publisher, model, 1, lr_max=0.05)
        wait_for_apply(publisher, subscriber)
        wait_for_apply(publisher, subscriber, "served_too")
        for model in ("served", "other"):
            assert digest(subscriber, model) == digest(publisher, model)


def test_every_version_arrives_whole(
    servers: tuple[Durable, Durable], pair: tuple[Connection, Connection]
) -> None:
    """While the publisher commits every step, each result on the subscriber is one committed version's."""
    publisher, subscriber = pair
    publisher.execute("SELECT llm_publish('served')")
    committed: set[Any] = set()
    done = threading.Event()

    def results(conn: Connection) -> tuple[Any, ...]:
        # all of its parts at once: logits use every parameter; the step is that of the rows read
        return tuple(value(conn, READS[5], ("served",)) for _ in range(1))

    def read(seen: list[Any]) -> None:
        with servers[1].connect() as conn:
            while not done.is_set():
                seen.append(results(conn))

    with subscribed(servers[0], subscriber, "served"):
        committed.add(results(publisher))
        seen: list[list[Any]] = [[], []]
        readers = [threading.Thread(target=read, args=(each,)) for each in seen]
        for reader in readers:
            reader.start()
        try:
            for _ in range(25):
                train(publisher, "served", 1, lr_max=0.02)
                committed.add(results(publisher))
            wait_for_apply(publisher, subscriber)
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert len(committed) == 26
        for each in seen:
            assert set(each) <= committed
        assert len({result for each in seen for result in each}) > 3
        assert results(subscriber) == results(publisher)


def test_an_adapter_beside_its_base(
    servers: tuple[Durable, Durable], pair: tuple[Connection, Connection]
) -> None:
    publisher, subscriber = pair
    publisher.execute("SELECT llm_create_adapter('tuned', 'served', 2)")
    publisher.execute("UPDATE llm_param SET data = pg_llm_add(data, '0.2'::tensor) WHERE model = 'tuned'")
    try:
        for model in ("served", "tuned"):
            publisher.execute("SELECT llm_publish(%s)", (model,))
        expected = answers(publisher, "tuned")
        assert expected != answers(publisher, "served")
        with (
            subscribed(servers[0], subscriber, "served"),
            subscribed(servers[0], subscriber, "tuned", "tuned"),
        ):
            assert answers(subscriber, "tuned") == expected
    finally:
        publisher.execute("SELECT llm_unpublish('tuned')")
        publisher.execute("SELECT llm_drop_model('tuned')")


@pytest.mark.parametrize("late", TABLES)
def test_a_half_copied_model_is_refused(
    servers: tuple[Durable, Durable], pair: tuple[Connection, Connection], late: str
) -> None:
    publisher, subscriber = pair
    publisher.execute("SELECT llm_publish('served')")
    with servers[1].connect(autocommit=False) as blocker, servers[1].connect() as reader:
        blocker.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(late)))
        subscribe(servers[0], subscriber, "served")
        wait_for(lambda: waiting(subscriber) == [late], "the copy of the others")
        reader.execute("SET ROLE llm_reader")
        for conn in (reader, subscriber):
            for statement in READS:
                with pytest.raises(
                    errors.ObjectNotInPrerequisiteState, match='"served" is not complete'
                ) as caught:
                    conn.execute(statement, ("served",))
                assert late in str(caught.value.diag.message_detail)
        blocker.rollback()
        wait_for_copy(subscriber)
        for conn in (reader, subscriber):
            assert answers(conn, "served") == answers(publisher, "served")


@pytest.mark.parametrize(
    ("late", "problem"),
    [
        ("llm_bpe_vocab", (errors.UndefinedObject, "no tokenizer")),
        ("llm_model_config", (errors.UndefinedObject, "does not exist")),
        ("llm_param", (errors.NoDataFound, "no weights")),
    ],
)
def test_a_copy_that_was_given_up_is_refused(
    servers: tuple[Durable, Durable],
    pair: tuple[Connection, Connection],
    late: str,
    problem: tuple[type[psycopg.Error], str],
) -> None:
    """With the subscription goes what tells that the copy is not complete."""
    publisher, subscriber = pair
    publisher.execute("SELECT llm_publish('served')")
    with servers[1].connect(autocommit=False) as blocker:
        blocker.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(late)))
        subscribe(servers[0], subscriber, "served")
        wait_for(lambda: waiting(subscriber) == [late], "the copy of the others")
        unsubscribe(subscriber)
    with pytest.raises(problem[0], match=problem[1]):
        subscriber.execute(READS[0], ("served",))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM llm_param WHERE model = 'served' AND token_id = 200", "requires"),
        (
            "DELETE FROM llm_param WHERE model = 'served' AND name = 'wte.weight' AND token_id = 0",
            "do not fit",
        ),
        ("DELETE FROM llm_param WHERE model = 'served' AND name = 'h.1.ln_1.bias'", "lacks parameter"),
        ("DELETE FROM llm_bpe_vocab WHERE model = 'served' AND token_id = 260", "vocabulary"),
        ("DELETE FROM llm_arch WHERE arch = 'gpt2'", 'architecture "gpt2" of model "served" does not exist'),
    ],
)
def test_missing_rows_are_named(
    servers: tuple[Durable, Durable], pair: tuple[Connection, Connection], damage: str, problem: str
) -> None:
    """As changes leave them that are applied to rows that are not there: copy_data = false, or by hand."""
    publisher, subscriber = pair
    publisher.execute("SELECT llm_publish('served')")
    with (
        subscribed(servers[0], subscriber, "served"),
        servers[1].connect() as conn,
        conn.transaction(force_rollback=True),
    ):
        conn.execute("SET session_replication_role = replica")
        conn.execute(damage)
        with pytest.raises(psycopg.Error, match=problem):
            conn.execute(READS[0], ("served",))


def test_a_model_that_was_there_before(
    servers: tuple[Durable, Durable], pair: tuple[Connection, Connection]
) -> None:
    """Its rows collide: PostgreSQL tries again and again, and goes on once they are gone."""
    publisher, subscriber = pair
    publisher.execute("SELECT llm_publish('served')")
    make_names(subscriber, "served")
    subscribe(servers[0], subscriber, "served")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="still copying"):
        subscriber.execute(READS[0], ("served",))
    subscriber.execute("SELECT llm_drop_model('served')")
    wait_for_copy(subscriber)
    assert answers(subscriber, "served") == answers(publisher, "served")


def test_dropping_and_renaming(servers: tuple[Durable, Durable], pair: tuple[Connection, Connection]) -> None:
    publisher, subscriber = pair
    make_names(publisher, "brief")
    publisher.execute("SELECT llm_publish('brief')")
    with subscribed(servers[0], subscriber, "brief"):
        publisher.execute("SELECT llm_rename_model('brief', 'renamed')")
        wait_for_apply(publisher, subscriber)
        assert models_of(subscriber) == set()
        publisher.execute("SELECT llm_rename_model('renamed', 'brief')")
        wait_for_apply(publisher, subscriber)
        assert digest(subscriber, "brief") == digest(publisher, "brief")
        publisher.execute("SELECT llm_drop_model('brief')")
        wait_for_apply(publisher, subscriber)
        assert models_of(subscriber) == set()
        with pytest.raises(errors.UndefinedObject, match="does not exist"):
            subscriber.execute(READS[0], ("brief",))
        # the publication stays, and so does the subscription
        make_names(publisher, "brief")
        wait_for_apply(publisher, subscriber)
        assert answers(subscriber, "brief") == answers(publisher, "brief")
    publisher.execute("SELECT llm_unpublish('brief')")
    publisher.execute("SELECT llm_drop_model('brief')")
    with pytest.raises(errors.UndefinedObject, match="not published"):
        publisher.execute("SELECT llm_unpublish('brief')")


def test_truncating_takes_nothing_from_a_subscriber(
    servers: tuple[Durable, Durable], pair: tuple[Connection, Connection]
) -> None:
    publisher, subscriber = pair
    publisher.execute("SELECT llm_publish('served')")
    make_names(subscriber, "local")
    before = digest(subscriber, "local")
    with subscribed(servers[0], subscriber, "served"):
        with contextlib.suppress(psycopg.Rollback), publisher.transaction():
            publisher.execute("CREATE TABLE kept AS SELECT * FROM llm_bpe_vocab")
            publisher.execute("TRUNCATE llm_bpe_vocab")
        wait_for_apply(publisher, subscriber)
        assert digest(subscriber, "local") == before
        publisher.execute("INSERT INTO llm_bpe_vocab SELECT * FROM kept WHERE model <> 'served'")
        subscriber.execute("DELETE FROM llm_bpe_vocab WHERE model = 'served'")
        publisher.execute("INSERT INTO llm_bpe_vocab SELECT * FROM kept WHERE model = 'served'")
        publisher.execute("DROP TABLE kept")
        wait_for_apply(publisher, subscriber)
        assert digest(subscriber, "served") == digest(publisher, "served")
    subscriber.execute("SELECT llm_drop_model('local')")


def publication(conn: Connection, name: str) -> list[Any]:
    return conn.execute(
        "SELECT tablename, attnames, rowfilter FROM pg_publication_tables WHERE pubname = %s ORDER BY 1",
        (name,),
    ).fetchall()


def test_publishing_again(pair: tuple[Connection, Connection]) -> None:
    publisher, _ = pair
    name = value(publisher, "SELECT llm_publish('other')")
    assert name == "llm_model_other"
    made = publication(publisher, name)
    assert [row[0] for row in made] == list(TABLES)
    assert made[TABLES.index("llm_param")][1] == ["model", "name", "token_id", "data", "step", "updated_at"]
    assert all("other" in row[2] for row in made)
    publisher.execute("ALTER PUBLICATION llm_model_other DROP TABLE llm_bpe_vocab")
    assert value(publisher, "SELECT llm_publish('other')") == name
    assert publication(publisher, name) == made
    publisher.execute("SELECT llm_unpublish('other')")
    assert publication(publisher, name) == []
    publisher.execute("CREATE PUBLICATION llm_model_other FOR TABLE llm_dataset")
    for call in ("llm_publish", "llm_unpublish"):
        with pytest.raises(errors.DuplicateObject, match="did not make it"):
            publisher.execute(f"SELECT {call}('other')")
    publisher.execute("DROP PUBLICATION llm_model_other")


def test_names(pair: tuple[Connection, Connection]) -> None:
    publisher, _ = pair
    names = ["a", "A", "a" * 53, "a" * 54, "a" * 55, "é" * 13, "é" * 14, "é" * 15, "🙂" * 13, "🙂" * 200]
    found = [value(publisher, "SELECT llm_publication(%s)", (name,)) for name in names]
    assert len(set(found)) == len(names)
    assert all(len(name.encode()) <= 63 for name in found)


def test_rights(servers: tuple[Durable, Durable], pair: tuple[Connection, Connection]) -> None:
    publisher, _ = pair
    publisher.execute("CREATE ROLE tina IN ROLE llm_trainer")
    publisher.execute("CREATE ROLE olga")
    try:
        publisher.execute("SET ROLE tina")
        with pytest.raises(errors.InsufficientPrivilege, match="only the owner") as caught:
            publisher.execute("SELECT llm_publish('other')")
        assert '"llm_param" belongs to "postgres"' in str(caught.value.diag.message_detail)
        publisher.execute("RESET ROLE")
        for table in TABLES:
            publisher.execute(f"ALTER TABLE {table} OWNER TO olga")
        publisher.execute("GRANT llm_trainer TO olga")
        publisher.execute("SET ROLE olga")
        with pytest.raises(errors.InsufficientPrivilege, match="no right to create in database") as caught:
            publisher.execute("SELECT llm_publish('other')")
        hint = str(caught.value.diag.message_hint)
        publisher.execute("RESET ROLE")
        publisher.execute(hint.encode())
        publisher.execute("SET ROLE olga")
        assert value(publisher, "SELECT llm_publish('other')") == "llm_model_other"
        publisher.execute("RESET ROLE")
        publisher.execute("ALTER PUBLICATION llm_model_other OWNER TO postgres")
        publisher.execute("SET ROLE olga")
        for call in ("llm_publish", "llm_unpublish"):
            with pytest.raises(errors.InsufficientPrivilege, match='belongs to "postgres"'):
                publisher.execute(f"SELECT {call}('other')")
    finally:
        publisher.execute("RESET ROLE")
        publisher.execute("DROP PUBLICATION IF EXISTS llm_model_other")
        publisher.execute("REASSIGN OWNED BY olga TO postgres")
        publisher.execute("DROP OWNED BY olga, tina")
        publisher.execute("DROP ROLE olga, tina")


def test_refusals(pair: tuple[Connection, Connection]) -> None:
    publisher, _ = pair
    for model in ("nobody", None):
        with pytest.raises(errors.UndefinedObject, match="does not exist"):
            publisher.execute("SELECT llm_publish(%s)", (model,))
        with pytest.raises(errors.UndefinedObject, match="not published"):
            publisher.execute("SELECT llm_unpublish(%s)", (model,))
    with publisher.transaction(force_rollback=True):
        publisher.execute("ALTER TABLE llm_param REPLICA IDENTITY FULL")
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match=r"replica identity.*llm_param"):
            publisher.execute("SELECT llm_publish('other')")


def test_wal_level(conn: Connection) -> None:
    make_model(conn)
    if value(conn, "SHOW wal_level") == "logical":
        pytest.skip("this server's wal_level is logical")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="wal_level is") as caught:
        conn.execute("SELECT llm_publish('tiny')")
    assert "logical" in str(caught.value.diag.message_hint)
