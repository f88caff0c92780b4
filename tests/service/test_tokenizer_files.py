"""Tokenizers of directories in the hub's layout: which files count, and that they give that tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.tokenizer_files import read_directory

from ..reference import bpe as reference

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
    write_json(tmp_path, "not looked at: the pair comes first")
    count = weights_into(model, tmp_path)
    assert model.import_weights(tmp_path) == count
    expected = reference.tiktoken_encoding(VOCAB).encode(TEXT, allowed_special="all")
    assert model.encode(TEXT) == expected
    assert model.decode(expected) == TEXT


@pytest.mark.parametrize("pairs", [False, True])
def test_a_tokenizer_json_alone(model: LanguageModel, tmp_path: Path, pairs: bool) -> None:
    write_json(tmp_path, tokenizer_json(pairs=pairs))
    weights_into(model, tmp_path)
    model.import_weights(tmp_path)
    for text in (TEXT, *reference.random_strings(9, 200)):
        if text:
            expected = reference.tiktoken_encoding(VOCAB).encode(text, allowed_special="all")
            assert model.encode(text) == expected


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
    with pytest.raises(UsageError, match=r"no merges\.txt beside vocab\.json"):
        read_directory(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "type"), "Unigram", "Unigram"),
        (("pre_tokenizer", "type"), "Metaspace", "Metaspace"),
        (("pre_tokenizer", "add_prefix_space"), True, "add_prefix_space"),
        (("pre_tokenizer", "use_regex"), False, "use_regex"),
        (("normalizer",), {"type": "NFKC"}, "normalizer"),
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
