"""Memory is never taken for rows that hold something else, by whatever way rows became others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg import errors

from ..support.small_models import Connection, add_rows, make_model, make_trainable, train, weights
from ..support.tensors import value

Connect = Callable[..., Connection]

# llm_param's rows as they were loaded, and others: same names, same order, same sizes.
OTHERS = """
CREATE TEMP TABLE a AS SELECT model, name, token_id, data, m, v, step FROM llm_param ORDER BY name, token_id;
CREATE TEMP TABLE b AS
    SELECT model, name, token_id, data * 2.0::double precision AS data, m, v, step FROM a;
"""
FILL = (
    "INSERT INTO llm_param (model, name, token_id, data, m, v, step) SELECT * FROM {} ORDER BY name, token_id"
)
EMPTY_A = ("TRUNCATE llm_param", FILL.format("a"))
EMPTY_B = ("TRUNCATE llm_param", FILL.format("b"))
READ = "read"  # memory becomes what the table holds now

WAYS: dict[str, tuple[str, ...]] = {
    "truncate twice": (*EMPTY_A, READ, *EMPTY_B),
    "truncate three times": (*EMPTY_A, *EMPTY_B, *EMPTY_A, READ, *EMPTY_B),
    "truncate to nothing and back": (*EMPTY_A, READ, "TRUNCATE llm_param", READ, FILL.format("b")),
    "truncate after a rewrite": ("ALTER TABLE llm_param SET UNLOGGED", "DELETE FROM llm_param", FILL.format("a"), READ, *EMPTY_B),  # noqa: E501
    "truncate after cluster": ("CLUSTER llm_param USING pk_llm_param", *EMPTY_A, READ, *EMPTY_B),
    "cluster": (READ, "CLUSTER llm_param USING pk_llm_param", *EMPTY_B),
    "delete and insert": (READ, "DELETE FROM llm_param", FILL.format("b")),
    "delete and insert after truncate": (*EMPTY_A, READ, "DELETE FROM llm_param", FILL.format("b")),
    "truncate in a savepoint that is kept": (*EMPTY_A, READ, "SAVEPOINT s", *EMPTY_B, "RELEASE s"),
    "truncate in a savepoint that is rolled back": (
        READ, "SAVEPOINT s", *EMPTY_B, READ, "ROLLBACK TO s", READ, *EMPTY_B, READ, "SAVEPOINT t", *EMPTY_A,
    ),
    "updates in savepoints": (
        READ, "SAVEPOINT s", "UPDATE llm_param SET data = b.data FROM b WHERE (llm_param.name, llm_param.token_id) = (b.name, b.token_id)",  # noqa: E501
        READ, "ROLLBACK TO s", READ, "UPDATE llm_param SET data = pg_llm_neg(data)",
        READ, "SAVEPOINT s", "UPDATE llm_param SET data = pg_llm_neg(data)", READ, "RELEASE s",
    ),
    "inserts in savepoints": (
        "DELETE FROM llm_param", "SAVEPOINT s", FILL.format("a"), READ, "ROLLBACK TO s", READ,
        "SAVEPOINT s", FILL.format("b"), READ, "RELEASE s", READ,
    ),
    "rewrites": (
        READ, "ALTER TABLE llm_param ADD drawn float DEFAULT random()", READ, *EMPTY_B, READ,
        "ALTER TABLE llm_param DROP drawn", "ALTER TABLE llm_param ADD drawn float DEFAULT random()",
        *EMPTY_A, READ, "ALTER TABLE llm_param DROP drawn", *EMPTY_B,
    ),
    "created and truncated": (
        "ALTER TABLE llm_param RENAME TO llm_was",
        "CREATE TABLE llm_param (LIKE llm_was INCLUDING DEFAULTS INCLUDING GENERATED)",
        FILL.format("a"), READ, *EMPTY_B, READ, *EMPTY_A, READ, *EMPTY_B, READ,
        "DROP TABLE llm_param", "ALTER TABLE llm_was RENAME TO llm_param",
    ),
    "moved into TOAST and out of it": (
        READ, "ALTER TABLE llm_param ALTER data SET STORAGE MAIN",
        "UPDATE llm_param SET data = pg_llm_neg(data)", READ,
        "ALTER TABLE llm_param ALTER data SET STORAGE EXTERNAL, SET (toast_tuple_target = 128)",
        "UPDATE llm_param SET data = pg_llm_neg(data)", READ, "UPDATE llm_param SET step = step", READ,
        "ALTER TABLE llm_param RESET (toast_tuple_target)",
    ),
    "another column": (
        READ, "UPDATE llm_param SET step = step + 1", READ, "UPDATE llm_param SET m = data", READ,
    ),
    "combined command ids": (
        # Deleting what the same transaction inserted leaves, when it is rolled back, a small number in its place.  # noqa: E501
        "TRUNCATE llm_param", *("SELECT 1",) * 3, FILL.format("a"),
        "SAVEPOINT s", "DELETE FROM llm_param", "ROLLBACK TO s", READ,
        "TRUNCATE llm_param", FILL.format("b"), "SAVEPOINT t", "DELETE FROM llm_param", "ROLLBACK TO t",
    ),
    "as a replica": (READ, "SET LOCAL session_replication_role = replica", "UPDATE llm_param SET data = b.data FROM b"  # noqa: E501
                     " WHERE (llm_param.name, llm_param.token_id) = (b.name, b.token_id)"),
    "columns change names": (
        "UPDATE llm_param SET m = data * 3.0::double precision", READ,
        "ALTER TABLE llm_param RENAME data TO was_data", "ALTER TABLE llm_param RENAME m TO data",
        "ALTER TABLE llm_param RENAME was_data TO m",
    ),
    "tables change names": (
        "CREATE TABLE llm_other (LIKE llm_param INCLUDING DEFAULTS INCLUDING GENERATED)",
        "INSERT INTO llm_other (model, name, token_id, data, m, v, step) SELECT * FROM b ORDER BY name, token_id",  # noqa: E501
        *EMPTY_A, READ, "ALTER TABLE llm_param RENAME TO llm_was", "ALTER TABLE llm_other RENAME TO llm_param",  # noqa: E501
    ),
}  # fmt: skip


def differing(conn: Connection, model: str = "tiny") -> int:
    """Parameters that memory holds otherwise than the table."""
    n = value(
        conn, "SELECT count(*) FROM llm_param WHERE model = %s AND llm_weight(model, name) <> data", (model,)
    )
    assert isinstance(n, int)
    return n


def read(conn: Connection) -> None:
    """Both kinds of memory, of those who read and of those who train, hold what the table holds."""
    if value(conn, "SELECT count(*) FROM llm_param") > 0:
        assert differing(conn) == 0
        conn.execute("SELECT llm_materialize_params('tiny')")
        with conn.transaction():
            conn.execute("SELECT llm_pin('tiny', true)")
            same = "bool_and(pg_llm_arena_same(model, name, token_id, data, m, v))"
            assert value(conn, f"SELECT {same} FROM llm_param WHERE model = 'tiny'") is True
            conn.execute("SELECT pg_llm_arena_close('tiny')")


@pytest.mark.parametrize("way", WAYS)
def test_weights(fresh_conn: Connection, way: str) -> None:
    conn = fresh_conn
    make_trainable(conn)
    conn.execute(OTHERS)
    for commit in (False, True):
        with conn.transaction(force_rollback=not commit):
            for statement in WAYS[way]:
                if statement == READ:
                    read(conn)
                else:
                    conn.execute(statement)
            read(conn)
        read(conn)
    stored = value(conn, "SELECT data FROM llm_param WHERE name = 'ln_f.weight'")
    train(conn, "tiny", 1, lr_max=1e-9, wd=0)
    trained = value(conn, "SELECT data FROM llm_param WHERE name = 'ln_f.weight'")
    assert abs(trained - stored).max() < 1e-3


def test_copy_freeze(fresh_conn: Connection) -> None:
    conn = fresh_conn
    make_model(conn)
    conn.execute(OTHERS)
    copies = {}
    for table in "ab":
        with conn.cursor().copy(f"COPY (SELECT * FROM {table} ORDER BY name, token_id) TO STDOUT") as out:
            copies[table] = b"".join(bytes(part) for part in out)
    with conn.transaction():
        for table in "abab":
            conn.execute("TRUNCATE llm_param")
            with conn.cursor().copy(
                "COPY llm_param (model, name, token_id, data, m, v, step) FROM STDIN (FREEZE)"
            ) as into:
                into.write(copies[table])
            with conn.transaction(force_rollback=True):
                conn.execute("DELETE FROM llm_param")
            read(conn)
    read(conn)


# What pg_repack ends with: two tables exchange their files, and their indexes theirs.
SWAP = """
UPDATE pg_class AS c SET relfilenode = o.relfilenode, reltoastrelid = o.reltoastrelid
FROM pg_class AS o
WHERE (c.oid, o.oid) IN (
    ('llm_param'::regclass, 'llm_packed'::regclass), ('llm_packed'::regclass, 'llm_param'::regclass)
);
UPDATE pg_class AS c SET relfilenode = o.relfilenode
FROM pg_index AS i, pg_index AS j, pg_class AS o
WHERE c.oid = i.indexrelid AND o.oid = j.indexrelid AND i.indkey = j.indkey AND i.indrelid <> j.indrelid
    AND i.indrelid IN ('llm_param'::regclass, 'llm_packed'::regclass)
    AND j.indrelid IN ('llm_param'::regclass, 'llm_packed'::regclass)
