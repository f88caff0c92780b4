"""WordPiece in the database: loading, encoding, decoding, what follows a model, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..conftest import Connect
from ..reference import wordpiece as reference
from ..support.checkpoints import load as load_checkpoint
from ..support.checkpoints import save
from ..support.small_models import make_model
from ..support.tensors import value

Connection = psycopg.Connection[Any]
VOCAB = reference.read_vocab()
CONTENTS = reference.VOCAB.read_bytes()
LOAD = "SELECT llm_load_wordpiece(%s, %s, %s::jsonb, %s::jsonb)"


def load(conn: Connection, model: str = "bert", contents: bytes = CONTENTS, **settings: object) -> int:
    size = value(conn, LOAD, (model, contents, json.dumps(settings), None))
    assert isinstance(size, int)
    return size


def encode(conn: Connection, text: str, model: str = "bert") -> Any:
    """Special tokens recognised."""
    return value(conn, "SELECT llm_encode(%s, %s, special => true)", (text, model))


@pytest.mark.parametrize("number", range(len(reference.cases())))
def test_what_tokenizers_made_of_difficult_strings(conn: Connection, number: int) -> None:
    given = reference.cases()[number]
    assert load(conn, **given["settings"]) == len(VOCAB)
    assert value(conn, "SELECT llm_tokenizer_kind('bert')") == "wordpiece"
    cls, sep = VOCAB["[CLS]"], VOCAB["[SEP]"]
    for text, ids, plain, decoded in given["cases"]:
        if "\0" in text:
            continue
        row = conn.execute(
            "SELECT llm_encode(%(text)s, 'bert', special => true), llm_encode(%(text)s, 'bert'),"
            " llm_encode_sequence(%(text)s, 'bert'), llm_encode_sequence(%(text)s, 'bert', 7),"
            " llm_decode(%(ids)s::int[], 'bert'), (llm_encode_sequences(ARRAY[%(text)s], 'bert', 7)).length",
            {"text": text, "ids": ids},
        ).fetchone()
        whole, cut = [cls, *ids, sep], [cls, *ids[:5], sep]
        assert row == (ids, plain, whole, cut, decoded.replace("\0", "\ufffd"), len(whole)), text


def test_a_vocabulary_as_json(conn: Connection) -> None:
    load(conn, lowercase=False)
    text = "Model tokens [MASK], naïve"
    expected = encode(conn, text)
    assert value(conn, LOAD, ("other", json.dumps(VOCAB), '{"lowercase": false}', None)) == len(VOCAB)
    assert encode(conn, text, "other") == expected
    rows = "SELECT array_agg((token_id, token, bytes, flags)::text ORDER BY token_id) FROM llm_bpe_vocab"
    assert value(conn, f"{rows} WHERE model = 'bert'") == value(conn, f"{rows} WHERE model = 'other'")


def test_rows(conn: Connection) -> None:
    load(conn, contents=b"[PAD]\n?\n[CLS]\n[SEP]\nab\n##c\n##", unk_token="?")
    rows = conn.execute(
        "SELECT token, bytes, flags FROM llm_bpe_vocab WHERE model = 'bert' ORDER BY token_id"
    ).fetchall()
    special = ["added", "special"]
    assert [(token, bytes(given), sorted(flags)) for token, given, flags in rows] == [
        ("[PAD]", b" [PAD]", sorted([*special, "base", "pad"])),
        ("?", b" ?", sorted([*special, "base", "unk"])),
        ("[CLS]", b" [CLS]", sorted([*special, "base"])),
        ("[SEP]", b" [SEP]", sorted([*special, "base"])),
        ("ab", b" ab", []),
        ("##c", b"c", []),
        ("##", b"", []),
    ]
    settings = value(conn, "SELECT settings FROM llm_tokenizer WHERE model = 'bert'")
    assert settings["template"] == {"prefix": [2], "suffix": [3]}
    assert settings["max_input_chars_per_word"] == 100
    assert value(conn, "SELECT llm_token_bytes('{4,5}', 'bert')") == b" abc"
    assert value(conn, "SELECT llm_decode('{4,5,4}', 'bert')") == "abc ab"
    assert encode(conn, "abcc ab? x") == [4, 5, 5, 4, 1, 1]


def test_templates(conn: Connection) -> None:
    load(conn, contents=b"[UNK]\na\nb")
    assert value(conn, "SELECT llm_encode_sequence('a b', 'bert')") == [1, 2]
    assert value(conn, "SELECT llm_encode_sequence('a b', 'bert', 1)") == [1]
    load(conn, contents=b"[UNK]\na\nb\n[CLS]\n[SEP]", template={"prefix": [2, 2], "suffix": []})
    assert value(conn, "SELECT llm_encode_sequence('a b', 'bert', 3)") == [2, 2, 1]
    assert value(conn, "SELECT llm_encode_sequence('', 'bert')") == [2, 2]
    assert value(conn, "SELECT llm_encode_sequence(NULL, 'bert')") is None
    for most in (1, 0, -1):
        with pytest.raises(errors.InvalidParameterValue, match="max_tokens must be"):
            conn.execute("SELECT llm_encode_sequence('a', 'bert', %s)", (most,))
    rows = conn.execute(
        "SELECT * FROM llm_encode_sequences(ARRAY['a', NULL, '', 'b b'], 'bert', 3)"
    ).fetchall()
    assert rows == [(1, [2, 2, 1], 3), (3, [2, 2], 2), (4, [2, 2, 2], 4)]


def test_sequences_of_other_tokenizers(conn: Connection) -> None:
    value(conn, "SELECT llm_build_char_tokenizer('chars', 'SELECT ''abc''')")
    assert value(conn, "SELECT llm_encode_sequence('abcab', 'chars', 3)") == [0, 1, 2]
    value(conn, "SELECT llm_load_bpe('bpe', '{\"a\": 0, \"b\": 1, \"<|x|>\": 2}', '')")
    assert value(conn, "SELECT llm_encode_sequence('a<|x|>b', 'bpe')") == [0, 2, 1]
    with pytest.raises(errors.UndefinedObject, match="has no tokenizer"):
        conn.execute("SELECT llm_encode_sequence('a', 'nobody')")


def test_added_tokens(conn: Connection) -> None:
    added = [
        {"id": len(VOCAB), "content": "<É>", "flags": ["added", "normalized"]},
        {"id": VOCAB["[CLS]"], "content": "[CLS]", "flags": ["added", "special", "lstrip"]},
    ]
    assert value(conn, LOAD, ("bert", CONTENTS, None, json.dumps(added))) == len(VOCAB) + 1
    assert encode(conn, "a<e>b") == [VOCAB["a"], len(VOCAB), VOCAB["b"]]
    assert value(conn, "SELECT llm_encode('a [CLS]', 'bert')") != encode(conn, "a [CLS]")
    value(
        conn,
        "SELECT llm_add_tokens('bert', %s)",
        (json.dumps([{**added[0], "id": VOCAB["##s"], "content": "##s"}]),),
    )
    assert encode(conn, "a##s") == [VOCAB["a"], VOCAB["##s"]]
    vanishing = [{"id": len(VOCAB) + 1, "content": "\u0301\u0301", "flags": ["added", "normalized"]}]
    value(conn, "SELECT llm_add_tokens('bert', %s)", (json.dumps(vanishing),))
    with pytest.raises(
        errors.InvalidParameterValue, match="the normalizer leaves nothing of the added token"
    ):
        encode(conn, "a")


@pytest.mark.parametrize(
    ("contents", "settings", "message"),
    [
        ("", {}, "the vocabulary is empty"),
        ("\n\n", {}, "the vocabulary is empty"),
        ("a\nb", {}, "lacks the token of unknown words"),
        ("[UNK]\na\na", {}, "line 3: a duplicate token"),
        ("[UNK]\n\na", {}, "line 2: a line without a token"),
        ('{"[UNK]": 0, "a": 0}', {}, "line 1: a duplicate id"),
        ('{"[UNK]": 0, "a" 1}', {}, "line 1: expected :"),
        ("[UNK]", {"lower": True}, 'WordPiece has no setting "lower"'),
        ("[UNK]", {"lowercase": "yes"}, 'lowercase must be true or false, got "yes"'),
        ("[UNK]", {"strip_accents": 1}, "strip_accents must be true, false or null, got 1"),
        ("[UNK]", {"lowercase": None}, "lowercase must be true or false, got null"),
        ("[UNK]", {"unk_token": ""}, 'unk_token must be a token, got ""'),
        ("[UNK]", {"unk_token": "x" * 1025}, "unk_token must be a token"),
        ("[UNK]", {"continuing_subword_prefix": 2}, "continuing_subword_prefix must be a text, got 2"),
        ("[UNK]", {"max_input_chars_per_word": 0}, "max_input_chars_per_word must be a whole number from 1"),
        ("[UNK]", {"max_input_chars_per_word": 1.5}, "max_input_chars_per_word must be a whole number"),
        ("[UNK]", {"max_input_chars_per_word": 10**12}, "max_input_chars_per_word must be a whole number"),
        ("[UNK]", {"template": []}, "template must be an object"),
        ("[UNK]", {"template": {"prefix": 1}}, "template must be an object"),
        ("[UNK]", {"template": {"prefix": ["a"]}}, "template must be an object"),
        ("[UNK]", {"template": {"suffix": [-1]}}, "template must be an object"),
        ("[UNK]", {"template": {"infix": []}}, "template must be an object"),
        ("[UNK]", {"template": {"prefix": [1]}}, "the template .* has token 1, which the vocabulary lacks"),
        ("[UNK]\n" + "x" * 1025, {}, "line 2: a token is longer than 1024 bytes"),
    ],
)  # fmt: skip
def test_what_is_refused(conn: Connection, contents: str, settings: dict[str, object], message: str) -> None:
    load(conn, contents=b"[UNK]\na")
    with pytest.raises(errors.InvalidParameterValue, match=message):
        conn.execute(LOAD, ("bert", contents, json.dumps(settings), None))
    assert encode(conn, "a") == [1]


def test_nulls(conn: Connection) -> None:
    for arguments in (
        "NULL, 'a'",
        "'', 'a'",
        "'bert', NULL::text",
        "'bert', NULL::bytea",
        "'bert', 'a', '[]'",
    ):
        with pytest.raises(errors.InvalidParameterValue):
            conn.execute(f"SELECT llm_load_wordpiece({arguments})")
    with pytest.raises(errors.InvalidParameterValue, match="line 2: a token is not UTF-8"):
        conn.execute("SELECT llm_load_wordpiece('bert', %s)", (b"[UNK]\n\xff",))


def test_settings_that_were_written_by_hand(conn: Connection) -> None:
    load(conn)
    assert encode(conn, "Model") == encode(conn, "model")
    conn.execute("""UPDATE llm_tokenizer SET settings = settings || '{"lowercase": false}'""")
    assert encode(conn, "Model") != encode(conn, "model")
    conn.execute("UPDATE llm_tokenizer SET settings = '{}'")
    assert value(conn, "SELECT llm_encode_sequence('model', 'bert')") == encode(conn, "model")
    conn.execute("""UPDATE llm_tokenizer SET settings = '{"template": 1}'""")
    with pytest.raises(errors.InvalidParameterValue, match="template must be"):
        encode(conn, "model")
    for statement in (
        "UPDATE llm_tokenizer SET settings = '[]'",
        "UPDATE llm_tokenizer SET kind = 'unigram'",
        "INSERT INTO llm_tokenizer (model, kind) VALUES ('', 'bpe')",
    ):
        with pytest.raises(errors.CheckViolation):
            conn.execute(statement)
    conn.execute("DELETE FROM llm_bpe_vocab WHERE model = 'bert'")
    with pytest.raises(errors.UndefinedObject, match="has no tokenizer"):
        encode(conn, "model")


def test_another_kind_takes_its_place(conn: Connection) -> None:
    bpe = "SELECT llm_load_bpe('bert', '{\"a\": 0, \"b\": 1, \"ab\": 2}', 'a b')"
    for statement, kind in (
        (bpe, "bpe"),
        ("SELECT llm_build_char_tokenizer('bert', 'SELECT ''ab''')", "char"),
        ("SELECT llm_train_bpe('bert', 'SELECT ''ab ab''', 257)", "bpe"),
    ):
        load(conn)
        conn.execute(statement)
        assert value(conn, "SELECT llm_tokenizer_kind('bert')") == kind
        assert value(conn, "SELECT llm_decode(llm_encode('ab', 'bert'), 'bert')") == "ab"
    conn.execute(bpe)
    load(conn)
    assert value(conn, "SELECT count(*) FROM llm_bpe_merges WHERE model = 'bert'") == 0


def test_it_follows_its_model(conn: Connection) -> None:
    """Copied, renamed, dropped, and back from a checkpoint with its settings."""
    load(conn, "bert", lowercase=False)
    make_model(conn, "bert", n_layer=1, n_head=1, d_model=4, n_positions=8, vocab=len(VOCAB))
    expected = value(conn, "SELECT llm_encode_sequence('Model tokens', 'bert')")
    sequence = "SELECT llm_encode_sequence('Model tokens', %s)"
    value(conn, "SELECT llm_copy_model('bert', 'copy')")
    value(conn, "SELECT llm_rename_model('copy', 'renamed')")
    assert value(conn, sequence, ("renamed",)) == expected
    id_ = save(conn, "renamed", "")
    load(conn, "renamed", lowercase=True)
    assert value(conn, sequence, ("renamed",)) != expected
    load_checkpoint(conn, id_, "renamed")
    assert value(conn, sequence, ("renamed",)) == expected
    value(conn, "SELECT llm_load_bpe('renamed', '{\"a\": 0}', '')")
    load_checkpoint(conn, id_, "renamed")
    assert value(conn, sequence, ("renamed",)) == expected
    value(conn, "SELECT llm_drop_model('renamed')")
    assert conn.execute("SELECT model FROM llm_tokenizer").fetchall() == [("bert",)]
    heap = "SELECT heap_bytes FROM llm_tokenizer_cost('bert')"
    assert value(conn, heap) > 10000
    conn.execute("INSERT INTO llm_tokenizer (model, kind) VALUES ('taken', 'bpe')")
    with pytest.raises(errors.DuplicateObject):
        conn.execute("SELECT llm_copy_model('bert', 'taken')")


def test_other_sessions_and_roles(conn: Connection, connect: Connect) -> None:
    load(conn)
    reader, nobody = connect(), connect()
    reader.execute("SET ROLE llm_reader")
    assert encode(reader, "Model") == encode(conn, "model")
    with reader.transaction():
        first = encode(reader, "Model")
        conn.execute("""UPDATE llm_tokenizer SET settings = settings || '{"lowercase": false}'""")
        assert encode(reader, "Model") != first
    with pytest.raises(errors.InsufficientPrivilege):
        load(reader, "mine")
    trainer = connect()
    trainer.execute("SET ROLE llm_trainer")
    assert load(trainer, "mine") == len(VOCAB)
    conn.execute("DROP ROLE IF EXISTS wordpiece_nobody")
    conn.execute("CREATE ROLE wordpiece_nobody")
    try:
        nobody.execute("SET ROLE wordpiece_nobody")
        with pytest.raises(errors.InsufficientPrivilege):
            encode(nobody, "model")
        nobody.execute("RESET ROLE")
    finally:
        conn.execute("DROP ROLE wordpiece_nobody")


def test_handles(conn: Connection) -> None:
    """A tokenizer that is being fed is not used, and takes nothing that is not its own."""
    create = "SELECT pg_llm_wordpiece_create('m', '\\x00', {}, '?', '##', {}, true, {}, '{{}}')"
    for options, longest, before in ((16, 5, "'{}'"), (-1, 5, "'{}'"), (0, 0, "'{}'"), (0, -1, "'{}'")):
        with pytest.raises(errors.InvalidParameterValue):
            conn.execute(create.format(options, longest, before))
    with pytest.raises(errors.ProgramLimitExceeded):
        conn.execute(create.format(0, 5, "array_fill(0, '{1025}')"))
    handle = value(conn, create.format(0, 5, "'{}'"))
    conn.execute("SELECT pg_llm_bpe_put_token(%s, 0, '?', 0)", (handle,))
    for call in ("encode(%s, 'a', true)", "decode(%s, '{0}')"):
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="is not in memory"):
            conn.execute(f"SELECT pg_llm_bpe_{call}", (handle,))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="is not in memory"):
        conn.execute("SELECT pg_llm_encode_sequence(%s, 'a', 5)", (handle,))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="has no merges"):
        conn.execute("SELECT pg_llm_bpe_put_merge(%s, 0, 'a', 'b')", (handle,))
    for arguments in (
        "1, '?', 0",
        "1, '', 0",
        "-1, 'a', 0",
        "1, repeat('a', 1025)::bytea, 0",
        "1, 'a', 999",
    ):
        with pytest.raises(errors.InvalidParameterValue):
            conn.execute(f"SELECT pg_llm_bpe_put_token(%s, {arguments})", (handle,))
    conn.execute("SELECT pg_llm_bpe_seal(%s)", (handle,))
    assert value(conn, "SELECT pg_llm_bpe_encode(%s, 'a', true)", (handle,)) == [0]
    with pytest.raises(errors.NumericValueOutOfRange, match="token 1 is not in the tokenizer"):
        conn.execute("SELECT pg_llm_bpe_decode(%s, '{0,1}')", (handle,))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="is not being fed"):
        conn.execute("SELECT pg_llm_bpe_put_token(%s, 1, 'a', 0)", (handle,))
    assert value(conn, "SELECT llm_release()") is not None


def test_it_can_be_canceled(conn: Connection) -> None:
    load(conn, max_input_chars_per_word=999999999)
    text = "chr(12334) || chr(119141)"
    conn.execute("SET statement_timeout = '300ms'")
    with pytest.raises(errors.QueryCanceled):
        conn.execute(f"SELECT llm_encode(repeat({text}, 30000000), 'bert')")
    conn.execute("RESET statement_timeout")
    assert encode(conn, "model") == [VOCAB["model"]]
