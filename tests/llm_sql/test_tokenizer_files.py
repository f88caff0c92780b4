"""Tokenizers of directories in the hub's layout: which files count, and that they give that tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.tokenizer import read_bpe
from llm_sql.tokenizer_files import read_directory

from ..reference import bpe as reference
from ..reference import layouts

VOCAB = reference.GOLDEN / "bpe_vocab.json"
MERGES = reference.GOLDEN / "bpe_merges.txt"
TEXT = "The cat's  naïve 走了 42!\n<|endoftext|> end"


def tokenizer_json(*, pairs: bool = False) -> dict[str, Any]:
    """The golden tokenizer as Hugging Face's tokenizers write it; pairs: merges as newer versions do."""
    vocab = json.loads(VOCAB.read_text(encoding="utf-8"))
    lines = MERGES.read_text(encoding="utf-8").splitlines()[1:]
    end = vocab.pop(reference.END)
    return {
        "version": "1.0",
        "added_tokens": [{"id": end, "content": reference.END, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": [m.split(" ") for m in lines] if pairs else lines},
    }


def write_json(folder: Path, contents: Any) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(contents), encoding="utf-8")


@pytest.fixture
def model(session: Session) -> LanguageModel:
    return LanguageModel.create(session, "m", n_layer=1, n_head=1, d_model=8, n_positions=8, vocab=512)


def weights_into(model: LanguageModel, folder: Path) -> int:
    return model.export_weights(folder / "model.safetensors")


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_pairs_of_files(model: LanguageModel, tmp_path: Path, names: tuple[str, str]) -> None:
    for source, name in zip((VOCAB, MERGES), names, strict=True):
        shutil.copy(source, tmp_path / name)
    count = weights_into(model, tmp_path)
    assert model.import_weights(tmp_path) == count
    expected = reference.tiktoken_encoding(VOCAB).encode(TEXT, allowed_special="all")
    assert model.encode(TEXT, special=True) == expected
    assert model.decode(expected) == TEXT


@pytest.mark.parametrize("pairs", [False, True])
def test_a_tokenizer_json_alone(model: LanguageModel, tmp_path: Path, pairs: bool) -> None:
    write_json(tmp_path, tokenizer_json(pairs=pairs))
    weights_into(model, tmp_path)
    model.import_weights(tmp_path)
    for text in (TEXT, *reference.random_strings(9, 200)):
        if text:
            expected = reference.tiktoken_encoding(VOCAB).encode(text, allowed_special="all")
            assert model.encode(text, special=True) == expected


def test_it_is_left_alone_when_told_so(model: LanguageModel, tmp_path: Path) -> None:
    write_json(tmp_path, tokenizer_json())
    weights_into(model, tmp_path)
    model.import_weights(tmp_path, tokenizer=False)
    with pytest.raises(Exception, match="has no tokenizer"):
        model.encode("a")


def test_load_tokenizer_from_files_or_a_directory(model: LanguageModel, tmp_path: Path) -> None:
    assert model.load_tokenizer(VOCAB, MERGES) == 512
    ids = model.encode(TEXT)
    write_json(tmp_path, tokenizer_json())
    assert model.load_tokenizer(tmp_path) == 512
    assert model.encode(TEXT) == ids
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no vocab\.json"):
        model.load_tokenizer(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot read"):
        model.load_tokenizer(tmp_path / "none.json")


def test_a_directory_without_one(model: LanguageModel, tmp_path: Path) -> None:
    model.load_tokenizer(VOCAB, MERGES)
    assert read_directory(tmp_path) is None
    count = weights_into(model, tmp_path)
    assert model.import_weights(tmp_path) == count
    assert len(model.encode(TEXT)) > 1


def test_half_a_pair(tmp_path: Path) -> None:
    shutil.copy(VOCAB, tmp_path / "vocab.json")
    with pytest.raises(UsageError, match=r"has vocab\.json, but no merges\.txt"):
        read_directory(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "type"), "Unigram", "Unigram"),
        (("pre_tokenizer", "type"), "Metaspace", "Metaspace"),
        (("pre_tokenizer", "add_prefix_space"), True, "add_prefix_space"),
        (("pre_tokenizer", "use_regex"), False, "use_regex"),
        (("normalizer",), {"type": "NFKC"}, "normalizer"),
        (("normalizer",), {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}, "normalizer"),
        (("decoder",), {"type": "Metaspace"}, "decoder"),
        (
            ("post_processor",),
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {}}]},
            "post_processor",
        ),
        (
            ("post_processor",),
            {"type": "Sequence", "processors": [{"type": "BertProcessing"}]},
            "post_processor = 'BertProcessing'",
        ),
        (("model", "dropout"), 0.1, "dropout"),
        (("model", "continuing_subword_prefix"), "##", "continuing_subword_prefix"),
        (("model", "byte_fallback"), True, "byte_fallback"),
        (("model", "end_of_word_suffix"), "</w>", "end_of_word_suffix"),
        (("model", "merges"), ["a b c"], "not understood"),
        (("model", "merges"), [["a b", "c"]], "pairs of byte-level tokens"),
        (("model", "vocab"), None, "not understood"),
        (("added_tokens",), [{"content": "a", "id": 7}], "two ids"),
        (("added_tokens",), [3], "not understood"),
    ],
)
def test_other_kinds_are_refused(tmp_path: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    contents = tokenizer_json()
    inner = contents
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    write_json(tmp_path, contents)
    with pytest.raises(LLMSQLError, match=message):
        read_directory(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "3", '{"model": 3}', "[" * 100_000, "\x00", '{"a": 1, "a": 2}']
)
def test_what_is_no_tokenizer_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UsageError, match="not understood"):
        read_directory(tmp_path)


