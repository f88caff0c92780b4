"""SentencePiece's BPE with byte fallback: ids and texts equal those of tokenizers and transformers."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from sqlalchemy import text as sql
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.sentencepiece_files import as_tokenizer_json
from llm_sql.tokenizer import read_sentencepiece
from llm_sql.tokenizer_json import MARK

from ..reference import bpe as reference

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import (  # noqa: E402
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

EXAMPLES = int(os.environ.get("LLM_SQL_TEST_EXAMPLES", "300"))
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = [
    "Once upon a time, there was a little girl. It's what we've got: don't!",
    " a  b   c    d ",
    "  two in front, two behind  ",
    "日本語 한국어 ไทย हिन्दी 👩‍👩‍👧‍👦 \u0301\u0327 \u200b\u00a0\u3000",
    "<s>[INST] hi [/INST]</s> <s> <0x41> <|x|>  <|x|> a<|x|>b",
    f"{MARK}x {MARK}{MARK} y\n\n\tz\r\n",
    *(piece * 50 for piece in (" ", "\n", "a", "1", "a b", "é", "🙂")),
]
REPLACE = normalizers.Replace(" ", MARK)
FORMS: dict[str, tuple[Any, Any, bool]] = {
    "prepend": (normalizers.Sequence([normalizers.Prepend(MARK), REPLACE]), None, True),
    "never, as Gemma": (REPLACE, pre_tokenizers.Split(" ", "merged_with_previous"), False),
    "always": (None, pre_tokenizers.Metaspace(MARK, "always", split=False), True),
    "first": (None, pre_tokenizers.Metaspace(MARK, "first", split=False), True),
    "never": (None, pre_tokenizers.Metaspace(MARK, "never", split=False), False),
    "first and split": (None, pre_tokenizers.Metaspace(MARK, "first", split=True), True),
}


def train(form: str, bos: bool = True) -> Any:
    normalizer, pre_tokenizer, strip = FORMS[form]
    learnt = tokenizers.Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace(MARK, "always", split=True)
    learnt.train_from_iterator(
        TEXTS * 2, trainers.BpeTrainer(vocab_size=200, limit_alphabet=60, show_progress=False)
    )
    contents = json.loads(learnt.to_str())["model"]
    order = sorted(contents["vocab"], key=contents["vocab"].__getitem__)
    vocab = {token: i for i, token in enumerate(dict.fromkeys(["<unk>", "<s>", "</s>", *BYTES, *order]))}
    merges = [tuple(pair) for pair in contents["merges"]]
    theirs = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if normalizer is not None:
        theirs.normalizer = normalizer
    if pre_tokenizer is not None:
        theirs.pre_tokenizer = pre_tokenizer
    steps = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    theirs.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))
    theirs.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")]
    )
    theirs.add_tokens([AddedToken("<|x|>", normalized=False), AddedToken("[INST]", normalized=True)])
    if bos:
        theirs.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return theirs


def write(directory: Path, theirs: Any) -> Path:
    theirs.save(str(directory / "tokenizer.json"))
    given = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(given))
    return directory


def create(session: Session) -> LanguageModel:
    return LanguageModel.create(session, "m", n_layer=1, n_head=1, d_model=8, n_positions=64, vocab=1000)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_ids_of_tokenizers(session: Session, tmp_path: Path, form: str) -> None:
    theirs = train(form)
    model = create(session)
    model.load_tokenizer(write(tmp_path, theirs))
    ours = read_sentencepiece(session, "m")
    plain = tokenizers.Tokenizer.from_str(theirs.to_str())
    plain.encode_special_tokens = True

    def check(text: str) -> None:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, special=True).tolist() == ids, ascii(text)
        assert ours.encode(text).tolist() == plain.encode(text, add_special_tokens=False).ids, ascii(text)
        # Theirs decodes a normalized added token as what it reads like then, with a blank in front.
        ids = [id_ for id_ in ids if id_ != theirs.token_to_id("[INST]")]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), ascii(text)

    for text in (*TEXTS, *reference.HARD, *reference.random_strings(2, 1500)):
        check(text)
    pieces = strategies.sampled_from(
        [*" \n\tab1é日🙂", MARK, "<s>", "</s>", "<|x|>", "[INST]", "<0x41>", "time"]
    )
    texts = strategies.one_of(strategies.text(), strategies.lists(pieces, max_size=20).map("".join))
    settings(max_examples=EXAMPLES, deadline=None, database=None)(given(texts)(check))()
    byte = strategies.integers(3, 258)
    others = [id_ for token, id_ in theirs.get_vocab().items() if token != "[INST]"]
    known = strategies.one_of(byte, strategies.sampled_from(sorted(others)))

    def decodes(ids: list[int]) -> None:
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)

    settings(max_examples=EXAMPLES, deadline=None, database=None)(given(strategies.lists(known))(decodes))()
    for text in TEXTS:
        row = session.execute(
            sql(
                "SELECT llm_encode(:text, 'm'), llm_encode(:text, 'm', special => true),"
                " llm_encode_sequence(:text, 'm')"
            ),
            {"text": text},
        ).one()
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert row == (plain.encode(text, add_special_tokens=False).ids, ids, theirs.encode(text).ids)
        ids = [id_ for id_ in ids if id_ != theirs.token_to_id("[INST]")]
        assert model.decode(ids) == theirs.decode(ids, skip_special_tokens=False).replace("\0", "\ufffd")
    assert session.scalar(sql("SELECT llm_prefix_tokens('m')")) == [1]
    kind, chosen = session.execute(sql("SELECT kind, settings FROM llm_tokenizer WHERE model = 'm'")).one()
    assert (kind, chosen["prefix_space"]) == ("sentencepiece", form.split(",")[0].split(" ")[0])


def test_runs_between_special_tokens_go_on(session: Session, tmp_path: Path) -> None:
    """What chat templates need: text that special tokens stand in, encoded in parts."""
    theirs = train("first")
    create(session).load_tokenizer(write(tmp_path, theirs))
    parts = ["", " hi there", "\nyou", "x"]
    query = sql(
        "SELECT array_agg(to_jsonb(e.ids) ORDER BY e.number)"
        " FROM llm_encode_documents(CAST(:parts AS text[]), 'm', continued => true) e"
    )
    found = session.scalar(query, {"parts": parts})
    whole = [id_ for i, ids in enumerate(found) for id_ in ([*ids, 1] if i < len(parts) - 1 else ids)]
    assert whole == theirs.encode("<s>".join(parts), add_special_tokens=False).ids


def test_what_transformers_saves(session: Session, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    source = json.loads(train("first").to_str())["model"]
    tokenizer = transformers.LlamaTokenizer(
        vocab=source["vocab"], merges=[tuple(pair) for pair in source["merges"]], add_bos_token=True
    )
    tokenizer.save_pretrained(tmp_path)
    model = create(session)
    model.load_tokenizer(tmp_path)
    for text in TEXTS:
        found = session.scalar(sql("SELECT llm_encode_sequence(:text, 'm')"), {"text": text})
        assert found == tokenizer(text)["input_ids"]
        assert model.decode(found) == tokenizer.decode(found)


def test_a_tokenizer_model(session: Session, tmp_path: Path) -> None:
    """sentencepiece's own file, and what it makes of texts."""
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS), encoding="utf-8")

    def learn(**options: Any) -> bytes:
        given = {
            "input": str(tmp_path / "text.txt"),
            "model_prefix": str(tmp_path / "tokenizer"),
            "vocab_size": 400,
            "model_type": "bpe",
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "hard_vocab_limit": False,
            "user_defined_symbols": ["<|x|>"],
            "minloglevel": 2,
        }
        sentencepiece.SentencePieceTrainer.train(**(given | options))
        return (tmp_path / "tokenizer.model").read_bytes()

    contents = learn()
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "tokenizer.model").write_bytes(contents)
    model = create(session)
    model.load_tokenizer(tmp_path / "directory")
    for text in ("Once upon a time", *TEXTS, *reference.random_strings(5, 300)):
        # Its dummy prefix stands in front of a blank, too; a NUL is no text.
        if (
            text
            and text[0] not in (" ", MARK)
            and "\0" not in text
            and "<0x" not in text
            and "<s>" not in text
        ):
            found = session.scalar(sql("SELECT llm_encode_sequence(:text, 'm')"), {"text": text})
            if text.startswith("<|x|>"):
                continue
            assert found == [1, *theirs.encode(text)], ascii(text)
    for options, message in (
        ({"model_type": "unigram"}, "model_type = UNIGRAM"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"normalization_rule_name": "nfkc"}, "precompiled_charsmap"),
        ({"byte_fallback": False}, "lacks <0x00>"),
    ):
        learn(**options)
        with pytest.raises(LLMSQLError, match=message):
            model.load_tokenizer(tmp_path / "tokenizer.model")
    for cut in (0, 1, 7, len(contents) // 2, len(contents) - 1):
        (tmp_path / "directory" / "tokenizer.model").write_bytes(contents[:cut] + b"\xff" * 12)
        with pytest.raises(UsageError, match="is not understood"):
            model.load_tokenizer(tmp_path / "directory")


@given(strategies.binary(max_size=200))
@settings(max_examples=500, deadline=None, database=None)
def test_any_bytes_as_a_tokenizer_model(contents: bytes) -> None:
    with contextlib.suppress(LLMSQLError):
        as_tokenizer_json(Path("tokenizer.model"), contents, {})


def test_other_steps_are_refused_by_name(session: Session, tmp_path: Path) -> None:
    theirs = train("prepend")
    model = create(session)
    for part, value, message in (
        ("normalizer", normalizers.NFKC(), "normalizer = 'NFKC'"),
        ("pre_tokenizer", pre_tokenizers.Whitespace(), "Whitespace"),
        ("decoder", decoders.Metaspace(), "decoder = 'Metaspace'"),
    ):
        other = tokenizers.Tokenizer.from_str(theirs.to_str())
        setattr(other, part, value)
        with pytest.raises(LLMSQLError, match=message):
            model.load_tokenizer(write(tmp_path, other))
