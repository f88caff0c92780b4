"""llm_write_cost is an upper bound of what a task writes, and a close one: table, TOAST, indexes, WAL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import errors

from ..support.small_models import Connection, add_rows, make_model, make_names, train
from ..support.tensors import value
from ..support.waiting import vacuum

# From microgpt, whose rows are inline, over rows of which some values are, to tensors of hundreds of chunks.
SHAPES: dict[str, dict[str, Any]] = {
    "microgpt": {
        "arch": "microgpt",
        "n_layer": 1,
        "n_head": 4,
        "d_model": 16,
        "n_positions": 16,
        "vocab": 27,
    },
    "inline": {"n_layer": 24, "n_head": 2, "d_model": 8, "n_positions": 16, "vocab": 30},
    "mixed": {"n_layer": 8, "n_head": 4, "d_model": 112, "n_positions": 64, "vocab": 96},
    "wide": {"n_layer": 3, "n_head": 4, "d_model": 160, "n_positions": 64, "vocab": 256},
    "large": {"n_layer": 2, "n_head": 4, "d_model": 512, "n_positions": 64, "vocab": 512},
    "vocabulary": {"n_layer": 1, "n_head": 1, "d_model": 64, "n_positions": 32, "vocab": 40009},
}
LARGE = ("mixed", "large", "vocabulary")
MARGIN, SLACK = 1.05, 1 << 20
BYTES = ("heap_bytes", "toast_bytes", "index_bytes", "wal_bytes", "wal_bytes_max", "dead_bytes")


def cost(conn: Connection, arguments: str, part: str = "total") -> dict[str, int]:
    row = conn.execute(
        f"SELECT {', '.join(BYTES)} FROM llm_write_cost({arguments}) WHERE part = %s", (part,)
    ).fetchone()
    assert row is not None, part
    return dict(zip(BYTES, row, strict=True))


def table_bytes(conn: Connection) -> int:
    size = value(conn, "SELECT pg_total_relation_size('llm_param')")
    assert isinstance(size, int)
    return size


def wal_of(conn: Connection, statement: str) -> int:
    """Bytes of WAL records that the statement wrote: no other session's."""
    plan = value(conn, f"EXPLAIN (ANALYZE, WAL, FORMAT JSON) {statement}")
    written = plan[0]["Plan"]["WAL Bytes"]
    assert isinstance(written, int)
    return written


def holds(said: int, measured: int, what: str, times: int = 1) -> None:
    assert measured <= said, f"{what}: {measured} bytes are more than {said}"
    assert said <= MARGIN * measured + SLACK * times, f"{what}: {said} bytes are far from {measured}"


def compare(
    conn: Connection, arguments: str, statement: str, *, grows: bool = True, images: bool = False
) -> None:
    said = cost(conn, arguments)
    before = table_bytes(conn)
    wal = wal_of(conn, statement)
    growth = table_bytes(conn) - before
    table = said["heap_bytes"] + said["toast_bytes"] + said["index_bytes"]
    if grows:
        holds(table, growth, f"{arguments}: table")
    else:
        assert growth <= table
    holds(said["wal_bytes_max" if images else "wal_bytes"], wal, f"{arguments}: WAL")


@pytest.fixture
def quiet(fresh_conn: Connection) -> Connection:
    """No vacuum but the test's."""
    fresh_conn.execute("ALTER TABLE llm_param SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)")
    return fresh_conn