"""


@pytest.mark.parametrize("content", ["a", "b"])
def test_files_change_places(fresh_conn: Connection, connect: Connect, content: str) -> None:
    conn, other = fresh_conn, connect()
    make_trainable(conn)
    conn.execute(OTHERS)
    conn.execute("CREATE TABLE llm_packed (LIKE llm_param INCLUDING ALL)")
    conn.execute(FILL.format(content).replace("llm_param", "llm_packed"))
    for _ in range(2):
        for session in (conn, other):
            read(session)
        other.execute(SWAP)
    for commit in (False, True):
        with conn.transaction(force_rollback=not commit):
            read(conn)
            conn.execute(SWAP)
            read(conn)
            conn.execute(SWAP)
            conn.execute("UPDATE llm_param SET data = pg_llm_neg(data)")
            read(conn)
        read(conn)


def test_an_older_snapshot_sees_its_own_rows(conn: Connection, connect: Connect) -> None:
    make_model(conn)
    reader = connect(autocommit=False)
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert differing(reader) == 0
    conn.execute("UPDATE llm_param SET data = data * 2.0::double precision")
    assert differing(conn) == 0
    assert differing(reader) == 0
    reader.commit()
    assert differing(reader) == 0


def test_partitions(fresh_conn: Connection) -> None:
    """llm_param as somebody partitioned it: rows count with the partition that holds them."""
    conn = fresh_conn
    make_trainable(conn)
    conn.execute(OTHERS)
    conn.execute("ALTER TABLE llm_param RENAME TO llm_was")
    conn.execute(
        "CREATE TABLE llm_param (LIKE llm_was INCLUDING DEFAULTS INCLUDING GENERATED) PARTITION BY LIST (model)"  # noqa: E501
    )
    for table in "ab":
        conn.execute(f"CREATE TABLE part_{table} (LIKE llm_param INCLUDING DEFAULTS INCLUDING GENERATED)")
        conn.execute(
            f"INSERT INTO part_{table} (model, name, token_id, data, m, v, step)"
            f" SELECT * FROM {table} ORDER BY name, token_id"
        )
    for _ in range(2):
        for table in "ab":
            conn.execute(f"ALTER TABLE llm_param ATTACH PARTITION part_{table} FOR VALUES IN ('tiny')")
            read(conn)
            train(conn, "tiny", 1)
            read(conn)
            conn.execute(f"ALTER TABLE llm_param DETACH PARTITION part_{table}")


def test_a_fingerprint_is_of_ordinary_tables(conn: Connection) -> None:
    for oid in ("'llm_step'::regclass", "'pk_llm_param'::regclass"):
        with pytest.raises(errors.WrongObjectType):
            conn.execute(f"SELECT pg_llm_fingerprint('a', 1, {oid}, '(0,1)', '3')")
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT pg_llm_fingerprint('a', 1, 1, '(0,1)', '3')")
    with conn.transaction(force_rollback=True):
        conn.execute("TRUNCATE llm_param")
        assert value(
            conn, "SELECT pg_llm_fingerprint('a', 1, 'llm_param'::regclass, '(4294967295,65535)', '3')"
        )
    assert value(conn, "SELECT pg_llm_fingerprint(NULL, 1, 'llm_param'::regclass, '(0,1)', '3')")


def test_fingerprints_are_the_sessions_own(conn: Connection, connect: Connect) -> None:
    """SQL cannot know in one session what names a version in another."""
    make_model(conn)
    for query in (
        "SELECT llm_fingerprint('tiny')",
        "SELECT pg_llm_relation_version('{llm_bpe_vocab,llm_bpe_merges}')",
    ):
        assert value(conn, query) == value(conn, query)
        assert value(conn, query) != value(connect(), query)


# ---- tokenizers ----

TOKENIZER = """
CREATE TEMP TABLE av AS SELECT * FROM llm_bpe_vocab ORDER BY token_id;
CREATE TEMP TABLE bv AS
    SELECT model, 300 - token_id AS token_id, token, bytes, score FROM av ORDER BY token_id DESC;
