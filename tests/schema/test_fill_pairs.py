"""llm_fill_pairs: a query's columns to rows of sequences, what is left out, cut, and held out."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ..support.encoder_pairs import make_bag
from ..support.small_models import train
from ..support.tensors import value

Connection = psycopg.Connection[Any]

TEXTS = "SELECT 'abcdefghijklmnopqrstuvwxyz0123456789 '"


@pytest.fixture
def encoder(conn: Connection) -> Connection:
    """An encoder of six tokens a text, whose tokens are characters."""
    conn.execute("SELECT llm_build_char_tokenizer('bag', %s)", (TEXTS,))
    vocab = value(conn, "SELECT count(*) FROM llm_bpe_vocab WHERE model = 'bag'")
    make_bag(conn, vocab=vocab)
    return conn


def fill(conn: Connection, query: str, *told: str, **arguments: Any) -> tuple[int, int]:
    """The numbers of pairs; `told` is what notices say."""
    notices: list[str] = []

    def note(diagnostic: Any) -> None:
        notices.append(diagnostic.message_primary)

    conn.add_notice_handler(note)
    try:
        names = "".join(f", {name} => %({name})s" for name in arguments)
        found = conn.execute(
            f"SELECT pairs, validation_pairs FROM llm_fill_pairs('bag', %(query)s{names})",
            {"query": query} | arguments,
        ).fetchone()
    finally:
        conn.remove_notice_handler(note)
    assert len(notices) == len(told), notices
    for message, part in zip(notices, told, strict=True):
        assert part in message
    assert found is not None
    return found[0], found[1]


def rows(conn: Connection, split: str = "train") -> list[list[str]]:
    """The texts of every row, sequence by sequence."""
    found = []
    for tokens, target in conn.execute(
        "SELECT tokens, target FROM llm_dataset WHERE model = 'bag' AND split = %s ORDER BY id", (split,)
    ).fetchall():
        numbers = range(max(target) + 1)
        sequences = [[t for t, s in zip(tokens, target, strict=True) if s == n] for n in numbers]
        assert [t for sequence in sequences for t in sequence] == tokens
        found.append([value(conn, "SELECT llm_decode(%s, 'bag')", (ids,)) for ids in sequences])
    return found


def test_pairs_in_the_order_of_their_texts(encoder: Connection) -> None:
    assert fill(encoder, "VALUES ('b', 'two'), ('a', 'one'), ('b', 'two'), ('a', 'other')") == (3, 0)
    assert rows(encoder) == [["a", "one"], ["a", "other"], ["b", "two"]]


def test_hard_negatives(encoder: Connection) -> None:
    query = "VALUES ('a', 'one', 'no', 'nor'), ('b', 'two', NULL, 'nein'), ('c', 'three', '', NULL)"
    assert fill(encoder, query) == (3, 0)
    assert rows(encoder) == [["a", "one", "no", "nor"], ["b", "two", "nein"], ["c", "three"]]


def test_columns_of_any_type_and_name(encoder: Connection) -> None:
    query = "SELECT 1 AS \"x y\", 2.5::numeric AS anchor, 'c'::name AS positive, 7 AS anchor"
    with pytest.raises(psycopg.Error):
        fill(encoder, query)  # The tokenizer has no full stop.
    assert fill(encoder, query.replace("2.5", "25")) == (1, 0)
    assert rows(encoder) == [["1", "25", "c", "7"]]


def test_what_is_left_out(encoder: Connection) -> None:
    query = "VALUES ('a', 'one'), (NULL, 'x'), ('y', NULL), ('', 'x'), ('y', ''), ('y', '')"
    assert fill(encoder, query, "5 rows of the query were left out") == (1, 0)


def test_long_texts_are_cut(encoder: Connection) -> None:
    query = "VALUES ('abcdefgh', 'abcdef'), ('a', 'abcdefg')"
    assert fill(encoder, query, "2 of 4 texts are longer than the 6 tokens") == (2, 0)
    assert rows(encoder) == [["a", "abcdef"], ["abcdef", "abcdef"]]
    assert fill(encoder, query, "3 of 4 texts are longer than the 2 tokens", max_tokens=2) == (2, 0)
    assert rows(encoder) == [["a", "ab"], ["ab", "ab"]]


def test_texts_that_become_equal_count_once(encoder: Connection) -> None:
    assert fill(encoder, "VALUES ('abc', 'x'), ('abd', 'x')", "2 of 4 texts", max_tokens=2) == (1, 0)


MANY = "SELECT 'a' || i, 'p' || i FROM generate_series(1, 20) i"


def test_held_out_pairs(encoder: Connection) -> None:
    assert fill(encoder, MANY, validation=0.25) == (15, 5)
    held_out = rows(encoder, "validation")
    assert not [row for row in held_out if row in rows(encoder)]
    fill(encoder, MANY, validation=0.25)
    assert rows(encoder, "validation") == held_out
    fill(encoder, MANY, validation=0.25, seed=1)
    assert rows(encoder, "validation") != held_out
    # A single pair is trained on.
    assert fill(encoder, "VALUES ('a', 'b')", validation=0.9) == (1, 0)
    assert rows(encoder, "validation") == []


def test_splits_are_replaced_one_by_one(encoder: Connection) -> None:
    fill(encoder, MANY)
    assert fill(encoder, "VALUES ('a1', 'p1'), ('new', 'one')", "1 pairs for mine", split="mine") == (1, 0)
    assert rows(encoder, "mine") == [["new", "one"]]
    assert len(rows(encoder)) == 20
    fill(encoder, "VALUES ('a1', 'p1')")
    assert len(rows(encoder)) == 1
    assert rows(encoder, "mine") == [["new", "one"]]


def test_prompts(encoder: Connection) -> None:
    """An encoder of ours knows prompts by its settings, as the built-in one does."""
    encoder.execute(
        """UPDATE llm_arch SET settings = '{"prompts": {"type": "object", "default": {}},
        "default_prompt": {"type": "text", "default": null}}' WHERE arch = 'bag'"""
    )
    encoder.execute("""UPDATE llm_model_config SET settings = '{"prompts": {"q": "q ", "p": "p "}}'""")
    query = "VALUES ('ab', 'cd', 'ef')"
    fill(encoder, query, anchor_prompt="q", positive_prompt="p")
    assert rows(encoder) == [["q ab", "p cd", "p ef"]]
    fill(encoder, query)
    assert rows(encoder) == [["ab", "cd", "ef"]]
    encoder.execute("""UPDATE llm_model_config SET settings = settings || '{"default_prompt": "p"}'""")
    fill(encoder, query, anchor_prompt="")
    assert rows(encoder) == [["ab", "p cd", "p ef"]]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='no prompt "x"') as refused:
        fill(encoder, query, anchor_prompt="x")
    assert "p, q" in str(refused.value.diag.message_hint)


