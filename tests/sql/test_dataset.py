"""llm_fill_dataset: documents to rows, and what is held out."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from .small_models import NAMES, make_model, names_query
from .tensors import value

Connection = psycopg.Connection[Any]


def character_model(conn: Connection, query: str = names_query(), n_positions: int = 16) -> int:
    """A model whose tokenizer knows the query's characters; returns BOS."""
    vocab = value(conn, "SELECT llm_build_char_tokenizer('names', %s)", (query,))
    make_model(conn, "names", vocab=vocab, n_positions=n_positions)
    return int(vocab) - 1


def fill(conn: Connection, query: str = names_query(), **arguments: Any) -> tuple[int, int]:
    names = sql.SQL("").join(sql.SQL(", {} => {}").format(sql.SQL(k), v) for k, v in arguments.items())
    row = conn.execute(
        sql.SQL("SELECT train_rows, validation_rows FROM llm_fill_dataset('names', {}{})").format(
            query, names
        )
    ).fetchone()
    assert row is not None
    for split, n in zip(("train", "validation"), row, strict=True):
        assert n == value(
            conn, "SELECT count(*) FROM llm_dataset WHERE model = 'names' AND split = %s", (split,)
        )
    return row


def rows(conn: Connection, split: str) -> list[tuple[list[int], list[int]]]:
    return conn.execute(
        "SELECT tokens, target FROM llm_dataset WHERE model = 'names' AND split = %s ORDER BY id", (split,)
    ).fetchall()


def decode(conn: Connection, ids: list[int], bos: int) -> str:
    table = dict(conn.execute("SELECT token_id, token FROM llm_bpe_vocab WHERE model = 'names'").fetchall())
    return "".join("|" if i == bos else table[i] for i in ids)


def test_a_row_per_document(conn: Connection) -> None:
    bos = character_model(conn)
    n_train, n_held_out = fill(conn)
    assert n_train + n_held_out == len(NAMES)
    assert n_held_out == round(len(NAMES) * 0.1)
    texts = {}
    for split in ("train", "validation"):
        for tokens, target in rows(conn, split):
            assert tokens[0] == target[-1] == bos
            assert tokens[1:] == target[:-1]
            texts[decode(conn, target[:-1], bos)] = split
    assert set(texts) == set(NAMES)


def test_documents_are_cut_off_at_the_context(conn: Connection) -> None:
    bos = character_model(conn, n_positions=4)
    fill(conn, validation=0.0)
    pairs = rows(conn, "train")
    assert all(len(tokens) == len(target) == min(4, len(tokens)) for tokens, target in pairs)
    assert "|eli" in {decode(conn, tokens, bos) for tokens, _ in pairs}
    assert "eliz" in {decode(conn, target, bos) for _, target in pairs}


@pytest.mark.parametrize(("block", "stride"), [(8, None), (8, 8), (8, 3), (16, 1), (1, None)])
def test_blocks_cover_the_joined_documents(conn: Connection, block: int, stride: int | None) -> None:
    bos = character_model(conn)
    fill(conn, block_size=block, stride=stride)
    step = stride or block
    for split in ("train", "validation"):
        pairs = rows(conn, split)
        stream: list[int] = []
        if split == "validation" and (block == 1 or step != block):
            continue  # rows that training has too are left out
        for i, (tokens, target) in enumerate(pairs):
            assert len(tokens) == len(target) <= block
            assert tokens[1:] == target[:-1]
            whole = tokens + target[-1:]
            assert stream[i * step :] == whole[: len(stream) - i * step]
            stream = stream[: i * step] + whole
            assert len(tokens) == block or i == len(pairs) - 1
        text = decode(conn, stream, bos)
        assert text[0] == text[-1] == "|"
        assert "||" not in text
        assert set(text.strip("|").split("|")) <= set(NAMES)


def test_held_out_documents_are_not_trained_on(conn: Connection) -> None:
    bos = character_model(conn)
    for seed in range(5):
        fill(conn, block_size=16, validation=0.3, seed=seed)
        joined = {
            split: decode(conn, [t for tokens, _ in rows(conn, split) for t in tokens], bos)
            for split in ("train", "validation")
        }
        held_out = set(joined["validation"].strip("|").split("|"))
        trained = set(joined["train"].strip("|").split("|"))
        assert len(held_out) == 9
        assert not held_out & trained


def test_equal_documents_count_once(conn: Connection) -> None:
    character_model(conn)
    n = fill(conn, names_query(NAMES + NAMES + ["", "emma"]))
    assert sum(n) == len(NAMES)


