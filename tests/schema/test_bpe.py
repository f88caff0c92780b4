"""Byte pair encoding in the database: loading, encoding, learning, and the version a session sees."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.orm import Session

from llm_sql.bench.tokenizer import bench_tokenizer
from llm_sql.tokenizer import read_bpe, read_encoding

from ..amount import EXTENDED, grows
from ..conftest import Connect
from ..reference import bpe as reference
from ..support.pages import PAGES
from ..support.small_models import make_model, names_query
from ..support.tensors import value

Connection = psycopg.Connection[Any]
VOCAB = reference.GOLDEN / "bpe_vocab.json"
MERGES = reference.GOLDEN / "bpe_merges.txt"
STRINGS = int(os.environ.get("LLM_SQL_TEST_STRINGS", "5000"))
ENCODE_ALL = """SELECT array_agg(to_jsonb(e.ids) ORDER BY e.number),
    array_agg(llm_decode(e.ids, %(model)s) ORDER BY e.number)
FROM llm_encode_documents(%(texts)s::text[], %(model)s) e"""


def load(conn: Connection, model: str = "small", vocab: Path = VOCAB, merges: Path = MERGES) -> int:
    size = value(conn, "SELECT llm_load_bpe(%s, %s, %s)", (model, vocab.read_bytes(), merges.read_bytes()))
    assert isinstance(size, int)
    return size


def encode(conn: Connection, text: str, model: str = "small") -> Any:
    """Special tokens recognised."""
    return value(conn, "SELECT llm_encode(%s, %s, special => true)", (text, model))


def check_strings(conn: Connection, model: str, vocab: Path, count: int) -> None:
    encoding = reference.tiktoken_encoding(vocab)
    texts = [*(text for text in reference.HARD if text), *reference.random_strings(4, count)]
    for start in range(0, len(texts), 2000):
        part = [text for text in texts[start : start + 2000] if text]
        row = conn.execute(ENCODE_ALL, {"model": model, "texts": part}).fetchone()
        assert row is not None
        assert row[1] == part
        for text, ids in zip(part, row[0], strict=True):
            assert ids == encoding.encode_ordinary(text), repr(text)


def test_equal_to_tiktoken(conn: Connection) -> None:
    assert load(conn) == 512
    check_strings(conn, "small", VOCAB, min(STRINGS, 2000))


def test_gpt2(conn: Connection, shared_data: Callable[[str], Path]) -> None:
    vocab, merges = shared_data("gpt2/vocab.json"), shared_data("gpt2/merges.txt")
    assert load(conn, "gpt2-small", vocab, merges) == 50257
    assert encode(conn, "Hello world!", "gpt2-small") == [15496, 995, 0]
    assert encode(conn, f"a{reference.END}b", "gpt2-small") == [64, 50256, 65]
    assert (
        value(conn, "SELECT llm_decode('{15496,995,0,50256}', 'gpt2-small')")
        == f"Hello world!{reference.END}"
    )
    check_strings(conn, "gpt2-small", vocab, STRINGS)


def test_special_tokens(conn: Connection) -> None:
    load(conn)
    text = f"the {reference.END} end"
    theirs = reference.tiktoken_encoding(VOCAB)
    assert encode(conn, text) == theirs.encode(text, allowed_special="all")
    for call in (
        "llm_encode(%s, 'small')",
        "llm_encode(%s, 'small', NULL)",
        "llm_encode(%s, 'small', false)",
    ):
        assert value(conn, f"SELECT {call}", (text,)) == theirs.encode_ordinary(text)


def test_tokens_without_flags_are_special_by_their_form(conn: Connection) -> None:
    load(conn)
    forms = {
        600: "<|a|>",
        601: "<||>",
        602: "<|a<b|>",
        603: "<|a\nb|>",
        604: "x<|a|>",
        605: "<|b|>",
        606: "<|>",
    }
    for token_id, token in forms.items():
        conn.execute(
            "INSERT INTO llm_bpe_vocab (model, token_id, token, bytes, flags)"
            " VALUES ('small', %s, %s, convert_to(%s, 'UTF8'), %s)",
            (token_id, token, token, [] if token_id == 605 else None),
        )
    special = {i for i, token in forms.items() if encode(conn, token) == [i]}
    assert special == {600, 603}
    assert 600 not in value(conn, "SELECT llm_encode('<|a|>', 'small')")


def test_decoding_what_is_no_text(conn: Connection) -> None:
    load(conn)
    table = dict(conn.execute("SELECT bytes, token_id FROM llm_bpe_vocab WHERE model = 'small'").fetchall())
    for data in (
        b"\xff",
        b"a\xe6\x97",
        b"\xf0\x9f\x98\x80"[:3] + b"b",
        b"\xed\xa0\x80",
        b"a\x00b",
        b"\xc3\xa9",
    ):
        ids = [table[bytes([byte])] for byte in data]
        expected = data.decode("utf-8", "replace").replace("\0", "\ufffd")
        assert value(conn, "SELECT llm_decode(%s::int[], 'small')", (ids,)) == expected
        assert value(conn, "SELECT llm_token_bytes(%s::int[], 'small')", (ids,)) == data
    with pytest.raises(
        errors.NumericValueOutOfRange, match='token 512 is not in the tokenizer of model "small"'
    ):
        conn.execute("SELECT llm_decode('{512}', 'small')")


def test_a_session_sees_the_rows_it_should(conn: Connection, connect: Connect) -> None:
    """Other sessions' commits, own changes, savepoints and rollbacks, replica role, truncation."""
    load(conn)
    other = connect()
    text = "the the"
    first = encode(conn, text)
    assert encode(other, text) == first
    swap = "UPDATE llm_bpe_vocab SET token_id = token_id + 1000 WHERE model = 'small'"
    moved = [id_ + 1000 for id_ in first]
    with other.transaction(force_rollback=True):
        other.execute(swap)
        assert encode(other, text) == moved
        assert encode(conn, text) == first
    assert encode(other, text) == first
    with other.transaction():
        with other.transaction(force_rollback=True):
            other.execute(swap)
            assert encode(other, text) == moved
        assert encode(other, text) == first
    with connect(autocommit=False) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert encode(reader, text) == first
        other.execute("SET session_replication_role = replica")
        other.execute(swap)
        assert encode(reader, text) == first
    assert encode(conn, text) == moved
    conn.execute("TRUNCATE llm_bpe_merges")
    assert len(encode(conn, text)) == len(text)
    conn.execute("TRUNCATE llm_bpe_vocab")
    with pytest.raises(errors.UndefinedObject, match="has no tokenizer"):
        encode(conn, text)