"""
VOCAB_A = ("TRUNCATE llm_bpe_vocab", "INSERT INTO llm_bpe_vocab SELECT * FROM av")
VOCAB_B = ("TRUNCATE llm_bpe_vocab", "INSERT INTO llm_bpe_vocab SELECT * FROM bv")


def encoded(conn: Connection) -> list[int]:
    ids = value(conn, "SELECT llm_encode('the cat', 'tok')")
    assert isinstance(ids, list)
    return ids


def test_tokenizers(conn: Connection) -> None:
    conn.execute("SELECT llm_train_bpe('tok', $$VALUES ('the cat sat on the mat the cat')$$, 262)")
    conn.execute(TOKENIZER)
    plain = encoded(conn)
    turned = [300 - token for token in plain]
    with conn.transaction():
        for statements, expected in (
            (VOCAB_A, plain),
            (VOCAB_B, turned),
            (VOCAB_A, plain),
            (VOCAB_B, turned),
        ):
            for statement in statements:
                conn.execute(statement)
            assert encoded(conn) == expected
            with conn.transaction(force_rollback=True):
                conn.execute("TRUNCATE llm_bpe_vocab")
                with pytest.raises(errors.UndefinedObject, match="no tokenizer"), conn.transaction():
                    encoded(conn)
            assert encoded(conn) == expected
        conn.execute("TRUNCATE llm_bpe_vocab")
        with pytest.raises(errors.UndefinedObject, match="no tokenizer"), conn.transaction():
            encoded(conn)
        conn.execute("INSERT INTO llm_bpe_vocab SELECT * FROM bv")
    assert encoded(conn) == turned


def test_serializable_reads_of_a_tokenizer_are_locked(conn: Connection, connect: Connect) -> None:
    """Of two transactions that each read the tokenizer and change what the other read, one fails."""
    conn.execute("SELECT llm_train_bpe('tok', $$VALUES ('the cat sat')$$, 258)")
    conn.execute("CREATE TABLE IF NOT EXISTS note (t text)")
    conn.execute("INSERT INTO note VALUES ('the cat')")
    one, two = connect(autocommit=False), connect(autocommit=False)
    for session in (one, two):
        session.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        session.commit()
        assert encoded(session)  # the memory is warm, and so is the memo of the version
        session.commit()
    assert encoded(one)
    assert encoded(one)
    two.execute("SELECT * FROM note").fetchall()
    locks = "SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock' AND relation = 'llm_bpe_vocab'::regclass AND pid = %s"  # noqa: E501
    assert value(conn, locks, (one.info.backend_pid,)) > 0
    one.execute("UPDATE note SET t = 'x'")

    def change_and_end() -> None:
        two.execute("UPDATE llm_bpe_vocab SET score = 1 WHERE model = 'tok'")
        one.commit()
        two.commit()

    with pytest.raises(errors.SerializationFailure):
        change_and_end()
    conn.execute("DROP TABLE note")


# ---- what was stored is what was written ----

MEDDLERS = {
    "before row trigger": "CREATE TRIGGER x BEFORE UPDATE ON llm_param FOR EACH ROW EXECUTE FUNCTION half_row()",  # noqa: E501
    "after row trigger": "CREATE TRIGGER x AFTER UPDATE ON llm_param FOR EACH ROW EXECUTE FUNCTION half_after()",  # noqa: E501
    "after statement trigger": "CREATE TRIGGER x AFTER UPDATE ON llm_param EXECUTE FUNCTION half_all()",
    "always trigger": "CREATE TRIGGER x AFTER UPDATE ON llm_param EXECUTE FUNCTION half_all();"
    " ALTER TABLE llm_param ENABLE ALWAYS TRIGGER x",
    "deferred constraint trigger": "CREATE CONSTRAINT TRIGGER x AFTER UPDATE ON llm_param DEFERRABLE INITIALLY DEFERRED"  # noqa: E501
    " FOR EACH ROW EXECUTE FUNCTION half_after()",
    "rule": "CREATE RULE x AS ON UPDATE TO llm_param WHERE new.updated_at > 'epoch' DO ALSO SELECT half_now()",  # noqa: E501
    "trigger on the log": "CREATE TRIGGER x AFTER INSERT ON llm_train_log EXECUTE FUNCTION half_all()",
    "trigger on the run": "CREATE TRIGGER x AFTER UPDATE ON llm_train_run EXECUTE FUNCTION half_all()",
}  # fmt: skip

# What they store carries another time, so that none of them acts on its own writing.
HALF = """
CREATE FUNCTION half_row() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN new.data := new.data * 0.5::double precision; RETURN new; END $$;
CREATE FUNCTION half_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF pg_trigger_depth() = 1 THEN
        UPDATE llm_param SET data = data * 0.5::double precision, updated_at = 'epoch';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION half_now() RETURNS void LANGUAGE sql AS
    $$ UPDATE llm_param SET data = data * 0.5::double precision, updated_at = 'epoch'
    WHERE updated_at > 'epoch' $$;