@pytest.fixture
def page_images(quiet: Connection) -> Iterator[Connection]:
    quiet.execute("ALTER SYSTEM SET full_page_writes = on")
    quiet.execute("SELECT pg_reload_conf()")
    try:
        while value(quiet, "SHOW full_page_writes") != "on":
            quiet.execute("SELECT pg_sleep(0.01)")
        yield quiet
    finally:
        quiet.execute("ALTER SYSTEM RESET full_page_writes")
        quiet.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_hold(quiet: Connection, shape: str) -> None:
    """Initialising, the first write-back, those after it, with gradients, without moments, a copy, anew."""
    conn, sizes = quiet, SHAPES[shape]
    before = table_bytes(conn)
    plain = ", ".join(f"{name} => '{size}'" for name, size in sizes.items())
    wal = wal_of(conn, f"SELECT llm_create_model('g', {plain})")
    said = cost(conn, "'g', 'initialising'")  # as it would be if there were none
    holds(said["heap_bytes"] + said["toast_bytes"] + said["index_bytes"], table_bytes(conn) - before, "made")
    assert wal <= said["wal_bytes"] + SLACK
    add_rows(conn, "g", rows=3, length=8, vocab=sizes["vocab"])
    once = "SELECT llm_train('g', 1, log_every => 0)"
    compare(conn, "'g'", once)
    compare(conn, "'g'", once)
    compare(conn, "'g', 'copying'", "SELECT llm_copy_model('g', 'of g')")
    compare(conn, "'g', 'copying', optimizer => 'drop'", "SELECT llm_copy_model('g', 'bare', false)")
    vacuum(conn)
    compare(conn, "'g'", once, grows=False)
    compare(
        conn,
        "'g', keep_grad => true",
        "SELECT llm_train('g', 1, log_every => 0, keep_grad => true)",
        grows=False,
    )
    compare(
        conn,
        "'g', optimizer => 'drop'",
        "SELECT llm_train('g', 1, log_every => 0, optimizer => 'drop')",
        grows=False,
    )
    compare(conn, "'g', 'initialising'", "SELECT llm_init_model('g')", grows=False)


@pytest.mark.parametrize("shape", LARGE)
def test_page_images_are_bounded(page_images: Connection, shape: str) -> None:
    """Right after a checkpoint, a write-back logs the page of every old chunk."""
    conn, sizes = page_images, SHAPES[shape]
    make_model(conn, "g", **sizes)
    add_rows(conn, "g", rows=3, length=8, vocab=sizes["vocab"])
    once = "SELECT llm_train('g', 1, log_every => 0)"
    train(conn, "g", 1)
    conn.execute("CHECKPOINT")
    compare(conn, "'g'", once, images=True)
    vacuum(conn)
    conn.execute("CHECKPOINT")
    compare(conn, "'g'", once, grows=False, images=True)
    said = cost(conn, "'g'")
    assert said["wal_bytes_max"] > 1.8 * said["wal_bytes"]


