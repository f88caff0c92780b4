"""The tokenizer in a GGUF file's metadata, as tokenizer.json and its neighbours would have it.

So it is read as theirs is, and what is not supported is refused where theirs is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_sql import bpe_files, sentencepiece_files, tokenizer_json
from llm_sql.errors import LLMSQLError
from llm_sql.gguf_config import Metadata
from llm_sql.gguf_header import Header
from llm_sql.tokenizer_json import Json

# What llama.cpp calls the kinds of tokens.
_UNKNOWN, _CONTROL, _USER, _UNUSED = 2, 3, 4, 5
# Files of before tokenizer.ggml.pre: the architectures with a tokenizer of their own.
_OLD = {"gpt2": "gpt-2", "gptneox": "olmo"}
# Control tokens that end an answer, whatever else the file names as the end: llama.cpp stops at them, too.
_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|end|>", "</s>")
# A longer piece of a word is no token; it would take long to find what it is merged of.
_LONGEST_PIECE = 512
_KEY = "tokenizer.ggml."


def contents_of(header: Header) -> tuple[Json, dict[str, Json]] | None:
    """tokenizer.json, and the files beside it by their names; None if the file has no tokenizer."""
    metadata = Metadata(header.path, header.metadata, _KEY)
    if "model" not in metadata or metadata.text("model") in ("none", "no_vocab"):
        return None
    model = metadata.text("model")
    if model not in ("gpt2", "llama"):
        metadata.refuse("model", "Byte-level BPE (gpt2) and SentencePiece BPE (llama) can be loaded.")
    tokens = metadata.texts("tokens")
    types = _types(metadata, len(tokens))
    if model == "gpt2":
        parts, begins = _byte_level(header, metadata, tokens, types)
    else:
        parts, begins = _pieces(metadata, tokens, types), True
    added = [
        tokenizer_json.added(i, tokens[i], () if types[i] == _USER else ("special",))
        for i in np.nonzero(_is_added(types))[0].tolist()
    ]
    contents = tokenizer_json.whole(parts, added, _processor(metadata, tokens, begins))
    named = _named(metadata, tokens)
    given: Json = {"tokenizer_class": "PreTrainedTokenizerFast"}
    given |= {f"{role}_token": tokens[id_] for role, id_ in named.items()}
    template = Metadata(header.path, header.metadata, "tokenizer.")
    if "chat_template" in template:
        given["chat_template"] = template.text("chat_template")
        if "\0" in given["chat_template"]:
            template.refuse("chat_template", "No text of the database has a NUL character.")
    generation: Json = {"eos_token_id": _ends(metadata, tokens, types, named)}
    if "bos" in named:
        generation["bos_token_id"] = named["bos"]
    return contents, {
        "tokenizer_config.json": given,
        "generation_config.json": generation,
        "config.json": {"vocab_size": max(len(tokens), _rows(header))},
    }


def _rows(header: Header) -> int:
    entry = header.tensors.get("token_embd.weight")
    return entry.shape[0] if entry else 0


def _types(metadata: Metadata, n: int) -> Any:
    types = metadata.numbers("token_type", "iu")
    if types is None:
        return np.ones(n, np.int64)
    if len(types) != n:
        raise LLMSQLError(
            f"{metadata.path} is refused: it has {n} tokens, but {len(types)} numbers in {_KEY}token_type"
        )
    return types.astype(np.int64)


def _is_added(types: Any) -> Any:
    return (types == _CONTROL) | (types == _USER) | (types == _UNKNOWN)


def _vocabulary(metadata: Metadata, tokens: list[str], types: Any) -> dict[str, int]:
    """What tokenizer.json's model holds: all up to the last token that is not added; places that are unused
    between them are kept.
    """
    [normal] = np.nonzero(~_is_added(types) & (types != _UNUSED))
    if not len(normal):
        raise LLMSQLError(f"{metadata.path} is refused: none of its tokens is a piece of text")
    vocab = {token: id_ for id_, token in enumerate(tokens[: int(normal[-1]) + 1])}
    if len(vocab) <= normal[-1]:
        id_ = next(i for i, token in enumerate(tokens) if vocab.get(token, i) != i)
        raise LLMSQLError(
            f"{metadata.path} is refused: token {tokens[id_]!r} occurs twice, one with the id {id_}"
        )
    return vocab


def _byte_level(header: Header, metadata: Metadata, tokens: list[str], types: Any) -> tuple[Json, bool]:
    """The tokenizer, and whether it begins texts with BOS where the file does not say."""
    pre = metadata.text("pre", "default")
    pre = _OLD.get(str(header.metadata["general.architecture"]), pre) if pre == "default" else pre
    try:
        settings = bpe_files.ggml_settings(pre)
    except LLMSQLError as error:
        metadata.refuse("pre", f"{error.hint} Or --no-tokenizer: the weights alone.")
    parts = tokenizer_json.byte_level(
        settings, _vocabulary(metadata, tokens, types), metadata.texts("merges")
    )
    # Of these llama.cpp lets Llama 3's alone begin with BOS where the file does not say.
    return parts, settings["pre_tokenizer"] == "llama3"


def _pieces(metadata: Metadata, tokens: list[str], types: Any) -> Json:
    """SentencePiece's BPE, as transformers converts it."""
    for key in ("remove_extra_whitespaces", "precompiled_charsmap"):
        value = metadata.values.get(_KEY + key)
        if value is not None and np.any(np.asarray(value) != 0):
            metadata.refuse(key, "Of SentencePiece, tokenizers like Llama's can be loaded.")
    vocab = _vocabulary(metadata, tokens, types)
    unknown = [tokens[i] for i in np.nonzero(types == _UNKNOWN)[0]] or ["<unk>"]
    prefix = metadata.flag("add_space_prefix", True)
    settings = {"prefix_space": "prepend" if prefix else "never", "split": False, "strip": prefix}
    merges = metadata.texts("merges") if "merges" in metadata else _merges(metadata, vocab, tokens, types)
    return tokenizer_json.sentencepiece(settings, vocab, merges, unknown[0])


