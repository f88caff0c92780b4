"""dataset fill --one-per-row, create --arch: what microgpt's run needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine

from llm_sql.corpus import FileSource, LoadOptions, load

from ..support.small_models import NAMES
from .test_cli import Call, call, refuse, run, succeed

__all__ = ["call", "run"]

LINES = [*NAMES[:6], NAMES[2], "", NAMES[0], *NAMES[6:]]


@pytest.fixture
def names(run: Call, tmp_path: Path) -> Path:
    file = tmp_path / "names.txt"
    file.write_text("\ufeff" + "\r\n".join(LINES) + "\n", encoding="utf-8")
    succeed(run("tokenizer", "chars", "names", "--input", str(file), "--lines"))
    succeed(run("create", "names", "--arch", "microgpt"))
    return file


def texts(conn: psycopg.Connection[Any], split: str = "train") -> list[str]:
    """The rows as text, in the order of their ids; BOS begins each and is its last target."""
    bos = conn.execute("SELECT llm_begin_token('names')").fetchone()
    rows = conn.execute(
        "SELECT tokens, target, llm_decode(tokens, 'names') FROM llm_dataset"
        " WHERE model = 'names' AND split = %s ORDER BY id",
        (split,),
    ).fetchall()
    for tokens, target, _ in rows:
        assert (tokens[0],) == bos == (target[-1],)
        assert tokens[1:] == target[:-1]
    return [text for _, _, text in rows]


def test_microgpts_run(run: Call, names: Path, conn: psycopg.Connection[Any]) -> None:
    shape = conn.execute(
        "SELECT arch, n_layer, n_head, d_model, n_positions, vocab FROM llm_model_config"
        " WHERE model = 'names'"
    ).fetchone()
    letters = len(set("".join(NAMES)))
    assert shape == ("microgpt", 1, 4, 16, 16, letters + 1)
    fill = ("dataset", "fill", "names", "-i", str(names), "--lines", "--one-per-row", "--json")
    rows = json.loads(succeed(run(*fill, "--keep-order", "--validation", "0")))
    every = [line for line in LINES if line]
    assert rows == [{"split": "train", "rows": len(every), "tokens": sum(len(line) + 1 for line in every)}]
    assert texts(conn) == every
    trained = json.loads(
        succeed(
            run("train", "names", "-n", str(len(every)), "--data-order", "by_id", "--dropout", "0",
                "--lr", "1e-2",
                "--schedule", "linear", "--beta1", "0.85", "--beta2", "0.99", "--wd", "0", "--warmup", "0",
                "--json", "--keep-grad")
        )
    )  # fmt: skip
    assert trained["last_loss"] < trained["first_loss"]
    kept = conn.execute("SELECT bool_and(grad IS NOT NULL) FROM llm_param WHERE model = 'names'").fetchone()
    assert kept == (True,)


def test_repeated_documents_count_once_unless_asked(
    run: Call, names: Path, conn: psycopg.Connection[Any]
) -> None:
    fill = ("dataset", "fill", "names", "-i", str(names), "--lines", "--one-per-row")
    result = run(*fill, "--validation", "0")
    succeed(result)
    assert "2 documents that occur again" in result.stderr
    assert texts(conn) == NAMES


def test_held_out_documents_keep_the_order_too(run: Call, names: Path, conn: psycopg.Connection[Any]) -> None:
    fill = ("dataset", "fill", "names", "-i", str(names), "--lines", "--one-per-row", "--keep-duplicates")
    succeed(run(*fill, "--validation", "0.3"))
    train, heldout = texts(conn), texts(conn, "validation")
    assert heldout
    assert not set(train) & set(heldout)
    every = [line for line in LINES if line]
    assert train == [line for line in every if line in train]
    assert heldout == [line for line in every if line in heldout]
    # Where chance holds out none, the last one is held out.
    succeed(run(*fill, "--validation", "0.000001"))
    assert texts(conn, "validation") == [every[-1]]


def test_a_query_keeps_its_order(run: Call, names: Path, conn: psycopg.Connection[Any]) -> None:
    query = f"SELECT d FROM unnest(ARRAY{NAMES!r}) WITH ORDINALITY u (d, n) ORDER BY n DESC"
    fill = ("dataset", "fill", "names", "-q", query, "--validation", "0")
    succeed(run(*fill, "--one-per-row"))
    assert texts(conn) == NAMES[::-1]
    succeed(run(*fill, "--keep-order"))
    assert texts(conn) == NAMES[::-1]


def test_many_lines_are_not_compared_pair_by_pair(
    run: Call, names: Path, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """The statistics do not know what a load has just sent: all pairs of these rows would take minutes."""
    letters = sorted(set("".join(NAMES)))[:10]
    file = tmp_path / "many.txt"
    lines = ("".join(letters[int(digit)] for digit in f"{n:07}") for n in range(60_000))
    file.write_text("\n".join(lines), encoding="utf-8")
    database = conn.info.dbname
    conn.execute(f"ALTER DATABASE {database} SET statement_timeout = '20s'")
    try:
        fill = ("dataset", "fill", "names", "-i", str(file), "--lines", "--one-per-row", "--json")
        rows = json.loads(succeed(run(*fill)))
    finally:
        conn.execute(f"ALTER DATABASE {database} RESET statement_timeout")
    assert sum(row["rows"] for row in rows) == 60_000


def test_a_folder_is_no_file(run: Call, names: Path) -> None:
    refuse(run("dataset", "fill", "names", "-i", str(names.parent), "--lines"), 2, "is a folder")


def test_whole_files_and_long_documents(
    run: Call, names: Path, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.doc").write_text(name * 3)
    (tmp_path / "c.doc").write_text("ab" * 40)
    result = run(
        "dataset", "fill", "names", "-i", str(tmp_path / "*.doc"), "--one-per-row", "--validation", "0"
    )
    succeed(result)
    assert "1 documents were longer than a row of 16 tokens" in result.stderr
    lengths = conn.execute("SELECT cardinality(tokens) FROM llm_dataset ORDER BY id").fetchall()
    assert lengths == [(4,), (4,), (16,)]
    refuse(run("dataset", "fill", "names", "-i", str(names), "--one-per-row", "--stride", "4"), 2, "--stride")
    refuse(run("dataset", "fill", "names", "-q", "SELECT 'a'", "--lines"), 2, "--lines")


def test_an_interrupted_load_of_rows_goes_on(
    run: Call, names: Path, conn: psycopg.Connection[Any], db_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_sql.corpus.COMMIT_TOKENS", 20)
    options = LoadOptions(block_size=16, stride=16, validation=0.0, one_per_row=True, duplicates=False)
    engine = create_engine(db_url)

    def stop(progress: Any) -> None:
        if progress.train_rows > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(engine, "names", FileSource([names], lines=True), options, progress=stop)
    sent = len(texts(conn))
    assert 10 < sent < len(NAMES)
    first = conn.execute("SELECT min(id) FROM llm_dataset").fetchone()
    done = load(engine, "names", FileSource([names], lines=True), options)
    assert (done.train_rows, done.repeated) == (len(NAMES), 2)
    assert texts(conn) == NAMES
    assert conn.execute("SELECT min(id) FROM llm_dataset").fetchone() == first
    engine.dispose()


def test_a_seeded_name_has_its_seeded_shape(run: Call, conn: psycopg.Connection[Any]) -> None:
    created = json.loads(succeed(run("create", "microgpt", "--json")))
    assert (created["n_layer"], created["d_model"], created["vocab"]) == (1, 16, 27)
    conn.execute(
        "INSERT INTO llm_model_config (model, arch, n_layer, n_head, d_model, n_positions, vocab)"
        " VALUES ('mine', 'gpt2', 1, 2, 8, 12, 30)"
    )
    refuse(run("create", "mine", "--width", "16"), 2, "--width is 16", "d_model 8", "hint:")
    refuse(run("create", "mine", "--arch", "gpt3"), 2, "gpt3", "gpt2")
    created = json.loads(succeed(run("create", "mine", "--width", "8", "--json")))
    assert (created["n_head"], created["n_positions"], created["vocab"]) == (2, 12, 30)
    refuse(run("create", "mine"), 5, "already exists")


def test_an_architectures_own_shape(run: Call, conn: psycopg.Connection[Any]) -> None:
    created = json.loads(succeed(run("create", "a", "--arch", "microgpt", "--width", "32", "--json")))
    assert (created["n_layer"], created["n_head"], created["d_model"], created["n_positions"]) == (
        1,
        4,
        32,
        16,
    )
    small = json.loads(succeed(run("create", "b", "--vocab", "9", "--json")))
    assert (small["n_layer"], small["n_head"], small["d_model"], small["n_positions"]) == (4, 4, 128, 128)
    own = json.loads(
        succeed(
            run("create", "c", "--arch", "gpt3", "--layers", "1", "--width", "24", "--vocab", "9", "--json")
        )
    )
    assert (own["n_head"], own["n_positions"]) == (12, 2048)
    refuse(run("create", "d", "--arch", "nothing", "--vocab", "9"), 5, "nothing")
