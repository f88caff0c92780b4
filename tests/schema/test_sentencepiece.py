"""SentencePiece's BPE and the settings of byte-level BPE in the database: rows, errors, what carries them."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from ..reference import bpe as reference
from ..support.small_models import make_model
from ..support.tensors import value

Connection = psycopg.Connection[Any]

MARK = "\u2581"
TOKENS = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{byte:02X}>" for byte in range(256)),
    MARK,
    "h",
    "i",
    f"{MARK}hi",
    "hi",
]
VOCAB = {token: i for i, token in enumerate(TOKENS)}
MERGES = [["h", "i"], [MARK, "hi"]]
LOAD = "SELECT llm_load_sentencepiece(%s, %s, %s, %s, %s)"


def load(conn: Connection, model: str = "m", added: Any = None, **settings: Any) -> int:
    given = (json.dumps(VOCAB), json.dumps(MERGES), json.dumps(settings), added and json.dumps(added))
    return int(value(conn, LOAD, (model, *given)))


def encode(conn: Connection, text: str, model: str = "m", special: bool = False) -> list[str]:
    return [TOKENS[i] for i in value(conn, "SELECT llm_encode(%s, %s, %s)", (text, model, special))]


def test_blanks_characters_and_bytes(conn: Connection) -> None:
    assert load(conn, prefix=[1]) == len(TOKENS)
    assert value(conn, "SELECT llm_tokenizer_kind('m')") == "sentencepiece"
    assert encode(conn, "hi hi") == [f"{MARK}hi"] * 2
    assert encode(conn, " hié") == [MARK, f"{MARK}hi", "<0xC3>", "<0xA9>"]
    assert encode(conn, "<s>", special=True) == ["<s>"]
    assert "<s>" not in encode(conn, "<s>")
    assert encode(conn, "") == []
    row = conn.execute(
        "SELECT llm_encode_sequence('hi', 'm'), llm_prefix_tokens('m'), llm_begin_token('m'),"
        " llm_end_tokens('m')"
    ).fetchone()
    assert row == ([1, VOCAB[f"{MARK}hi"]], [1], 1, [2])
    for text in ("hi", " two  blanks ", "日本 é 🙂", "a\nb\tc"):
        ids = value(conn, "SELECT llm_encode(%s, 'm')", (text,))
        assert value(conn, "SELECT llm_decode(%s, 'm')", (ids,)) == text
        assert value(conn, "SELECT convert_from(llm_token_bytes(%s, 'm'), 'UTF8')", (ids,)) == f" {text}"
    broken = [VOCAB["<0xC3>"], VOCAB["h"], VOCAB["<0xC3>"], VOCAB["<0xC3>"]]
    assert value(conn, "SELECT llm_decode(%s, 'm')", (broken,)) == "\ufffdh\ufffd\ufffd"
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="token 5000"):
        conn.execute("SELECT llm_decode('{1,5000}', 'm')")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("never", ["hi", "<s>", "hi"]),
        ("prepend", [f"{MARK}hi", "<s>", f"{MARK}hi"]),
        ("always", [f"{MARK}hi", "<s>", f"{MARK}hi"]),
        ("first", [f"{MARK}hi", "<s>", "hi"]),
    ],
)
def test_where_a_blank_is_put(conn: Connection, where: str, expected: list[str]) -> None:
    load(conn, prefix_space=where)
    assert encode(conn, "hi<s>hi", special=True) == expected
    assert encode(conn, " hi") == ([MARK] if where == "prepend" else []) + [f"{MARK}hi"]


def test_a_prompt_begins_with_what_stands_before_a_text(conn: Connection) -> None:
    make_model(conn, "m", vocab=len(TOKENS), n_positions=16)
    load(conn, prefix=[1])
    given = value(conn, "SELECT llm_encode_sequence('hi', 'm')")
    logits = value(conn, "SELECT llm_logits(%s, 'm')", (given,))[-1]
    first = value(conn, "SELECT token_id FROM llm_generate_stream('hi', 1, 0, model => 'm')")
    assert first == int(logits.argmax())


def test_what_carries_it(conn: Connection) -> None:
    make_model(conn, "m", vocab=len(TOKENS))
    load(conn, prefix_space="first", prefix=[1], strip=False)
    expected = value(conn, "SELECT llm_encode_sequence('hi<s> hié', 'm')")
    saved = value(conn, "SELECT llm_checkpoint_save('m')")
    conn.execute("SELECT llm_copy_model('m', 'copied')")
    conn.execute("SELECT llm_rename_model('copied', 'renamed')")
    load(conn, prefix_space="never")
    assert value(conn, "SELECT llm_encode_sequence('hi<s> hié', 'm')") != expected
    conn.execute("SELECT llm_checkpoint_load('m', %s)", (saved,))
    for model in ("m", "renamed"):
        assert value(conn, "SELECT llm_encode_sequence('hi<s> hié', %s)", (model,)) == expected
    conn.execute("SELECT llm_drop_model('renamed')")
    assert value(conn, "SELECT count(*) FROM llm_tokenizer WHERE model = 'renamed'") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "[]", "{}"), "vocab must be a JSON object"),
        ("[]", "vocab must be a JSON object"),
        (('{"a": -1}', "[]", "{}"), 'vocab has "a": -1'),
        (('{"": 1}', "[]", "{}"), "which is no token"),
        (('{"a": 1, "b": 1}', "[]", "{}"), "two tokens with the id 1"),
        (('{"a": 1}', "[]", "{}"), 'lacks the token "<0x00>"'),
        ((json.dumps(VOCAB), None, "{}"), "merges must be a JSON array"),
        ((json.dumps(VOCAB), '[["a"]]', "{}"), "no pair of tokens"),
        ((json.dumps(VOCAB), "[[1, 2]]", "{}"), "no pair of tokens"),
        ((json.dumps(VOCAB), '[["h", "x"]]', "{}"), "names or makes a token that is not in its vocabulary"),
        ((json.dumps(VOCAB), "[]", '{"x": 1}'), 'has no setting "x"'),
        ((json.dumps(VOCAB), "[]", '{"prefix_space": "no"}'), "prefix_space must be never, prepend"),
        ((json.dumps(VOCAB), "[]", '{"split": 1}'), "split must be true or false"),
        ((json.dumps(VOCAB), "[]", '{"prefix": [-1]}'), "prefix must be an array of token ids"),
        ((json.dumps(VOCAB), "[]", '{"prefix": [9999]}'), "has token 9999, which the vocabulary lacks"),
        ((json.dumps(VOCAB), "[]", "[]"), "must be a JSON object"),
    ],
)
def test_what_is_no_such_tokenizer(conn: Connection, arguments: Any, message: str) -> None:
    given = (arguments, arguments, "{}") if isinstance(arguments, str) else arguments
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        conn.execute(LOAD, ("m", *given, None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"pre_tokenizer": "gpt5"}', "pre_tokenizer must be gpt2, smollm"),
        ('{"normalizer": "nfkc"}', 'normalizer must be "nfc" or null'),
        ('{"ignore_merges": null}', "ignore_merges must be true or false"),
        ('{"suffix": ["a"]}', "suffix must be an array of token ids"),
        ('{"prefix": [4000]}', "has token 4000, which the vocabulary lacks"),
        ('{"template": {}}', 'BPE has no setting "template"'),
        ('"nfc"', "must be a JSON object"),
    ],
)
def test_settings_of_byte_level_bpe(conn: Connection, settings: str, message: str) -> None:
    files = (
        (reference.GOLDEN / "bpe_vocab.json").read_bytes(),
        (reference.GOLDEN / "bpe_merges.txt").read_bytes(),
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        conn.execute("SELECT llm_load_bpe('m', %s, %s, settings => %s)", (*files, settings))


def test_bytes_that_a_vocabulary_lacks(conn: Connection) -> None:
    vocab = json.dumps({"a": 0, "b": 1, "ab": 2}).encode()
    conn.execute("SELECT llm_load_bpe('m', %s, %s)", (vocab, b"a b\n"))
    with pytest.raises(psycopg.errors.CharacterNotInRepertoire, match="no token for the byte 0x63"):
        conn.execute("SELECT llm_encode('acb', 'm')")
    conn.execute(
        "SELECT llm_load_bpe('m', %s, %s, settings => '{\"drop_unknown\": true}')", (vocab, b"a b\n")
    )
    assert value(conn, "SELECT llm_encode('acb', 'm')") == [2]


def test_handles_take_no_other_options(conn: Connection) -> None:
    for call, message in (
        ("pg_llm_bpe_create('m', '', 'x')", 'no pre-tokenizer "x"'),
        ("pg_llm_bpe_create('m', '', 'gpt2', 8)", "8 is not a set of options"),
        ("pg_llm_bpe_create('m', '', 'gpt2', -1)", "-1 is not a set of options"),
        ("pg_llm_sentencepiece_create('m', '', 'x', 0, '{}', '{}')", "prefix_space must be never"),
        ("pg_llm_sentencepiece_create('m', '', 'first', 4, '{}', '{}')", "4 is not a set of options"),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
            conn.execute(f"SELECT {call}")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="at most 1024 tokens before and behind"):
        conn.execute("SELECT pg_llm_bpe_create('m', '', 'gpt2', 0, array_fill(1, ARRAY[2000]), '{}')")