def _merges(metadata: Metadata, vocab: dict[str, int], tokens: list[str], types: Any) -> list[list[str]]:
    """The merges that SentencePiece's scores stand for: of two pieces to a third, the best third first."""
    scores = metadata.numbers("scores", "f")
    if scores is None or len(scores) != len(tokens) or not np.isfinite(scores).all():
        raise LLMSQLError(f"{metadata.path} is refused: {_KEY}scores is no list of a number for each token")
    normal = np.nonzero(types == 1)[0].tolist()
    for id_ in normal:
        if len(tokens[id_]) > _LONGEST_PIECE:
            raise LLMSQLError(f"{metadata.path} is refused: token {id_} has {len(tokens[id_])} characters")
    return sentencepiece_files.merges_of(vocab, {tokens[id_]: float(scores[id_]) for id_ in normal})


def _id(metadata: Metadata, key: str, n: int) -> int | None:
    if key not in metadata:
        return None
    id_ = metadata.count(key, least=0)
    if id_ >= n:
        raise LLMSQLError(f"{metadata.path} is refused: {_KEY}{key} is {id_}, but there are {n} tokens")
    return id_


def _named(metadata: Metadata, tokens: list[str]) -> dict[str, int]:
    keys = {
        "bos": "bos_token_id",
        "eos": "eos_token_id",
        "unk": "unknown_token_id",
        "pad": "padding_token_id",
    }
    found = {role: _id(metadata, key, len(tokens)) for role, key in keys.items()}
    return {role: id_ for role, id_ in found.items() if id_ is not None}


def _ends(metadata: Metadata, tokens: list[str], types: Any, named: dict[str, int]) -> list[int]:
    """The tokens at which an answer ends, the end of a document first."""
    more = [_id(metadata, key, len(tokens)) for key in ("eot_token_id", "eom_token_id")]
    known = [i for i in np.nonzero(types == _CONTROL)[0].tolist() if tokens[i] in _ENDS]
    found = [named.get("eos"), *more, *known]
    return list(dict.fromkeys(id_ for id_ in found if id_ is not None))


def _processor(metadata: Metadata, tokens: list[str], begins: bool) -> Json | None:
    """What puts BOS before a text, and EOS after it, where the file asks for that."""
    first, last = metadata.flag("add_bos_token", begins), metadata.flag("add_eos_token", False)
    before, behind = (
        [] if id_ is None else [id_]
        for id_ in (
            _id(metadata, "bos_token_id", len(tokens)) if first else None,
            _id(metadata, "eos_token_id", len(tokens)) if last else None,
        )
    )
    return tokenizer_json.template(before, behind, dict(enumerate(tokens)))