def test_files_of_the_server(conn: Connection, connect: Connect, tmp_path: Path) -> None:
    if "127.0.0.1" in conn.info.host and not os.environ.get("LLM_SQL_TEST_LOCAL"):
        pytest.skip("the server may be on another machine")
    folder = Path("/tmp") / f"llm-sql-bpe-{os.getpid()}"  # the server runs as another account
    folder.mkdir(mode=0o755)
    try:
        for name, source in (("encoder.json", VOCAB), ("vocab.bpe", MERGES)):
            shutil.copy(source, folder / name)
            (folder / name).chmod(0o644)
        assert value(conn, "SELECT pg_llm_load_bpe_vocab(%s, 'm')", (f"{folder}/encoder.json",)) == 512
        assert value(conn, "SELECT pg_llm_load_bpe_merges(%s, 'm')", (f"{folder}/vocab.bpe",)) == 255
        assert encode(conn, "the", "m") == reference.tiktoken_encoding(VOCAB).encode("the")
        with pytest.raises(errors.UndefinedFile):
            conn.execute("SELECT pg_llm_load_bpe_vocab(%s, 'm')", (f"{folder}/none",))
        with pytest.raises(errors.WrongObjectType, match="not a regular file"):
            conn.execute("SELECT pg_llm_load_bpe_vocab(%s, 'm')", (str(folder),))
        with pytest.raises(errors.InvalidParameterValue, match="line 1"):
            conn.execute("SELECT pg_llm_load_bpe_merges(%s, 'm')", (f"{folder}/encoder.json",))
        assert value(conn, "SELECT count(*) FROM llm_bpe_merges WHERE model = 'm'") == 255
        trainer = connect()
        trainer.execute("SET ROLE llm_trainer")
        with pytest.raises(errors.InsufficientPrivilege):
            trainer.execute("SELECT pg_llm_load_bpe_vocab(%s, 'm')", (f"{folder}/encoder.json",))
        assert load(trainer, "mine") == 512
    finally:
        shutil.rmtree(folder)


