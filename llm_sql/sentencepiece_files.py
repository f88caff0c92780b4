"""SentencePiece's BPE from tokenizer.json or tokenizer.model, as what llm_load_sentencepiece takes.

A tokenizer.json with byte_fallback has it in one of the forms that Llama, Mistral and Gemma are published in;
a tokenizer.model is read as transformers reads it, which makes the merges of the scores. Other steps, models
that are not BPE, and normalization are refused by name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_sql import tokenizer_json
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.tokenizer_json import MARK, PIECES, PREPEND, STRIP, TO_MARK
from llm_sql.tokenizer_steps import refuse, steps, template

MODEL = "tokenizer.model"
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# A longer piece of a word is no token; it would take long to find what it is merged of.
_LONGEST = 1024


def is_sentencepiece(contents: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is SentencePiece's BPE rather than byte-level BPE."""
    model = contents.get("model")
    return isinstance(model, dict) and model.get("type", "BPE") == "BPE" and bool(model.get("byte_fallback"))


def from_tokenizer_json(path: Path, contents: Mapping[str, Any]) -> dict[str, Any]:
    """The settings. LLMSQLError for what is not supported."""
    model = contents["model"]
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(name):
            refuse(path, name, model[name])
    missing = [token for token in _BYTES if token not in model["vocab"]]
    if missing:
        refuse(path, "byte_fallback", True, f"with a vocabulary that lacks {missing[0]}")
    blank, split = _blank(
        path,
        steps(contents.get("normalizer"), "normalizers"),
        steps(contents.get("pre_tokenizer"), "pretokenizers"),
    )
    decoder = steps(contents.get("decoder"), "decoders")
    if tuple(decoder[:3]) != PIECES or decoder[3:] not in ([], [STRIP]):
        refuse(path, "decoder", [step["type"] for step in decoder])
    prefix, suffix = template(path, contents.get("post_processor"))
    return {
        "prefix_space": blank,
        "split": split,
        "strip": len(decoder) > 3,
        "prefix": prefix,
        "suffix": suffix,
    }


def _blank(path: Path, normalizer: list[dict[str, Any]], cuts: list[dict[str, Any]]) -> tuple[str, bool]:
    """Where a blank is put in front, and whether a blank begins a piece."""
    # Gemma's, which finds no blank any more.
    idle = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if normalizer in ([TO_MARK], [PREPEND, TO_MARK]) and cuts in ([], [idle]):
        return ("prepend" if len(normalizer) > 1 else "never"), False
    if normalizer or [step["type"] for step in cuts] != ["Metaspace"]:
        kinds = [step["type"] for step in normalizer]
        refuse(path, "normalizer", kinds, f"and pre_tokenizer = {[step['type'] for step in cuts]}")
    [metaspace] = cuts
    if metaspace.get("replacement") != MARK:
        refuse(path, "replacement", metaspace.get("replacement"))
    before = "always" if metaspace.get("add_prefix_space", True) else "never"
    scheme = metaspace.get("prepend_scheme", before)
    if scheme not in ("always", "first", "never"):
        refuse(path, "prepend_scheme", scheme)
    return scheme, bool(metaspace.get("split", True))


def merges_of(vocab: Mapping[str, int], scores: Mapping[str, float]) -> list[list[str]]:
    """The merges that scores stand for, as transformers makes them: what a token is merged of, best first."""
    found: list[tuple[str, str, float]] = []
    for token, score in scores.items():
        halves = [
            (token[:i], token[i:], score)
            for i in range(1, min(len(token), _LONGEST))
            if token[:i] in vocab and token[i:] in vocab
        ]
        found.extend(sorted(halves, key=lambda pair: (vocab[pair[0]], vocab[pair[1]])))
    found.sort(key=lambda pair: (pair[2], len(pair[0]), len(pair[1])), reverse=True)
    return [[left, right] for left, right, _ in found]


# ---- tokenizer.model: sentencepiece_model.proto ----


