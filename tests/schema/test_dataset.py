"""llm_fill_dataset: documents to rows, and what is held out."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from ..support.small_models import NAMES, make_model, names_query
from ..support.tensors import value

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
    with pytest.raises(errors.NoDataFound, match="returned no text"):
        fill(conn, "SELECT 'x' WHERE false")
    with pytest.raises(errors.NoDataFound, match="returned no text"):
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


# ---- order, duplicates, and what is left out ----


def fill_ordered(conn: Connection, documents: list[str], **arguments: Any) -> tuple[int, int]:
    names = ", ".join(f"'{document}'" for document in documents)
    query = f"SELECT d FROM unnest(ARRAY[{names}]) WITH ORDINALITY u (d, n) ORDER BY n"
    return fill(conn, query, keep_order=True, **arguments)


def texts(conn: Connection, split: str, bos: int) -> list[str]:
    return [decode(conn, target[:-1], bos) for _, target in rows(conn, split)]


@pytest.mark.parametrize("seed", range(5))
def test_order_and_duplicates_are_kept(conn: Connection, seed: int) -> None:
    bos = character_model(conn)
    documents = [NAMES[i] for i in (5, 3, 5, 0, 9, 3, 3, 7, 1, 0)]
    fill_ordered(conn, [*documents, ""], validation=0.3, seed=seed)
    train, held_out = texts(conn, "train", bos), texts(conn, "validation", bos)
    # Of six different names two are held out, with all their copies.
    assert len(set(held_out)) == 2
    assert train == [d for d in documents if d not in set(held_out)]
    assert held_out == [d for d in documents if d in set(held_out)]
    fill_ordered(conn, documents, validation=0.0)
    assert texts(conn, "train", bos) == documents
    fill_ordered(conn, documents, validation=0.0, block_size=16)
    stream = [t for tokens, _ in rows(conn, "train") for t in tokens]
    assert decode(conn, stream, bos) == "|" + "|".join(documents)


def test_a_single_document_given_twice(conn: Connection) -> None:
    bos = character_model(conn, names_query(["abcdefghij"]), n_positions=32)
    assert fill_ordered(conn, ["abcdefghij"] * 2, validation=0.2) == (2, 1)
    assert texts(conn, "train", bos) == ["abcdefgh"] * 2
    assert texts(conn, "validation", bos) == ["ij"]


def test_what_is_left_out_is_told(conn: Connection) -> None:
    character_model(conn, n_positions=4)
    notices: list[tuple[str | None, str | None]] = []
    conn.add_notice_handler(lambda n: notices.append((n.message_primary, n.message_hint)))
    fill_ordered(conn, ["ava", "emma", "olivia", "ava"], validation=0.0)
    # emma is 5 tokens with the end, olivia 7; the context holds 4.
    assert [n for n, _ in notices] == [
        "4 of 12 tokens of 2 documents for train are beyond the context of 4 and were left out"
    ]
    assert "block_size" in str(notices[0][1])
    notices.clear()
    fill_ordered(conn, ["ava", "emma", "olivia"], validation=0.0, block_size=4)
    fill_ordered(conn, ["ava", "ava"], validation=0.0)
    assert notices == []


# ---- a tokenizer without a token that ends a text ----


@pytest.fixture
def noend(conn: Connection) -> Connection:
    vocab = {chr(i): i - 97 for i in range(97, 123)} | {"\u0120": 26}
    conn.execute("SELECT llm_load_bpe('names', %s, %s)", (json.dumps(vocab).encode(), b"#version: 0.2\n"))
    make_model(conn, "names", vocab=27, n_positions=8)
    return conn


def test_no_end_token_and_no_null(noend: Connection) -> None:
    assert noend.execute(
        "SELECT llm_end_tokens('names'), llm_end_token('names'), llm_begin_token('names')"
    ).fetchone() == ([], None, None)
    fill(noend, "VALUES ('the cat'), ('a')", validation=0)
    assert rows(noend, "train") == [([19, 7, 4, 26, 2, 0], [7, 4, 26, 2, 0, 19])]
    fill(noend, "VALUES ('the cat'), ('dog'), ('a')", validation=0, block_size=4, seed=1)
    joined = [*rows(noend, "train")[0][0][:1], *(t for _, target in rows(noend, "train") for t in target)]
    assert sorted(joined) == sorted([19, 7, 4, 26, 2, 0, 19, 3, 14, 6, 0])
    assert fill(noend, "VALUES ('the cat and the dog')", validation=0.3, block_size=4)[1] > 0
    assert value(noend, "SELECT llm_perplexity('names', 'the cat')") > 1
    query = "SELECT tokens FROM llm_evaluate('names', query => $$VALUES ('the cat'), ('a')$$)"
    assert value(noend, query) == 6
    assert value(noend, "SELECT length(llm_generate('the', 5, model => 'names', seed => 1))") == 5
    assert value(noend, "SELECT shape(llm_embed_text('the', 'names'))") == [16]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("llm_generate('', model => 'names')", "no token to begin an empty prompt"),
        ("llm_generate(ARRAY['a', ''], model => 'names')", "no token to begin an empty prompt"),
        ("(llm_beam_search('', model => 'names')).text", "no token to begin an empty prompt"),
        ("llm_embed_text('', 'names')", "no token to represent an empty text"),
        ("llm_perplexity('names', 'a')", "one token that nothing precedes"),
        ("llm_perplexity('names', '')", "no tokens has no perplexity"),
        ("llm_encode('a', 'names', bos => true)", "no token that begins a text"),
    ],
)
def test_where_one_is_needed_its_lack_is_told(noend: Connection, call: str, message: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=message):
        noend.execute(f"SELECT {call}")


@pytest.mark.parametrize("column", ["tokens", "target"])
def test_no_row_holds_a_null(conn: Connection, column: str) -> None:
    arrays = {"tokens": "{1,2}", "target": "{1,2}"} | {column: "{1,NULL}"}
    with pytest.raises(errors.CheckViolation, match="no_null"):
        conn.execute("INSERT INTO llm_dataset (tokens, target) VALUES (%(tokens)s, %(target)s)", arrays)


# ---- a token that begins a text and another that ends it ----


def test_what_begins_and_what_ends_a_text_are_data(conn: Connection) -> None:
    """<|bos|> beside <|endoftext|>: which one ends is a flag, else GPT-2's name, never the alphabet."""
    vocab = {chr(i): i - 97 for i in range(97, 123)} | {"<|bos|>": 26, "<|endoftext|>": 27}
    conn.execute("SELECT llm_load_bpe('names', %s, %s)", (json.dumps(vocab).encode(), b""))
    make_model(conn, "names", vocab=28, n_positions=8)
    ask = "SELECT llm_end_tokens('names'), llm_begin_token('names'), llm_encode('ab', 'names', bos => true)"
    assert conn.execute(ask).fetchone() == ([27], 27, [27, 0, 1])
    conn.execute("UPDATE llm_bpe_vocab SET flags = '{added,special,bos}' WHERE token = '<|bos|>'")
    assert conn.execute(ask).fetchone() == ([27], 26, [26, 0, 1])
    fill(conn, "VALUES ('ab'), ('c')", validation=0, seed=1)
    assert sorted(rows(conn, "train")) == [([26, 0, 1], [0, 1, 27]), ([26, 2], [2, 27])]
    fill_ordered(conn, ["ab", "c"], validation=0, block_size=8)
    assert rows(conn, "train") == [([26, 0, 1, 27, 26, 2], [0, 1, 27, 26, 2, 27])]
    conn.execute("UPDATE llm_bpe_vocab SET flags = '{stop}' WHERE token = 'z'")
    conn.execute("UPDATE llm_bpe_vocab SET flags = '{added,special,eos}' WHERE token = '<|endoftext|>'")
    assert value(conn, "SELECT llm_end_tokens('names')") == [27, 25]
    with pytest.raises(errors.CheckViolation, match="flags"):
        conn.execute("UPDATE llm_bpe_vocab SET flags = '{end}' WHERE token = 'z'")


def test_a_character_tokenizer_can_begin_with_bos(conn: Connection) -> None:
    bos = character_model(conn)
    plain = value(conn, "SELECT llm_encode('emma', 'names')")
    assert value(conn, "SELECT llm_encode('emma', 'names', true, true)") == [bos, *plain]
    assert value(conn, "SELECT llm_encode('', 'names', bos => true)") == [bos]


def test_a_vocabulary_larger_than_the_tokenizer(noend: Connection) -> None:
    """What a model with a padded vocabulary says beyond its tokenizer is no text, and no error."""
    make_model(noend, "padded", vocab=64, n_positions=8)
    noend.execute("UPDATE llm_bpe_vocab SET model = 'padded' WHERE model = 'names'")
    noend.execute("UPDATE llm_bpe_merges SET model = 'padded' WHERE model = 'names'")
    said = noend.execute(
        "SELECT token_id, token FROM llm_generate_stream('the', 60, model => 'padded', seed => 1, top_k => 0)"
    ).fetchall()
    assert any(id_ >= 27 for id_, _ in said)
    assert all(token == "" for id_, token in said if id_ >= 27)
    assert len(noend.execute("SELECT * FROM llm_beam_search('the', 3, 8, 'padded')").fetchall()) == 3