CREATE FUNCTION half_after() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.updated_at > 'epoch' THEN
        UPDATE llm_param SET data = data * 0.5::double precision, updated_at = 'epoch'
        WHERE name = new.name AND model = new.model;
    END IF;
    RETURN NULL;
END $$;
"""


@pytest.mark.parametrize("meddler", MEDDLERS)
def test_memory_is_what_was_stored_whatever_meddles(fresh_conn: Connection, meddler: str) -> None:
    conn = fresh_conn
    make_trainable(conn)
    conn.execute(HALF)
    conn.execute(MEDDLERS[meddler])
    for _ in range(2):
        conn.execute("UPDATE llm_param SET updated_at = now()")
        try:
            train(conn, "tiny", 1)
        except errors.SerializationFailure:
            assert meddler == "trigger on the log"
        assert differing(conn) == 0
        conn.execute("SELECT llm_materialize_params('tiny')")
        conn.execute("UPDATE llm_autograd_mode SET flag = true")
        conn.execute("SELECT llm_loss('tiny', '{1,2}', '{2,3}')")
        conn.execute("SELECT llm_backprop(NULL, 'tiny')")
        conn.execute("UPDATE llm_autograd_mode SET flag = false")
        with conn.transaction():
            conn.execute("SELECT llm_accumulate_grads('tiny')")
            assert differing(conn) == 0
        assert differing(conn) == 0


@pytest.mark.parametrize("rule", ["NOTHING", "INSERT INTO nothing_stored DEFAULT VALUES"])
def test_an_update_that_a_rule_replaces_is_an_error(fresh_conn: Connection, rule: str) -> None:
    conn = fresh_conn
    make_trainable(conn)
    conn.execute("CREATE TABLE nothing_stored (x int)")
    conn.execute(f"CREATE RULE x AS ON UPDATE TO llm_param DO INSTEAD {rule}")
    with pytest.raises(errors.InsufficientPrivilege, match="could be written"):
        train(conn, "tiny", 1)
    read(conn)


def test_without_meddlers_memory_is_kept(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, "tiny", 1)
    with conn.transaction():
        conn.execute("SELECT llm_pin('tiny', true)")
        fingerprint = value(conn, "SELECT llm_fingerprint('tiny')")
        conn.execute("SELECT pg_llm_arena_close('tiny')")
        assert value(conn, "SELECT pg_llm_arena_open('tiny', %s, true)", (fingerprint,)) is True


@pytest.mark.parametrize("training", [True, False])
def test_memory_is_kept_when_its_rows_are_committed(conn: Connection, training: bool) -> None:
    """Rows have no public name before: memory that wrote them is what they are with one."""
    make_trainable(conn)
    train(conn, "tiny", 1)
    held = "SELECT pg_llm_arena_open('tiny', llm_fingerprint('tiny'), %s)"
    with conn.transaction(force_rollback=True):
        assert value(conn, held, (training,)) is True
    with conn.transaction(force_rollback=True):
        conn.execute("UPDATE llm_param SET step = step")
        assert value(conn, held, (training,)) is False


def test_rows_are_recognised_by_name_after_their_commit(conn: Connection) -> None:
    """Nothing is compared: memory is gone."""
    make_trainable(conn)
    with conn.transaction():
        conn.execute("UPDATE llm_param SET step = step")
        mine = value(conn, "SELECT llm_fingerprint('tiny')")
    assert value(conn, "SELECT llm_fingerprint('tiny')") == mine
    conn.execute("SELECT llm_release()")
    assert value(conn, "SELECT llm_recognise('tiny', %s)", (mine,)) is True
    conn.execute("UPDATE llm_param SET step = step")
    assert value(conn, "SELECT llm_recognise('tiny', %s)", (mine,)) is False


# ---- weights that only moved ----


@pytest.mark.parametrize("move", ["VACUUM FULL llm_param", "CLUSTER llm_param USING pk_llm_param"])
def test_a_loop_goes_on_when_its_weights_only_moved(conn: Connection, connect: Connect, move: str) -> None:
    """Between the chunks of a run another session rewrites the table; the bits are those of an undisturbed run."""  # noqa: E501
    for model in ("moved", "still"):
        make_trainable(conn, model)
    train(conn, "still", 6, lr_max=0.01)
    run = value(
        conn,
        "SELECT llm_train_begin('moved', (SELECT hyperparameters - '{start_step,total_steps,warmup}'::text[]"
        " || '{\"warmup\": null}' FROM llm_train_run WHERE model = 'still'))",
    )
    other = connect()
    fingerprint = None
    for _ in range(3):
        fingerprint = value(conn, "SELECT llm_train_chunk(%s, 2, %s)", (run, fingerprint))
        other.execute(move)
    assert weights(conn, "moved") == weights(conn, "still")


def test_a_loop_stops_when_its_weights_changed(conn: Connection) -> None:
    make_trainable(conn)
    train(conn, "tiny", 1)
    run = value(
        conn,
        "SELECT llm_train_begin('tiny', (SELECT hyperparameters - '{start_step,total_steps}'::text[]"
        " || '{\"n_steps\": 4}' FROM llm_train_run))",
    )
    fingerprint = value(conn, "SELECT llm_train_chunk(%s, 2, NULL)", (run,))
    conn.execute("UPDATE llm_param SET data = data + 0.0::double precision WHERE name = 'ln_f.bias'")
    fingerprint = value(conn, "SELECT llm_train_chunk(%s, 1, %s)", (run, fingerprint))
    conn.execute("UPDATE llm_param SET v = v + 1e-9::double precision WHERE name = 'ln_f.bias'")
    with pytest.raises(errors.SerializationFailure, match="no longer those of run") as refused:
        conn.execute("SELECT llm_train_chunk(%s, 1, %s)", (run, fingerprint))
    assert f"CALL llm_train_resume({run}, on_mismatch" in (refused.value.diag.message_hint or "")


def test_rows_added_by_others_are_not_those_of_memory(conn: Connection) -> None:
    make_trainable(conn)
    add_rows(conn, "tiny")
    train(conn, "tiny", 1)
    with conn.transaction():
        known = value(conn, "SELECT llm_pin('tiny', true)")
        conn.execute("SELECT pg_llm_arena_close('tiny')")
        conn.execute("INSERT INTO llm_param (model, name, data) VALUES ('tiny', 'extra', '[1]')")
        assert value(conn, "SELECT llm_recognise('tiny', %s)", (known,)) is False