@dataclass
class Model:
    """What a tokenizer.model holds: tokens with score and kind, which of them have a role, the settings."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    kind: int = 1
    roles: dict[str, int] = field(default_factory=lambda: {"unk": 0, "bos": 1, "eos": 2, "pad": -1})
    dummy_prefix: bool = True
    trims: bool = True
    charsmap: bool = False


NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_BPE = 2
_ROLES = {40: "unk", 41: "bos", 42: "eos", 43: "pad"}


def read_model(path: Path, contents: bytes) -> Model:
    """A tokenizer.model. UsageError when it is not understood."""
    model = Model()
    try:
        for number, value in _fields(contents):
            if number == 1 and isinstance(value, bytes):
                model.pieces.append(_piece(value))
            elif number == 2 and isinstance(value, bytes):
                for inner, given in _fields(value):
                    if inner == 3 and isinstance(given, int):
                        model.kind = given
                    elif inner in _ROLES and isinstance(given, int):
                        model.roles[_ROLES[inner]] = given if given < 2**31 else -1
            elif number == 3 and isinstance(value, bytes):
                for inner, given in _fields(value):
                    model.charsmap |= inner == 2 and bool(given)
                    model.dummy_prefix = bool(given) if inner == 3 else model.dummy_prefix
                    model.trims = bool(given) if inner == 4 else model.trims
    except (ValueError, struct.error) as error:
        raise UsageError(f"{path} is not understood: {error}") from error
    if not model.pieces:
        raise UsageError(f"{path} is not understood: it has no tokens")
    return model


def _piece(contents: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(contents):
        if number == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    if not text or len(text.encode()) > _LONGEST or "\0" in text:
        raise ValueError(f"a token that cannot be one: {text[:40]!r}")
    return text, score, kind


def _fields(contents: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Number and value of every field of a message."""
    at = 0
    while at < len(contents):
        key, at = _varint(contents, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(contents, at)
            yield key >> 3, value
        elif wire == 5:
            yield key >> 3, struct.unpack_from("<f", contents, at)[0]
            at += 4
        elif wire == 1:
            yield key >> 3, struct.unpack_from("<d", contents, at)[0]
            at += 8
        elif wire == 2:
            length, at = _varint(contents, at)
            if length > len(contents) - at:
                raise ValueError("it ends within a field")
            yield key >> 3, contents[at : at + length]
            at += length
        else:
            raise ValueError(f"a field of the unknown kind {wire}")


def _varint(contents: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(contents):
            raise ValueError("it ends within a number")
        value |= (contents[at] & 0x7F) << shift
        at += 1
        if contents[at - 1] < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def as_tokenizer_json(path: Path, contents: bytes, given: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer.model as the tokenizer.json that transformers makes of it with tokenizer_config.json."""
    model = read_model(path, contents)
    if model.kind != _BPE:
        name = {1: "UNIGRAM", 3: "WORD", 4: "CHAR"}.get(model.kind, model.kind)
        raise LLMSQLError(
            f"{path} has model_type = {name}, which is not supported",
            hint="Of SentencePiece, BPE can be loaded.",
        )
    if model.charsmap or model.trims:
        raise LLMSQLError(
            f"{path} has {'precompiled_charsmap' if model.charsmap else 'remove_extra_whitespaces'},"
            " which is not supported",
            hint="Save the tokenizer with transformers, and import the tokenizer.json that this writes.",
        )
    vocab = {text: id_ for id_, (text, _, _) in enumerate(model.pieces)}
    if len(vocab) != len(model.pieces):
        raise UsageError(f"{path} is not understood: a token occurs twice")
    scores = {text: score for text, score, kind in model.pieces if kind in (NORMAL, USER)}
    blank = model.dummy_prefix and given.get("add_prefix_space") is not False
    scheme = ("always" if given.get("legacy") else "first") if blank else "never"
    before, behind = (
        [id_] if asked and 0 <= (id_ := model.roles[role]) < len(model.pieces) else []
        for role, asked in (
            ("bos", given.get("add_bos_token", True)),
            ("eos", given.get("add_eos_token", False)),
        )
    )
    texts = {id_: text for text, id_ in vocab.items()}
    return tokenizer_json.whole(
        tokenizer_json.sentencepiece(
            {"prefix_space": scheme, "split": False, "strip": blank},
            vocab,
            merges_of(vocab, scores),
            texts.get(model.roles["unk"]),
        ),
        [
            tokenizer_json.added(id_, text, () if kind == USER else ("special",))
            for id_, (text, _, kind) in enumerate(model.pieces)
            if kind in (UNKNOWN, CONTROL, USER)
        ],
        tokenizer_json.template(before, behind, texts),
    )