def test_contents_that_do_not_fit(conn: Connection) -> None:
    vocab = '{"a": 0, "b": 1, "ab": 2}'
    assert value(conn, "SELECT llm_load_bpe('m', %s, %s)", (vocab, "a b\n")) == 3
    assert encode(conn, "abba", "m") == [2, 1, 0]
    for merges, message in (
        ("a c\n", "not in its vocabulary"),
        ("a b\nb\n", "line 2"),
        ("a b\na b\n", "line 2"),
    ):
        with pytest.raises(errors.InvalidParameterValue, match=message):
            conn.execute("SELECT llm_load_bpe('m', %s, %s)", (vocab, merges))
    with pytest.raises(errors.InvalidParameterValue, match="line 2"):
        conn.execute("SELECT llm_load_bpe('m', %s, '')", ('{"a": 0,\n"b": 0}',))
    with pytest.raises(errors.CharacterNotInRepertoire, match="no token for the byte 0x63"):
        encode(conn, "abc", "m")
    assert encode(conn, "abba", "m") == [2, 1, 0]


@pytest.mark.parametrize("rank", ["k", "k * 65536", "2147483646 - k", "k * 524287"])
def test_a_pair_or_a_rank_that_appears_twice(conn: Connection, rank: str) -> None:
    handle = value(conn, "SELECT pg_llm_bpe_create('m', 'version')")
    conn.execute(
        f"SELECT pg_llm_bpe_put_token({handle}, i, convert_to(chr(64 + i), 'UTF8'), 0)"
        " FROM generate_series(0, 63) i"
    )
    pairs = (
        "(SELECT 64 * i + j AS k, chr(64 + i) AS a, chr(64 + j) AS b"
        " FROM generate_series(0, 63) i, generate_series(0, 63) j) p"
    )
    conn.execute(f"SELECT pg_llm_bpe_put_token({handle}, 64 + k, convert_to(a || b, 'UTF8'), 0) FROM {pairs}")
    put = f"SELECT pg_llm_bpe_put_merge({handle}, {rank}, a, b) FROM {pairs} WHERE"
    conn.execute(f"{put} k < 4095")
    for k in range(0, 4095, 455):
        taken = f"SELECT pg_llm_bpe_put_merge({handle}, {rank}, chr(127), chr(127)) FROM (SELECT {k}) r (k)"
        for again in (f"{put} k = {k}", taken):
            with pytest.raises(errors.InvalidParameterValue, match="appears twice"), conn.transaction():
                conn.execute(again)
    conn.execute(f"{put} k = 4095")


def test_damaged_files(conn: Connection) -> None:
    for kind, reader in (("vocab", "vocab"), ("merges", "merges"), ("tiktoken", "tiktoken")):
        for file in (reference.CORPUS / f"bpe_{kind}").iterdir():
            query = f"SELECT count(*) FROM pg_llm_bpe_read_{reader}(%s)"
            if file.name.startswith("good"):
                assert value(conn, query, (file.read_bytes(),)) >= 0
            else:
                with pytest.raises(errors.InvalidParameterValue, match=r"line [1-9]"):
                    conn.execute(query, (file.read_bytes(),))


