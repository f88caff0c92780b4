"""WordPiece from a directory's files: tokenizer.json, vocab.txt, what stands beside them; what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from llm_sql import functions
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.tokenizer import read_bpe, read_wordpiece
from llm_sql.tokenizer_files import TokenizerFiles, load, read_directory, read_files

from ..reference import wordpiece as reference

VOCAB = reference.read_vocab()
CLS, SEP = VOCAB["[CLS]"], VOCAB["[SEP]"]
TEXT = "Model [MASK] tokens, naïve [CLS]!"
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {
        "[CLS]": {"id": "[CLS]", "ids": [CLS], "tokens": ["[CLS]"]},
        "[SEP]": {"id": "[SEP]", "ids": [SEP], "tokens": ["[SEP]"]},
    },
}
CONTENTS: dict[str, Any] = {
    "version": "1.0",
    "truncation": {"max_length": 128, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [
        {
            "id": VOCAB[token],
            "content": token,
            "special": True,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        }
        for token in reference.SPECIAL
    ],
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": TEMPLATE,
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": VOCAB,
    },
}


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    contents = copy.deepcopy(CONTENTS)
    inner: Any = contents
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return contents


def write(directory: Path, contents: Any, name: str = "tokenizer.json") -> None:
    (directory / name).write_text(json.dumps(contents), encoding="utf-8")


def read(directory: Path) -> TokenizerFiles:
    files = read_directory(directory)
    assert files is not None
    return files


def sequence(session: Session, files: TokenizerFiles, text: str = TEXT) -> Any:
    assert load(session, "m", files) == len(VOCAB)
    return session.scalar(select(functions.encode_sequence(text, "m")))


def expected(text: str = TEXT, **settings: Any) -> list[int]:
    return [CLS, *reference.ours(VOCAB, **settings).encode(text, special=True).tolist(), SEP]


def test_a_tokenizer_json(session: Session, tmp_path: Path) -> None:
    write(tmp_path, CONTENTS)
    assert sequence(session, read(tmp_path)) == expected()
    assert sequence(session, read_files(tmp_path / "tokenizer.json")) == expected()
    flags = {row["content"]: row["flags"] for row in read(tmp_path).added or []}
    assert flags["[PAD]"] == ["added", "pad", "special"]
    assert flags["[UNK]"] == ["added", "special", "unk"]
    write(tmp_path, changed(("normalizer", "lowercase"), False))
    assert sequence(session, read(tmp_path)) == expected(lowercase=False)
    write(tmp_path, changed(("model", "max_input_chars_per_word"), 3))
    assert sequence(session, read(tmp_path)) == expected(max_input_chars_per_word=3)
    write(tmp_path, changed(("normalizer",), None))
    plain = dict.fromkeys(reference.NORMALIZER, False)
    assert sequence(session, read(tmp_path), "İ\x01中 é") == expected("İ\x01中 é", **plain)


def test_settings_beside_it_as_transformers_writes_them(session: Session, tmp_path: Path) -> None:
    """BGE's and E5's form: the special tokens once more in added_tokens_decoder, limits, a generic class."""
    write(tmp_path, CONTENTS)
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    config = {
        "added_tokens_decoder": {
            str(VOCAB[token]): {"content": token, "special": True, **flags} for token in reference.SPECIAL
        },
        "clean_up_tokenization_spaces": True,
        "cls_token": "[CLS]",
        "do_basic_tokenize": True,
        "do_lower_case": True,
        "mask_token": {"content": "[MASK]", **flags},
        "model_max_length": 512,
        "never_split": None,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "unk_token": "[UNK]",
    }
    for class_ in ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"):
        write(tmp_path, {**config, "tokenizer_class": class_}, "tokenizer_config.json")
        write(tmp_path, {"cls_token": "[CLS]", "unk_token": {"content": "[UNK]"}}, "special_tokens_map.json")
        files = read(tmp_path)
        assert sequence(session, files) == expected()
        assert sorted(row["content"] for row in files.added or []) == sorted(reference.SPECIAL)


def test_steps_in_sequences_of_one_and_other_processors(session: Session, tmp_path: Path) -> None:
    wrapped = {"type": "Sequence", "normalizers": [CONTENTS["normalizer"]]}
    for path, value in (
        (("normalizer",), wrapped),
        (("pre_tokenizer",), {"type": "Sequence", "pretokenizers": [CONTENTS["pre_tokenizer"]]}),
        (("post_processor",), {"type": "Sequence", "processors": [TEMPLATE]}),
        (("post_processor",), {"type": "BertProcessing", "sep": ["[SEP]", SEP], "cls": ["[CLS]", CLS]}),
    ):
        write(tmp_path, changed(path, value))
        assert sequence(session, read(tmp_path)) == expected(), value
    write(tmp_path, changed(("post_processor",), None))
    assert sequence(session, read(tmp_path)) == expected()[1:-1]


def test_a_vocab_txt(session: Session, tmp_path: Path) -> None:
    shutil.copy(reference.VOCAB, tmp_path / "vocab.txt")
    assert sequence(session, read(tmp_path)) == expected()
    assert sequence(session, read_files(tmp_path / "vocab.txt")) == expected()
    for config, settings in (
        ({"do_lower_case": False}, {"lowercase": False}),
        ({"do_lower_case": False, "strip_accents": True}, {"lowercase": False, "strip_accents": True}),
        ({"tokenize_chinese_chars": False}, {"handle_chinese_chars": False}),
        ({"tokenizer_class": "BertTokenizer", "model_max_length": 512}, {}),
    ):
        write(tmp_path, config, "tokenizer_config.json")
        assert sequence(session, read(tmp_path), f"{TEXT}中国") == expected(f"{TEXT}中国", **settings)


def test_other_names_of_special_tokens(session: Session, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("<s>\n</s>\n<unk>\na\n[UNK]\n", encoding="utf-8")
    names = {"cls_token": "<s>", "sep_token": {"content": "</s>"}, "unk_token": "<unk>"}
    write(tmp_path, names, "special_tokens_map.json")
    files = read(tmp_path)
    load(session, "m", files)
    assert session.scalar(select(functions.encode_sequence("a b</s>", "m"))) == [0, 3, 2, 1, 1]
    write(tmp_path, {**names, "cls_token": "[CLS]"}, "special_tokens_map.json")
    with pytest.raises(UsageError, match=r"lacks the token '\[CLS\]' \(cls_token\)"):
        read(tmp_path)


def test_tokens_added_behind_the_vocabulary(session: Session, tmp_path: Path) -> None:
    token = {
        **CONTENTS["added_tokens"][0],
        "id": len(VOCAB),
        "content": "<Q>",
        "special": False,
        "normalized": True,
    }
    write(tmp_path, changed(("added_tokens",), [*CONTENTS["added_tokens"], token]))
    assert load(session, "m", read(tmp_path)) == len(VOCAB) + 1
    assert session.scalar(select(functions.encode("a<q>", "m"))) == [VOCAB["a"], len(VOCAB)]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "type"), "WordLevel", "model = 'WordLevel'"),
        (("model", "fuse_unk"), True, "fuse_unk = True"),
        (("model", "vocab"), {"a": 0}, r"lacks the token '\[UNK\]'"),
        (("model", "vocab"), [], "not understood"),
        (("model", "vocab"), {"[UNK]": "0"}, "not understood"),
        (("model", "max_input_chars_per_word"), 0, "max_input_chars_per_word = 0"),
        (("model", "continuing_subword_prefix"), None, "continuing_subword_prefix|prefix"),
        (("normalizer",), {"type": "NFKC"}, "normalizer = 'NFKC'"),
        (
            ("normalizer",),
            {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]},
            "normalizer = 'Sequence'",
        ),
        (("normalizer", "squeeze"), True, "squeeze = True"),
        (("normalizer", "lowercase"), None, "lowercase = None"),
        (("pre_tokenizer",), None, "pre_tokenizer = None"),
        (("pre_tokenizer",), {"type": "Whitespace"}, "pre_tokenizer = 'Whitespace'"),
        (("decoder",), None, "decoder = None"),
        (("decoder",), {"type": "ByteLevel"}, "decoder = 'ByteLevel'"),
        (("decoder", "prefix"), "@@", "decoder's prefix = '@@'"),
        (("post_processor",), {"type": "RobertaProcessing"}, "post_processor = 'RobertaProcessing'"),
        (("post_processor", "single", 0, "SpecialToken", "type_id"), 1, "type_id = 1"),
        (("post_processor", "single", 1, "Sequence", "id"), "B", "post_processor's piece"),
        (("post_processor", "single"), TEMPLATE["single"][:1], "post_processor's texts = 0"),
        (("post_processor", "special_tokens"), {}, "not understood"),
        (("post_processor", "special_tokens", "[CLS]", "ids"), [99999], "token id 99999"),
        (("post_processor",), 3, "not understood"),
        (("added_tokens",), [{"content": "a", "id": 0}], "two"),
        (("added_tokens",), [3], "not understood"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, path: tuple[str | int, ...], value: Any, message: str) -> None:
    write(tmp_path, changed(path, value))
    with pytest.raises(LLMSQLError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "MPNetTokenizer"}, "tokenizer_class = 'MPNetTokenizer'"),
        ({"split_special_tokens": True}, "split_special_tokens = True"),
        ({"never_split": ["a"]}, "never_split"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize = False"),
        ({"do_lower_case": False}, "lowercase = True, but tokenizer_config.json has do_lower_case = False"),
        ({"added_tokens_decoder": {"0": {"content": "[CLS]"}}}, "two"),
    ],
)
def test_what_is_refused_beside_it(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    write(tmp_path, CONTENTS)
    write(tmp_path, config, "tokenizer_config.json")
    with pytest.raises(LLMSQLError, match=message):
        read(tmp_path)


def test_what_is_no_vocab_txt(tmp_path: Path) -> None:
    for contents, message in (
        (b"", "is empty"),
        (b"a\n", r"lacks the token '\[UNK\]' \(unk_token\)"),
        (b"[UNK]\na\na\n", "line 3: a duplicate token"),
        (b"[UNK]\n\xff\n", "line 2: a token is not UTF-8"),
    ):
        (tmp_path / "vocab.txt").write_bytes(contents)
        with pytest.raises(UsageError, match=message):
            read(tmp_path)
    shutil.copy(reference.VOCAB, tmp_path / "vocab.txt")
    write(tmp_path, {"do_lower_case": "yes"}, "tokenizer_config.json")
    with pytest.raises(UsageError, match="lowercase = 'yes'"):
        read(tmp_path)
    write(tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast"}, "tokenizer_config.json")
    with pytest.raises(LLMSQLError, match="tokenizer_class"):
        read(tmp_path)


def test_the_clients_own(session: Session, tmp_path: Path) -> None:
    """read_wordpiece encodes as the database does; read_bpe says that it is none."""
    write(tmp_path, changed(("normalizer", "lowercase"), False))
    load(session, "m", read(tmp_path))
    tokenizer = read_wordpiece(session, "m")
    for text in (*reference.HARD, *reference.random_strings(5, 200)):
        if text and "\0" not in text:
            ids = session.scalar(select(functions.encode(text, "m")))
            assert tokenizer.encode(text).tolist() == ids
            assert tokenizer.decode(ids) == session.scalar(select(functions.decode(ids, "m")))
    with pytest.raises(LLMSQLError, match="no BPE tokenizer"):
        read_bpe(session, "m")
    with pytest.raises(LLMSQLError, match="no WordPiece tokenizer"):
        read_wordpiece(session, "nobody")