def test_ids_beyond_the_vocabulary(session: Session, tmp_path: Path) -> None:
    small = LanguageModel.create(session, "s", n_layer=1, n_head=1, d_model=8, n_positions=8, vocab=500)
    with pytest.raises(LLMSQLError, match=r"token id 511.*vocab of 500"):
        small.load_tokenizer(VOCAB, MERGES)


# ---- every layout of a directory, against what transformers makes of it ----

GOLDEN = json.loads((reference.GOLDEN / "tokenizer_layouts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_layout_gives_the_tokenizer_of_transformers(session: Session, tmp_path: Path, name: str) -> None:
    size = layouts.LAYOUTS[name]["config.json"]["vocab_size"]
    model = LanguageModel.create(session, "l", n_layer=1, n_head=1, d_model=8, n_positions=32, vocab=size)
    model.load_tokenizer(layouts.write(tmp_path, layouts.LAYOUTS[name]))
    expected = GOLDEN[name]
    own = read_bpe(session, "l")
    for text, ids, ordinary in zip(layouts.TEXTS, expected["ids"], expected["ordinary"], strict=True):
        assert model.encode(text, special=True) == ids
        assert session.scalar(sql("SELECT llm_encode(:t, 'l')"), {"t": text}) == ordinary
        assert (
            session.scalar(
                sql("SELECT ids FROM llm_encode_documents(ARRAY[CAST(:t AS text)], 'l')"), {"t": text}
            )
            == ordinary
        )
        assert own.encode(text, special=True).tolist() == ids
        assert own.encode(text).tolist() == ordinary
        # Some tokens take white space with them.
        assert model.decode(ids).split() == text.split() or "any flags" in name
    ends, begins = session.execute(sql("SELECT llm_end_tokens('l'), llm_begin_token('l')")).one()
    if expected["eos"] is not None and expected["eos"] < size:
        assert ends == [expected["eos"]]
        # Where nothing begins a text, what ends one stands before it, too.
        assert begins == (expected["eos"] if expected["bos"] is None else expected["bos"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens.json": {"<|x|>": 514}}, "id 514, its place would be 512"),
        (
            {"tokenizer_config.json": layouts.decoder(layouts.token("<x>", 600))},
            "id 600, its place would be 512",
        ),
        (
            {"tokenizer.json": layouts.tokenizer_json(layouts.token("<x>", 513))},
            "id 513, its place would be 512",
        ),
        ({"added_tokens.json": {"<p>": 512, "<q>": 512}}, "two tokens with the id 512: '<p>' .* '<q>'"),
        ({"added_tokens.json": {"the": 512}, "vocab.json": layouts.VOCAB | {"the": 512}}, None),
        ({"added_tokens.json": {"e": 512}}, "two ids for the token 'e'"),
        ({"added_tokens.json": {"zz": 5}}, "two tokens with the id 5"),
        (
            {
                "tokenizer.json": layouts.tokenizer_json(layouts.token("<p>", 512)),
                "added_tokens.json": {"<q>": 512},
            },
            "'<p>' in tokenizer.json, '<q>' in added_tokens.json",
        ),
        (
            {
                "tokenizer.json": layouts.tokenizer_json(layouts.token("<p>", 512)),
                "tokenizer_config.json": layouts.decoder(),
            },
            "added_tokens_decoder lacks",
        ),
        (
            {"added_tokens.json": {"<q>": 512}, "tokenizer_config.json": layouts.decoder()},
            "added_tokens_decoder lacks",
        ),
        ({"added_tokens.json": {"<q>": "512"}}, "'512' is not a token id"),
        ({"added_tokens.json": {"<q>": True}}, "True is not a token id"),
        ({"added_tokens.json": {"": 512}}, "cannot occur in any text"),
        ({"added_tokens.json": {"a\0": 512}}, "cannot occur in any text"),
        ({"added_tokens.json": {"\ud800": 512}}, "cannot occur in any text"),
        ({"added_tokens.json": ["q"]}, "does not contain a JSON object"),
        ({"tokenizer_config.json": {"added_tokens_decoder": ["q"]}}, "is not an object"),
        ({"tokenizer_config.json": {"eos_token": 5}}, "5 is not a token"),
        (
            {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}},
            "tokenizer_class = 'T5Tokenizer'",
        ),
        ({"tokenizer_config.json": {"add_prefix_space": True}}, "add_prefix_space"),
        ({"tokenizer_config.json": {"add_bos_token": "no"}}, "add_bos_token = 'no'"),
        ({"tokenizer_config.json": {"split_special_tokens": True}}, "split_special_tokens"),
        (
            {"config.json": {"vocab_size": 520, "eos_token_id": 519}},
            "eos_token_id 519, which the tokenizer lacks",
        ),
        ({"config.json": {"vocab_size": 520, "eos_token_id": "end"}}, "'end' is not a token id"),
        ({"generation_config.json": {"eos_token_id": [511, -1]}}, "-1 is not a token id"),
    ],
)
def test_directories_that_contradict_themselves(
    session: Session, tmp_path: Path, files: dict[str, Any], message: str | None
) -> None:
    model = LanguageModel.create(session, "l", n_layer=1, n_head=1, d_model=8, n_positions=32, vocab=520)
    layouts.write(tmp_path, layouts.LAYOUTS["a pair"] | files)
    if message is None:
        assert model.load_tokenizer(tmp_path) == 513
        return
    with pytest.raises(LLMSQLError, match=message):
        model.load_tokenizer(tmp_path)
    assert session.scalar(sql("SELECT count(*) FROM llm_bpe_vocab WHERE model = 'l'")) == 0


@pytest.mark.parametrize(
    ("config", "generation", "ends", "begins"),
    [
        ({}, None, [511], 511),
        ({"eos_token_id": 512}, None, [512], 511),
        ({"eos_token_id": 512}, {"eos_token_id": [513, 511]}, [511, 513], 511),
        ({"eos_token_id": [512, 513]}, {}, [512, 513], 511),
        ({"eos_token_id": 50256, "bos_token_id": 50256}, None, [511], 511),
        ({"eos_token_id": 512, "bos_token_id": 513}, None, [512], 513),
        ({"bos_token_id": 64}, {"eos_token_id": 13}, [13], 64),
        ({"eos_token_id": None}, None, [511], 511),
    ],
)
def test_what_ends_a_text_is_what_the_configuration_says(
    session: Session,
    tmp_path: Path,
    config: dict[str, Any],
    generation: dict[str, Any] | None,
    ends: list[int],
    begins: int,
) -> None:
    layout = layouts.LAYOUTS["a pair"] | {"added_tokens.json": {"<|bos|>": 512, "<|im_end|>": 513}}
    layout |= {"config.json": {"model_type": "gpt2", "vocab_size": 520, **config}}
    layout |= {} if generation is None else {"generation_config.json": generation}
    model = LanguageModel.create(session, "l", n_layer=1, n_head=1, d_model=8, n_positions=8, vocab=520)
    model.load_tokenizer(layouts.write(tmp_path, layout))
    found = session.execute(sql("SELECT llm_end_tokens('l'), llm_end_token('l'), llm_begin_token('l')")).one()
    assert found == (ends, ends[0], begins)
    # A model that always says the last of them stops there at once, whichever way it is asked.
    session.execute(sql("UPDATE llm_param SET data = pg_llm_full(shape(data), 0.0) WHERE model = 'l'"))
    for last in ends:
        session.execute(
            sql(
                "UPDATE llm_param SET data = CASE name WHEN 'ln_f.bias' THEN pg_llm_full(shape(data), 1.0)"
                " ELSE pg_llm_concat(pg_llm_concat(pg_llm_full(ARRAY[:before, 8], 0.0),"
                " pg_llm_full(ARRAY[1, 8], 1.0), 0), pg_llm_full(ARRAY[519 - :before, 8], 0.0), 0) END"
                " WHERE model = 'l' AND name IN ('ln_f.bias', 'wte.weight')"
            ),
            {"before": last},
        )
        assert model.generate("a", temperature=0.0, max_tokens=5) == ""
        assert [event.token_id for event in model.stream("", temperature=0.0, max_tokens=5)] == [last]
        assert model.beam_search("a", beam_width=2, max_tokens=4)[0].token_ids == [last]
    session.execute(sql("SELECT llm_fill_dataset('l', 'VALUES (''the'')', validation => 0)"))
    tokens, target = session.execute(sql("SELECT tokens, target FROM llm_dataset WHERE model = 'l'")).one()
    assert (tokens[0], target[-1]) == (begins, ends[0])


def test_a_checkpoint_and_a_copy_keep_what_tokens_are(session: Session, tmp_path: Path) -> None:
    model = LanguageModel.create(session, "l", n_layer=1, n_head=1, d_model=8, n_positions=8, vocab=520)
    model.load_tokenizer(layouts.write(tmp_path, layouts.LAYOUTS["added_tokens_decoder of any flags"]))
    rows = sql("SELECT token_id, token, bytes, flags FROM llm_bpe_vocab WHERE model = 'l' ORDER BY token_id")
    before = session.execute(rows).all()
    assert any("lstrip" in (row.flags or ()) for row in before)
    saved = model.save_checkpoint()
    model.load_tokenizer(VOCAB, MERGES)
    assert session.execute(rows).all() != before
    model.load_checkpoint(saved)
    assert session.execute(rows).all() == before
    session.execute(sql("SELECT llm_copy_model('l', 'l2')"))
    assert session.execute(sql(rows.text.replace("'l'", "'l2'"))).all() == before