def test_a_loop_is_the_sum_of_its_parts(quiet: Connection) -> None:
    conn = quiet
    make_model(conn, "g", **SHAPES["mixed"])
    add_rows(conn, "g", rows=3, vocab=96)
    said = cost(conn, "'g', 'training', 4, 4, optimizer => 'drop'")
    rows = conn.execute("SELECT * FROM llm_write_cost('g', 'training', 4, 4, optimizer => 'drop')").fetchall()
    parts = {row[0]: row[1] for row in rows}
    assert parts == {
        "first write-back": 1, "further write-back": 2, "last write-back": 1, "log of a step": 4, "total": 1,
    }  # fmt: skip
    assert sum(row[1] * row[3] for row in rows[:-1]) == said["toast_bytes"]
    # A procedure that commits cannot be explained.
    before = value(conn, "SELECT pg_current_wal_insert_lsn()")
    size = table_bytes(conn)
    conn.execute("CALL llm_train_loop('g', 4, 1, log_every => 0, optimizer => 'drop', write_back_every => 1)")
    wal = int(value(conn, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", (before,)))
    table = said["heap_bytes"] + said["toast_bytes"] + said["index_bytes"]
    holds(table, table_bytes(conn) - size, "table", times=4)
    assert said["wal_bytes"] <= MARGIN * wal + 4 * SLACK
    dead = value(
        conn, "SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = (SELECT reltoastrelid FROM pg_class"
        " WHERE oid = 'llm_param'::regclass)",
    )  # fmt: skip
    assert dead * 2032 <= said["dead_bytes"]


def test_a_second_version_and_no_third(quiet: Connection) -> None:
    """Vacuumed in between, the table has room for the live version and one more, however many follow."""
    conn = quiet
    make_model(conn, "g", **SHAPES["mixed"])
    add_rows(conn, "g", rows=3, vocab=96)
    version = cost(conn, "'g', 'training', 2", "further write-back")
    one = version["heap_bytes"] + version["toast_bytes"] + version["index_bytes"]
    sizes = []
    for _ in range(6):
        train(conn, "g", 1)
        vacuum(conn)
        sizes.append(table_bytes(conn))
    assert sizes[-1] <= 2 * one + SLACK
    assert sizes[-1] <= sizes[1] + version["index_bytes"] * 2
    for _ in range(2):
        train(conn, "g", 1)
    assert table_bytes(conn) > 2.5 * one, "without vacuum there would be more"


def test_tokenizers_are_counted(quiet: Connection) -> None:
    """A copy has the tokenizer as well, as a loaded checkpoint does; a model without one has no such part."""
    conn = quiet
    make_names(conn, "g", d_model=64)
    conn.execute(
        "INSERT INTO llm_bpe_vocab (model, token_id, token, bytes) SELECT 'g', i, md5(i::text), '\\x61'"
        " FROM generate_series(1000, 21000) i"
    )
    said = cost(conn, "'g', 'copying'", "tokenizer")
    size = "SELECT pg_total_relation_size('llm_bpe_vocab')"
    before = value(conn, size)
    wal = wal_of(conn, "SELECT llm_copy_model('g', 'of g')")
    holds(said["heap_bytes"] + said["index_bytes"], value(conn, size) - before, "tokenizer")
    holds(cost(conn, "'g', 'copying'")["wal_bytes"], wal, "WAL of model and tokenizer")
    make_model(conn, "bare")
    assert value(conn, "SELECT count(*) FROM llm_write_cost('bare', 'copying') WHERE part = 'tokenizer'") == 0


def test_what_will_be_is_said_before_there_are_weights(conn: Connection) -> None:
    """Of a configuration alone: GPT-2's 124M in the figures of docs/operate/sizing.md."""
    n = 124_439_808
    made = cost(conn, "'gpt2-small', 'initialising'")
    assert made["toast_bytes"] + made["index_bytes"] == pytest.approx(4.15 * n, rel=0.01)
    further = cost(conn, "'gpt2-small', 'training', 2", "further write-back")
    assert further["wal_bytes"] == pytest.approx(13.2 * n, rel=0.01)
    assert further["dead_bytes"] == pytest.approx(12.3 * n, rel=0.01)
    last = cost(conn, "'gpt2-small', optimizer => 'drop'")
    assert last["toast_bytes"] == pytest.approx(made["toast_bytes"], rel=0.01)
    assert value(conn, "SELECT count(*) FROM llm_write_cost('gpt3-175b', 'finetuning', 1000000)") == 4


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ("'nobody'", errors.UndefinedObject, 'model "nobody" does not exist'),
        ("NULL", errors.UndefinedObject, "model NULL does not exist"),
        ("'gpt2-small', 'sleeping'", errors.InvalidParameterValue, "task must be training, .* got sleeping"),
        ("'gpt2-small', NULL", errors.InvalidParameterValue, "task must be .* got NULL"),
        (
            "'gpt2-small', write_backs => 0",
            errors.InvalidParameterValue,
            "write_backs must be at least 1, got 0",
        ),
        ("'gpt2-small', n_steps => -1", errors.InvalidParameterValue, "n_steps must be between"),
        ("'gpt2-small', optimizer => 'lose'", errors.InvalidParameterValue, "optimizer must be keep or drop"),
        ("'gpt2-small', keep_grad => NULL", errors.InvalidParameterValue, "keep_grad must be true or false"),
    ],
)
def test_errors(conn: Connection, arguments: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        conn.execute(f"SELECT * FROM llm_write_cost({arguments})")


def test_the_largest_arguments(conn: Connection) -> None:
    total = cost(conn, "'gpt3-175b', 'training', 2147483647, 1000000000000")
    assert total["wal_bytes_max"] == (1 << 63) - 1
