"""Names of models, what runs leave behind, and refusing what cannot fit."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..support.small_models import (
    Connection,
    add_rows,
    make_model,
    make_names,
    make_trainable,
    train,
    weights,
)
from ..support.tensors import value
from ..support.waiting import vacuum, wait_for

Connect = Callable[..., Connection]

# ---- names ----

NAMED = (
    "SELECT format('%I.%I', table_name, column_name) FROM information_schema.columns c"
    " JOIN information_schema.tables t USING (table_schema, table_name)"
    " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = 'model'"
)


def tables_that_name(conn: Connection, model: str) -> set[str]:
    tables = [row[0].split(".")[0] for row in conn.execute(NAMED)]
    return {
        table
        for table in tables
        if value(conn, f"SELECT EXISTS (SELECT FROM {table} WHERE model = %s)", (model,))
    }


def test_renaming_leaves_the_old_name_nowhere(conn: Connection) -> None:
    make_names(conn, "before")
    train(conn, "before", 2, lr_max=0.01)
    conn.execute("SELECT llm_materialize_params('before')")
    checkpoint = value(conn, "SELECT llm_checkpoint_save('before', 'note')")
    text = value(conn, "SELECT llm_generate('em', 8, 0, model => 'before')")
    named = tables_that_name(conn, "before")
    assert {"llm_param", "llm_bpe_vocab", "llm_dataset", "llm_tape", "llm_tensor", "llm_checkpoint"} <= named
    held = weights(conn, "before")
    conn.execute("SELECT llm_rename_model('before', 'after')")
    assert tables_that_name(conn, "before") == set()
    assert tables_that_name(conn, "after") == named
    assert weights(conn, "after") == held
    assert value(conn, "SELECT llm_generate('em', 8, 0, model => 'after')") == text
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT llm_generate('em', 8, 0, model => 'before')")
    train(conn, "after", 2, lr_max=0.01)
    assert value(conn, "SELECT llm_checkpoint_load('after', %s)", (checkpoint,)) == 2
    assert weights(conn, "after") == held
    assert tables_that_name(conn, "before") == set()
    conn.execute("SELECT llm_rename_model('after', 'before')")
    assert value(conn, "SELECT llm_checkpoint_load('before', %s)", (checkpoint,)) == 2


def test_names_that_cannot_be_given(conn: Connection, connect: Connect) -> None:
    make_model(conn, "one")
    make_model(conn, "two")
    make_model(conn, "three")
    conn.execute("SELECT llm_build_char_tokenizer('four', $$VALUES ('abc')$$)")
    for name, problem in (
        ("two", errors.DuplicateObject),
        ("one", errors.DuplicateObject),
        ("four", errors.DuplicateObject),
        ("", errors.InvalidParameterValue),
        (None, errors.InvalidParameterValue),
    ):
        with pytest.raises(problem):
            conn.execute("SELECT llm_rename_model('one', %s)", (name,))
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT llm_rename_model('nobody', 'five')")
    other = connect(autocommit=False)
    other.execute("SELECT llm_rename_model('three', 'five')")
    with pytest.raises(errors.LockNotAvailable, match=f"changed by process {other.info.backend_pid}"):
        conn.execute("SELECT llm_rename_model('three', 'six')")
    with pytest.raises(errors.LockNotAvailable):
        conn.execute("SELECT llm_rename_model('one', 'five')")
    other.rollback()


def test_what_is_done_to_a_model_is_told(conn: Connection, connect: Connect) -> None:
    make_trainable(conn)
    other = connect(autocommit=False)
    for statement, word in (
        ("SELECT llm_train('tiny', 1, log_every => 0)", "trained"),
        ("SELECT llm_drop_model('tiny')", "changed"),
        ("SELECT llm_init_model('tiny')", "changed"),
    ):
        other.execute(statement)
        for call in ("llm_drop_model('tiny')", "llm_init_model('tiny')", "llm_train('tiny', 1)"):
            with pytest.raises(
                errors.LockNotAvailable, match=f"being {word} by process {other.info.backend_pid}"
            ):
                conn.execute(f"SELECT {call}")
        other.rollback()


# ---- what is left behind ----


def test_pruning_takes_the_rows_of_the_pass(conn: Connection) -> None:
    make_trainable(conn)
    add_rows(conn, "tiny", split="validation")
    train(conn, "tiny", 2)
    kept = value(conn, "SELECT count(*) FROM llm_tape")
    assert kept > 0
    for keep, left in (("last", 0), ("all", 1)):
        conn.execute(f"SET pg_llm.tape_keep = '{keep}'")
        conn.execute("SELECT llm_materialize_params('tiny')")
        conn.execute("UPDATE llm_autograd_mode SET flag = true")
        conn.execute("SELECT llm_loss('tiny', '{1,2}', '{2,3}')")
        conn.execute("SELECT llm_backprop(NULL, 'tiny')")
        conn.execute("UPDATE llm_autograd_mode SET flag = false")
        assert value(conn, "SELECT count(*) FROM llm_tensor_map") > 0
        assert value(conn, "SELECT llm_prune_autograd_state()") > 0
        for table, column in (("llm_tape", "id"), ("llm_tensor_rt", "id"), ("llm_tensor_map", "tensor_id")):
            passes = f"SELECT count(DISTINCT {column} / 16777216) FROM {table}"
            if table == "llm_tape":
                passes += " WHERE run IS NULL"
            assert value(conn, passes) <= left or table == "llm_tensor_rt"
    conn.execute("RESET pg_llm.tape_keep")


def test_materialised_parameters_are_kept_by_name(conn: Connection) -> None:
    make_trainable(conn)
    conn.execute("INSERT INTO llm_tensor (model, name, data, shape) VALUES ('tiny', 'mine', '[1,2]', '{2}')")
    for _ in range(2):
        conn.execute("SELECT llm_materialize_params('tiny')")
        assert value(
            conn,
            "SELECT count(*) FROM llm_tensor t JOIN llm_param p USING (model, name)"
            " WHERE t.data = p.data AND t.shape = shape(p.data) AND t.requires_grad",
        ) == value(conn, "SELECT count(*) FROM llm_param")
        train(conn, "tiny", 1)
    assert value(conn, "SELECT data FROM llm_tensor WHERE name = 'mine'").tolist() == [1, 2]
    conn.execute("TRUNCATE llm_tensor")
    with conn.transaction():
        conn.execute("SET LOCAL pg_llm.record = off")
        conn.execute("SELECT llm_materialize_params('tiny')")
    assert value(conn, "SELECT count(*) FROM llm_tensor") == 0
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute("SELECT llm_materialize_params('tiny')")


def test_old_runs_and_passes_have_a_way_out(conn: Connection) -> None:
    conn.execute("SET pg_llm.tape_keep = 'all'")
    for model in ("one", "two"):
        make_trainable(conn, model)
        for _ in range(4):
            train(conn, model, 2, grad_clip=1e-6)
    assert conn.execute("SELECT * FROM llm_prune_runs('one', 1)").fetchone() == (3, 6)
    assert conn.execute("SELECT * FROM llm_prune_runs(keep => 2)").fetchone() == (2, 4)
    counts = "SELECT count(*) FROM {} x WHERE NOT EXISTS (SELECT FROM llm_train_run r WHERE r.run_id = x.{})"
    for table, column in (("llm_tape", "run"), ("llm_tensor_rt", "run"), ("llm_train_log", "run_id")):
        assert value(conn, counts.format(table, column)) == 0
    assert (
        value(conn, "SELECT count(*) FROM llm_clip") == value(conn, "SELECT count(*) FROM llm_train_log") == 6
    )
    train(conn, "one", 1)
    with pytest.raises(errors.InvalidParameterValue, match="keep must not be negative, got NULL"):
        conn.execute("SELECT llm_prune_runs('one', NULL)")
    conn.execute("RESET pg_llm.tape_keep")


def test_the_recipe_in_the_comment_makes_the_same_step(conn: Connection) -> None:
    """What \\df+ llm_train_step prints, statement by statement, with its variables filled in."""
    for model in ("function", "hand"):
        make_trainable(conn, model)
    comment = value(
        conn, "SELECT obj_description(oid, 'pg_proc') FROM pg_proc WHERE proname = 'llm_train_step'"
    )
    recipe = comment[comment.index("by hand:") + len("by hand:") :]
    arguments: dict[str, Any] = {
        "dropout_p": 0.2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "wd": 0.1, "lr_max": 0.01, "warmup": 2,
        "total_steps": 6,
    }  # fmt: skip
    for model in ("function", "hand"):
        rows = [
            r[0]
            for r in conn.execute("SELECT id FROM llm_dataset WHERE model = %s ORDER BY id LIMIT 3", (model,))
        ]
        for row in rows:
            given = arguments | {"model": model, "batch_id": row}
            if model == "function":
                names = ", ".join(f"{name} => %({name})s" for name in given)
                conn.execute(f"SELECT llm_train_step({names})", given)
                continue
            for statement in recipe.split(";"):
                if statement.strip():
                    conn.execute(re.sub(r":([a-z_0-9]+)", r"%(\1)s", statement), given)
    assert weights(conn, "function") == weights(conn, "hand")


# ---- room ----


def test_what_cannot_fit_the_disk_is_refused_before_it_begins(conn: Connection) -> None:
    free = value(conn, "SELECT pg_llm_disk_free('llm_param')")
    assert free > 0
    if free > 3_000_000_000_000:
        pytest.skip("this disk holds the largest model that may be made")
    with pytest.raises(errors.DiskFull, match='initialising model "p" does not fit on the disk') as refused:
        conn.execute(
            "SELECT llm_create_model('p', vocab => 2147483647, d_model => 400, n_head => 1, n_layer => 1)"
        )
    diagnostic = refused.value.diag
    assert re.fullmatch(
        r"It writes \d+ MB of heap, 32\d\d GB of TOAST, 3\d GB of indexes and up to 34\d\d GB of WAL\."
        r" Tables(?: and WAL, on one disk,)? need 33\d\d GB more than is there to be used again;"
        r" \d+ [kMG]B are free\.",
        diagnostic.message_detail or "",
    )
    assert "VACUUM (TRUNCATE) llm_param" in (diagnostic.message_hint or "")
    assert value(conn, "SELECT count(*) FROM llm_model_config WHERE model = 'p'") == 0
    if free < 690_000_000_000:
        with pytest.raises(errors.DiskFull):
            conn.execute("SELECT llm_init_model('gpt3-175b')")


def replace(conn: Connection, function: str, arguments: str, body: str) -> None:
    """In the place of one that asks the system: until the end of the transaction."""
    conn.execute(f"ALTER EXTENSION pg_llm DROP FUNCTION pg_llm_{function}")
    conn.execute(
        f"CREATE OR REPLACE FUNCTION public.pg_llm_{arguments} LANGUAGE sql VOLATILE AS 'SELECT {body}'"
    )


def set_disk(conn: Connection, free: int, *, wal: int = 0, ahead: int = 0, shared: bool = True) -> None:
    replace(conn, "disk_free(regclass)", "disk_free(relation regclass) RETURNS bigint", f"{free}::bigint")
    arguments = "wal_free(relation regclass, OUT free bigint, OUT ahead bigint, OUT shared boolean)"
    replace(conn, "wal_free(regclass)", arguments, f"{wal}::bigint, {ahead}::bigint, {shared}")


def test_every_task_asks(conn: Connection) -> None:
    """With next to nothing free, as functions in front of the real ones say."""
    make_trainable(conn)
    checkpoint = value(conn, "SELECT llm_checkpoint_save('tiny')")
    conn.execute("SELECT llm_build_char_tokenizer('names', $$VALUES ('ab')$$)")
    make_model(conn, "names", vocab=3)
    calls = {
        "training": "SELECT llm_train('tiny', 1)",
        "initialising": "SELECT llm_init_model('tiny')",
        "copying": "SELECT llm_copy_model('tiny', 'copy')",
        "loading a checkpoint of": f"SELECT llm_checkpoint_load('tiny', {checkpoint})",
        "finetuning": "SELECT llm_finetune('names', $$SELECT 'abab'$$, 1, block_size => 2)",
        "importing": "SELECT llm_import_begin('names', (SELECT jsonb_agg(jsonb_build_object("
        "'name', p.name, 'dtype', 'F32', 'shape', p.shape)) FROM llm_parameters('names') p), true)",
    }
    with conn.transaction(force_rollback=True):
        set_disk(conn, 0)
        for task, call in calls.items():
            with (
                pytest.raises(errors.DiskFull, match=f'^{task} model "(tiny|names)" does not fit'),
                conn.transaction(),
            ):
                conn.execute(call)
    with conn.transaction(force_rollback=True):
        replace(conn, "memory_free()", "memory_free() RETURNS bigint", "0::bigint")
        with pytest.raises(errors.OutOfMemory, match='training model "tiny" does not fit in memory'):
            conn.execute(calls["training"])


def test_wal_takes_part_where_it_is_written(fresh_conn: Connection) -> None:
    """On the same disk beside the tables; on its own, it is asked of its own; files that are ready count."""
    conn = fresh_conn
    make_trainable(conn, d_model=128, vocab=2003)
    heap, toast, index, wal = conn.execute(
        "SELECT heap_bytes, toast_bytes, index_bytes, wal_bytes_max FROM llm_write_cost('tiny', 'copying')"
    ).fetchall()[0]
    tables = heap + toast + index
    call = "SELECT llm_copy_model('tiny', 'copy')"
    # Beyond its rows, llm_param has hardly anything.
    spare = value(
        conn, "SELECT pg_total_relation_size('llm_param') - sum(pg_column_size(data)) FROM llm_param"
    )  # fmt: skip
    assert spare < tables / 2
    huge = 1 << 50
    # First those that are refused: the others leave space to be used again.
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({"free": tables + wal // 2 - int(spare), "wal": huge}, "Tables and WAL, on one disk, need"),
        ({"free": tables // 2 - int(spare), "wal": wal, "shared": False}, "Tables need"),
        (
            {"free": tables, "wal": wal // 2, "shared": False},
            r"up to \d+ kB of WAL, which needs \d+ kB more than the files that are ready",
        ),
        ({"free": tables + wal, "wal": tables + wal}, None),
        ({"free": tables, "wal": huge, "ahead": wal}, None),
        ({"free": tables, "wal": wal, "shared": False}, None),
        ({"free": tables, "wal": 0, "ahead": wal, "shared": False}, None),
    ]
    for settings, refused in cases:
        with conn.transaction(force_rollback=True):
            set_disk(conn, **settings)
            if refused is None:
                conn.execute(call)
            else:
                with pytest.raises(errors.DiskFull) as error:
                    conn.execute(call)
                assert re.search(refused, error.value.diag.message_detail or ""), settings


def test_wal_beyond_max_wal_size_is_not_asked_for(conn: Connection) -> None:
    """Checkpoints remove what is older."""
    limit = value(conn, "SELECT pg_size_bytes(current_setting('max_wal_size'))")
    for free, fits in ((limit, True), (limit - 1, False)):
        with conn.transaction(force_rollback=True):
            set_disk(conn, 1 << 50, wal=free, shared=False)
            if fits:
                conn.execute("SELECT llm_require_disk('this', 1, 1, 1, 1e15)")
            else:
                with pytest.raises(errors.DiskFull, match=r"^this: its WAL does not fit on the disk"):
                    conn.execute("SELECT llm_require_disk('this', 1, 1, 1, 1e15)")


def test_room_of_wal(conn: Connection) -> None:
    free, ahead, shared = conn.execute("SELECT * FROM pg_llm_wal_free('llm_param')").fetchall()[0]
    assert free > 0
    segment = value(conn, "SELECT pg_size_bytes(current_setting('wal_segment_size'))")
    listed = value(
        conn, "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
        " AND name > pg_walfile_name(pg_current_wal_insert_lsn())",
    )  # fmt: skip
    assert ahead == pytest.approx(listed * segment, abs=2 * segment)
    assert shared is True
    with pytest.raises(errors.UndefinedObject, match="relation with OID 4294967295 does not exist"):
        conn.execute("SELECT pg_llm_wal_free(4294967295::oid::regclass)")


def test_filling_asks_too(conn: Connection) -> None:
    """Windows one token apart repeat every token block_size times."""
    conn.execute("SELECT llm_build_char_tokenizer('wide', $$VALUES ('ab')$$)")
    make_model(conn, "wide", n_positions=1_000_000, vocab=3, d_model=2, n_layer=1)
    if value(conn, "SELECT pg_llm_disk_free('llm_dataset')") > 4_000_000_000_000:
        pytest.skip("this disk holds four terabytes")
    with pytest.raises(errors.DiskFull, match='filling the data of model "wide" does not fit') as refused:
        conn.execute("SELECT llm_fill_dataset('wide', $$SELECT repeat('ab', 5000000)$$, 1000000, 1)")
    assert "10000000 bytes of text" in (refused.value.diag.message_detail or "")


def test_space_comes_back(fresh_conn: Connection) -> None:
    conn = fresh_conn
    size = "SELECT pg_table_size('llm_param')"
    make_model(conn, "large", d_model=256, vocab=4000, n_positions=64)
    full = value(conn, size)

    def come_back() -> bool:
        vacuum(conn, "(TRUNCATE)")
        return bool(value(conn, size) < full / 20)

    conn.execute("SELECT llm_drop_model('large')")
    wait_for(come_back, "the end of all snapshots")
    with conn.transaction(force_rollback=True):
        make_model(conn, "large", d_model=256, vocab=4000, n_positions=64)
    assert value(conn, size) >= full
    wait_for(come_back, "the end of all snapshots")


def test_2048_tokens_through_gpt3(conn: Connection) -> None:
    make_model(conn, "long", arch="gpt3", d_model=16, n_positions=2048, vocab=50, n_layer=2)
    tokens = (np.arange(2049) * 7 % 50).tolist()
    loss = value(conn, "SELECT llm_loss('long', %s, %s)", (tokens[:-1], tokens[1:]))
    assert loss == pytest.approx(np.log(50), rel=0.02)
    assert value(conn, "SELECT shape(llm_logits(%s, 'long'))", (tokens[:-1],)) == [2048, 50]
    conn.execute(
        "INSERT INTO llm_dataset (model, tokens, target) VALUES ('long', %s, %s)", (tokens[:-1], tokens[1:])
    )
    run = train(conn, "long", 3, lr_max=0.01, dropout_p=0, warmup=0)
    losses = [
        r[0] for r in conn.execute("SELECT loss FROM llm_train_log WHERE run_id = %s ORDER BY step", (run,))
    ]
    assert losses[0] == pytest.approx(loss, rel=1e-6)
    assert losses[2] < losses[0]
    with pytest.raises(errors.InvalidParameterValue, match="2049 tokens exceeds the context of 2048"):
        conn.execute("SELECT llm_logits(%s, 'long')", (tokens,))


def create_beside(
    conn: Connection, first: Connection, second: Connection, end_first: Callable[[], None]
) -> psycopg.Error | None:
    """What the second session meets when it creates the model that the first has made and not committed."""
    make_model(first, "race", n_layer=1)
    caught: list[psycopg.Error | None] = []

    def create() -> None:
        try:
            make_model(second, "race", n_layer=1)
            caught.append(None)
        except psycopg.Error as error:
            caught.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    while not value(
        conn,
        "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s",
        (second.info.backend_pid,),
    ):
        pass
    end_first()
    thread.join()
    return caught[0]


def test_two_sessions_that_create_one_model(conn: Connection, connect: Connect) -> None:
    """The second waits for the first: 42710 when it commits, a model when it does not."""
    first, second = connect(autocommit=False), connect()
    assert type(create_beside(conn, first, second, first.commit)) is errors.DuplicateObject
    conn.execute("SELECT llm_drop_model('race')")
    assert create_beside(conn, first, second, first.rollback) is None
    conn.execute("SELECT llm_drop_model('race')")


def test_who_waits_for_a_transaction_does_not_meet_its_locks(conn: Connection, connect: Connect) -> None:
    """A transaction lets its locks go one after another: the first wakes who then asks for the next."""
    first, second = connect(autocommit=False), connect()
    for _ in range(60):
        assert create_beside(conn, first, second, first.rollback) is None
        conn.execute("SELECT llm_drop_model('race')")