def test_filled_rows_are_trained_on(encoder: Connection) -> None:
    fill(encoder, MANY, validation=0.2)
    train(encoder, "bag", 2, batch_size=5)
    assert encoder.execute("SELECT pairs, candidates FROM llm_recall('bag', k => 1)").fetchone() == (4, 4)


@pytest.mark.parametrize(
    ("query", "sqlstate"),
    [
        ("SELECT 'a'", "42804"),
        ("SELECT 'a', 'b' WHERE false", "P0002"),
        ("VALUES ('', ''), (NULL, NULL)", "P0002"),
        ("SELEC 1", "42601"),
        ("SELECT a, b FROM nowhere", "42P01"),
        (None, "22023"),
    ],
)
def test_queries_that_give_no_pairs(encoder: Connection, query: str | None, sqlstate: str) -> None:
    fill(encoder, MANY)
    with pytest.raises(psycopg.Error) as refused:
        encoder.execute("SELECT llm_fill_pairs('bag', %s)", (query,))
    assert refused.value.sqlstate == sqlstate
    assert len(rows(encoder)) == 20


@pytest.mark.parametrize(
    "arguments",
    [
        "split => ''",
        "split => NULL",
        "validation => 1",
        "validation => -0.1",
        "validation => NULL",
        "validation => 'NaN'",
        "validation => 0.1, split => 'validation'",
        "seed => NULL",
        "max_tokens => 0",
        "max_tokens => 7",
    ],
)
def test_arguments(encoder: Connection, arguments: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        encoder.execute(f"SELECT llm_fill_pairs('bag', 'SELECT 1, 2', {arguments})".encode())


def test_without_a_tokenizer(conn: Connection) -> None:
    make_bag(conn)
    with pytest.raises(psycopg.errors.UndefinedObject, match="has no tokenizer"):
        conn.execute("SELECT llm_fill_pairs('bag', 'SELECT 1, 2')")


def test_the_query_is_the_callers(encoder: Connection) -> None:
    """Names are found by the caller's search path, and rows by the caller's rights."""
    encoder.execute("CREATE SCHEMA mine; CREATE TABLE mine.pairs AS SELECT 'a'::text AS a, 'b'::text AS b")
    encoder.execute("SET search_path = mine, public")
    assert fill(encoder, "SELECT a, b FROM pairs -- a comment") == (1, 0)
    assert fill(encoder, "SELECT a, b FROM pairs;") == (1, 0)
    encoder.execute("SET ROLE llm_trainer")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        fill(encoder, "SELECT a, b FROM mine.pairs")