def test_a_tiktoken_file(conn: Connection) -> None:
    import base64

    ranks = reference.tiktoken_encoding(VOCAB)._mergeable_ranks
    contents = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
    assert value(conn, "SELECT llm_load_bpe('t', %s::bytea)", (contents,)) == 511
    load(conn)
    same = "SELECT left_token, right_token FROM llm_bpe_merges WHERE model = %s ORDER BY rank"
    assert conn.execute(same, ("t",)).fetchall() == conn.execute(same, ("small",)).fetchall()


def test_learning(conn: Connection, session: Session) -> None:
    size = value(conn, "SELECT llm_train_bpe('learnt', %s, 270)", (names_query(),))
    assert size == 270
    assert value(conn, "SELECT llm_end_token('learnt')") == 269
    merges = conn.execute("SELECT rank, left_token, right_token FROM llm_bpe_merges ORDER BY rank").fetchall()
    assert len(merges) == 13
    again = value(conn, "SELECT llm_train_bpe('again', %s, 270)", (names_query(),))
    rows = "SELECT rank, left_token, right_token FROM llm_bpe_merges WHERE model = 'again' ORDER BY rank"
    assert (again, conn.execute(rows).fetchall()) == (270, merges)
    assert value(conn, "SELECT llm_train_bpe('more', %s, 1000)", (names_query(),)) < 1000
    ours, theirs = read_bpe(session, "learnt"), read_encoding(session, "learnt")
    for text in ("isabella and sophia", "Größe 日本"):
        ids = encode(conn, text, "learnt")
        assert ids == ours.encode(text).tolist() == theirs.encode(text)
        assert value(conn, "SELECT llm_decode(%s, 'learnt')", (ids,)) == text
    with pytest.raises(errors.InvalidParameterValue, match="at least 257"):
        conn.execute("SELECT llm_train_bpe('learnt', %s, 256)", (names_query(),))
    with pytest.raises(errors.NoDataFound, match="returned no text"):
        conn.execute("SELECT llm_train_bpe('learnt', 'SELECT ''''', 300)")
    make_model(conn, vocab=260)
    with pytest.raises(errors.InvalidParameterValue, match="vocab 300 is more than the vocab 260"):
        conn.execute("SELECT llm_train_bpe('tiny', %s, 300)", (names_query(),))


def test_data_and_generation(conn: Connection) -> None:
    """Rows are cut from documents between end-of-text tokens; pieces of a stream never split a character."""
    load(conn)
    make_model(conn, "small", vocab=512, n_positions=16)
    query = "SELECT unnest(ARRAY['the cat', 'das Größe <|endoftext|>', '日本語'])"
    conn.execute("SELECT llm_fill_dataset('small', %s, 8, NULL, 0)", (query,))
    rows = conn.execute("SELECT tokens, target FROM llm_dataset ORDER BY id").fetchall()
    end = value(conn, "SELECT llm_end_token('small')")
    stream = [rows[0][0][0], *(id_ for row in rows for id_ in row[1])]
    assert stream.count(end) == 4
    assert stream[0] == stream[-1] == end
    pieces = conn.execute(
        "SELECT token, text, is_complete"
        " FROM llm_generate_stream('日本', 40, model => 'small', seed => 3, top_k => 0)"
    ).fetchall()
    assert "".join(piece[0] for piece in pieces) == pieces[-1][1]
    assert pieces[-1][2]
    ids = conn.execute(
        "SELECT token_id FROM llm_generate_stream('日本', 40, model => 'small', seed => 3, top_k => 0)"
    ).fetchall()
    kept = [row[0] for row in ids if row[0] != end]
    assert pieces[-1][1] == value(conn, "SELECT llm_decode(%s::int[], 'small')", (kept,))


@grows
def test_throughput(conn: Connection, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """As many tokens as tiktoken; EXTENDED: at least its throughput on one thread, by SQL, in one run."""
    load(conn)
    documents = [path.read_text(encoding="utf-8") for path in PAGES]
    result = bench_tokenizer(session, "small", documents * (20 if EXTENDED else 1))
    with capsys.disabled():
        print(result)
    assert result["ratio"] > (1 if EXTENDED else 0)