def test_rows_equal_after_cutting_are_not_held_out(conn: Connection) -> None:
    """elena and eleonor are the same three letters to a model of context 4."""
    query = names_query(["elena", "eleonor", "elevate", "eleven"])
    character_model(conn, query, n_positions=4)
    assert fill(conn, query, validation=0.5) == (2, 0)


def test_a_single_document_is_cut_in_two(conn: Connection) -> None:
    text = "abcdefghijklmnopqrst"
    bos = character_model(conn, names_query([text]), n_positions=32)
    assert fill(conn, names_query([text]), validation=0.25, block_size=32) == (1, 1)
    assert decode(conn, rows(conn, "train")[0][0], bos) == "|" + text[:15]
    assert decode(conn, rows(conn, "validation")[0][0], bos) == "|" + text[15:]


def test_the_seed_draws_what_is_held_out(conn: Connection) -> None:
    character_model(conn)
    drawn = []
    for seed in (1, 1, 2, 3):
        fill(conn, seed=seed)
        drawn.append(sorted(tokens for tokens, _ in rows(conn, "validation")))
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2] or drawn[2] != drawn[3]


def test_filling_replaces_the_models_rows_only(conn: Connection) -> None:
    character_model(conn)
    conn.execute(
        "INSERT INTO llm_dataset (model, tokens, target) VALUES (NULL, '{1}', '{1}'), ('other', '{1}', '{1}')"
    )
    assert fill(conn) == fill(conn)
    assert value(conn, "SELECT count(*) FROM llm_dataset WHERE model IS DISTINCT FROM 'names'") == 2


def test_queries_as_people_write_them(conn: Connection) -> None:
    query = "SELECT n, 1 AS other FROM unnest(ARRAY['emma', 'ava', NULL]) n ORDER BY 1 -- names\n;  "
    character_model(conn, query)
    assert sum(fill(conn, query)) == 2
    assert sum(fill(conn, "WITH w AS (SELECT 'eva') SELECT * FROM w")) == 2
    assert sum(fill(conn, "VALUES ('a'), ('m')")) == 2
    conn.execute("CREATE TEMP TABLE documents AS SELECT 'mama' AS document")
    assert sum(fill(conn, "TABLE documents;")) == 2


def test_held_out_view(conn: Connection) -> None:
    character_model(conn)
    fill(conn)
    assert conn.execute(
        "SELECT seq, target FROM llm_heldout WHERE model = 'names' ORDER BY id"
    ).fetchall() == rows(conn, "validation")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("block_size => 0", "block_size must be between 1 and the context of 16, got 0"),
        ("block_size => 17", "block_size must be between 1 and the context of 16, got 17"),
        ("block_size => 8, stride => 0", "stride must be between 1 and block_size, got 0"),
        ("block_size => 8, stride => 9", "stride must be between 1 and block_size, got 9"),
        ("stride => 2", "stride must be between 1 and block_size, got 2"),
        ("validation => 1", r"validation must be in \[0, 1\), got 1"),
        ("validation => 'NaN'", r"validation must be in \[0, 1\), got NaN"),
        ("seed => NULL", "seed must not be NULL"),
    ],
)
def test_arguments_out_of_range(conn: Connection, arguments: str, message: str) -> None:
    character_model(conn)
    with pytest.raises(errors.InvalidParameterValue, match=message):
        conn.execute(f"SELECT llm_fill_dataset('names', 'SELECT ''emma''', {arguments})")


def test_what_else_can_be_wrong(conn: Connection) -> None:
    character_model(conn)
    with pytest.raises(errors.NoDataFound, match="gave no text"):
        fill(conn, "SELECT 'x' WHERE false")
    with pytest.raises(errors.NoDataFound, match="gave no text"):
        fill(conn, "SELECT NULL::text")
    with pytest.raises(errors.SyntaxError):
        fill(conn, "SELEC 1")
    with pytest.raises(errors.UndefinedTable):
        fill(conn, "SELECT * FROM nowhere")
    with pytest.raises(errors.InvalidParameterValue, match="query must not be NULL"):
        conn.execute("SELECT llm_fill_dataset('names', NULL)")
    fill(conn)
    with pytest.raises(errors.CharacterNotInRepertoire, match="'#'"):
        fill(conn, "VALUES ('emma'), ('a#b')")
    assert value(conn, "SELECT count(*) FROM llm_dataset WHERE model = 'names'") == len(NAMES)
    make_model(conn)
    with pytest.raises(errors.UndefinedObject, match="has no tokenizer"):
        conn.execute("SELECT llm_fill_dataset('tiny', 'SELECT 1')")
