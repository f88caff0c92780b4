"""The tokenizer files of a directory in the hub's layout, as what llm_load_bpe or llm_load_wordpiece takes.

A tokenizer.json comes first, else vocab.json beside merges.txt or their older names encoder.json and
vocab.bpe, else tokenizer.model, else vocab.txt; the files beside them tell added tokens and which tokens
begin and end a text (added_tokens.py). Byte-level BPE (bpe_files.py), SentencePiece's BPE
(sentencepiece_files.py) and BERT's WordPiece (wordpiece_files.py) are taken; what would be computed otherwise
is refused by its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from llm_sql import (
    added_tokens,
    bpe_files,
    functions,
    sentencepiece_files,
    tokenizer_steps,
    wordpiece_files,
)
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.kernels import bpe_alphabet, parse_bpe_vocab
from llm_sql.keywords import not_none

PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
ALONE = "tokenizer.json"
BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
)
"""What tells more of a tokenizer than its vocabulary and merges."""
CHAT_TEMPLATE = "chat_template.jinja"
"""Beside them; newer than the key chat_template of tokenizer_config.json, which it comes before."""

_END = "<|endoftext|>"
# transformers' classes of tokenizers that take all from tokenizer.json, and the named tokens they begin with.
_GENERIC_CLASSES: dict[str, dict[str, str]] = {
    "PreTrainedTokenizer": {},
    "TokenizersBackend": {},
    "Qwen2Tokenizer": {"unk_token": _END, "eos_token": _END, "pad_token": _END},
    "GPTNeoXTokenizer": {"unk_token": _END, "bos_token": _END, "eos_token": _END},
    "LlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "GemmaTokenizer": {
        "unk_token": "<unk>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
    },
}

_BEYOND = text(
    "SELECT max(v.token_id), c.vocab FROM public.llm_model_config c"
    " INNER JOIN public.llm_bpe_vocab v ON v.model = c.model WHERE c.model = :model"
    " GROUP BY c.vocab HAVING max(v.token_id) >= c.vocab"
)


@dataclass(frozen=True)
class TokenizerFiles:
    """Contents in the forms of vocab.json and merges.txt, and the names of the files they come from.

    Of SentencePiece the merges are a JSON array of pairs, as in tokenizer.json.

    `merges` is None for a vocabulary that brings them with it (.tiktoken). `added` is what llm_add_tokens
    takes; None leaves it to the names of the tokens. `settings` are what the kind's llm_load_... takes; None:
    BPE as GPT-2's. `chat_template` is what llm_set_chat_template takes.
    """

    vocab: bytes
    merges: bytes | None
    names: tuple[str, ...]
    added: list[dict[str, Any]] | None = None
    settings: dict[str, Any] | None = None
    kind: Literal["bpe", "sentencepiece", "wordpiece"] = "bpe"
    chat_template: str | None = None


_LOADERS: dict[str, Any] = {
    "bpe": functions.load_bpe,
    "sentencepiece": functions.load_sentencepiece,
    "wordpiece": functions.load_wordpiece,
}


def read_file(path: Path) -> bytes:
    """The file's bytes; UsageError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def read_directory(directory: Path) -> TokenizerFiles | None:
    """The directory's tokenizer, None when it holds no file of one.

    UsageError for files that cannot be read or are half of a pair; LLMSQLError for a tokenizer of another
    kind, and for files that contradict each other.
    """
    there = {entry.name for entry in directory.iterdir()}
    beside = {name: _read_object(directory / name) for name in BESIDE if name in there}
    if CHAT_TEMPLATE in there:
        beside.setdefault("tokenizer_config.json", {})["chat_template"] = _read_text(
            directory / CHAT_TEMPLATE
        )
    if ALONE in there:
        return _from_tokenizer_json(directory / ALONE, beside)
    for names in PAIRS:
        if there.issuperset(names):
            return _from_pair(directory, names, beside)
    for names in PAIRS:
        if not there.isdisjoint(names):
            [missing] = set(names) - there
            raise UsageError(f"{directory} has {', '.join(set(names) & there)}, but no {missing}")
    if sentencepiece_files.MODEL in there:
        return _from_model(directory / sentencepiece_files.MODEL, beside)
    if wordpiece_files.VOCABULARY in there:
        return _from_vocab_txt(directory / wordpiece_files.VOCABULARY, beside)
    return None


def read_files(vocab: Path, merges: Path | None = None) -> TokenizerFiles:
    """A tokenizer from a directory, a tokenizer.json, a .tiktoken file, vocab.txt, or vocab.json and merges.

    A vocab.txt alone is BERT's in lower case: what makes it another stands beside it in its directory.
    """
    if merges is None and vocab.is_dir():
        files = read_directory(vocab)
        if files is None:
            raise UsageError(f"{vocab} has no vocab.json and merges.txt, no vocab.txt, and no tokenizer.json")
        return files
    if merges is None and vocab.name == ALONE:
        return _from_tokenizer_json(vocab, {})
    if merges is None and vocab.suffix == ".model":
        return _from_model(vocab, {})
    if merges is None and vocab.suffix == ".txt":
        return _from_vocab_txt(vocab, {})
    return TokenizerFiles(read_file(vocab), None if merges is None else read_file(merges), (vocab.name,))


def load(session: Session | Connection, model: str, files: TokenizerFiles) -> int:
    """Replace the model's tokenizer by these files' contents; returns the number of tokens.

    LLMSQLError when it has ids that the model's vocabulary does not reach.
    """
    more = not_none({"merges": files.merges, "added": files.added, "settings": files.settings})
    vocab: Any = files.vocab
    if files.kind == "sentencepiece":
        vocab, more["merges"] = json.loads(files.vocab), json.loads(files.merges or b"[]")
    load_ = _LOADERS[files.kind]
    size: int = session.execute(select(load_(model, vocab, **more))).scalar_one()
    if files.chat_template is not None:
        session.execute(select(functions.set_chat_template(model, files.chat_template)))
    beyond = session.execute(_BEYOND, {"model": model}).one_or_none()
    if beyond is not None:
        raise LLMSQLError(
            f'the tokenizer has the token id {beyond[0]}, model "{model}" has a vocab of {beyond[1]}',
            hint="Load the tokenizer that the weights were trained with.",
        )
    return size


def _read_text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error


def _chat_template(directory: Path, beside: dict[str, dict[str, Any]]) -> str | None:
    """The chat template; of several, which are for tools and the like, the one called default."""
    found = beside.get("tokenizer_config.json", {}).get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    if found is not None and (not isinstance(found, str) or "\0" in found):
        raise UsageError(f"{directory / 'tokenizer_config.json'} is not understood: chat_template is no text")
    return found or None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        contents = json.loads(read_file(path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not understood: {error}") from error
    if not isinstance(contents, dict):
        raise UsageError(f"{path} is not understood: it does not contain a JSON object")
    return contents


def _from_pair(directory: Path, names: tuple[str, str], beside: dict[str, dict[str, Any]]) -> TokenizerFiles:
    vocab, merges = (read_file(directory / name) for name in names)
    try:
        base = {token: id_ for id_, token in parse_bpe_vocab(vocab)}
    except ValueError as error:
        raise UsageError(f"{directory / names[0]} is not understood: {error}") from error
    _check_class(directory, beside, alone=False)
    tokenizer = added_tokens.Tokenizer(base, files=beside)
    added = added_tokens.resolve(tokenizer)
    around = bpe_files.configured_around(
        directory / "tokenizer_config.json",
        beside.get("tokenizer_config.json", {}),
        added_tokens.named_ids(tokenizer, added),
    )
    template = _chat_template(directory, beside)
    return TokenizerFiles(
        vocab, merges, names, added, bpe_files.settings(around=around), chat_template=template
    )


def _from_vocab_txt(path: Path, beside: dict[str, dict[str, Any]]) -> TokenizerFiles:
    contents = read_file(path)
    _, settings, added = wordpiece_files.from_vocab_txt(path, contents, beside)
    return TokenizerFiles(contents, None, (path.name,), added, settings, "wordpiece")


def _from_model(path: Path, beside: dict[str, dict[str, Any]]) -> TokenizerFiles:
    given = beside.get("tokenizer_config.json", {})
    return from_contents(path, sentencepiece_files.as_tokenizer_json(path, read_file(path), given), beside)


def _from_tokenizer_json(path: Path, beside: dict[str, dict[str, Any]]) -> TokenizerFiles:
    return from_contents(path, _read_object(path), beside)


def from_contents(path: Path, contents: dict[str, Any], beside: dict[str, dict[str, Any]]) -> TokenizerFiles:
    """What a tokenizer.json holds, the format of Hugging Face's tokenizers. Errors name `path`."""
    if isinstance(contents.get("model"), dict) and contents["model"].get("type") == "WordPiece":
        base, settings, added = wordpiece_files.from_tokenizer_json(path, contents, beside)
        return TokenizerFiles(json.dumps(base).encode(), None, (path.name,), added, settings, "wordpiece")
    pieces = sentencepiece_files.is_sentencepiece(contents)
    try:
        model = contents["model"]
        settings = (sentencepiece_files if pieces else bpe_files).from_tokenizer_json(path, contents)
        base, own = tokenizer_steps.vocabulary(path, contents)
        merges = [rule.split(" ") if isinstance(rule, str) else rule for rule in model["merges"]]
        lines = [f"{left} {right}" for left, right in merges]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"{path} is not understood: {error}") from error
    if not pieces and any(line.count(" ") != 1 or "\n" in line for line in lines):
        raise UsageError(f"{path} has merge rules that are not pairs of byte-level tokens")
    lacking = not pieces and not all(bpe_alphabet(bytes([byte])) in base for byte in range(256))
    if model.get("unk_token") and lacking:
        tokenizer_steps.refuse(path, "unk_token", model["unk_token"], "with a vocabulary that lacks bytes")
    defaults = _check_class(path.parent, beside, alone=True, pieces=pieces)
    tokenizer = added_tokens.Tokenizer(base, own, defaults is not None, defaults or {}, beside)
    added = added_tokens.resolve(tokenizer)
    tokenizer_steps.check_around(path, base, own, [*settings["prefix"], *settings["suffix"]])
    template = _chat_template(path.parent, beside)
    if pieces:
        rules = json.dumps(merges)
        return TokenizerFiles(
            json.dumps(base).encode(),
            rules.encode(),
            (path.name,),
            added,
            settings,
            "sentencepiece",
            template,
        )
    settings["drop_unknown"] = lacking
    rules = "#version: 0.2\n" + "".join(f"{line}\n" for line in lines)
    return TokenizerFiles(
        json.dumps(base).encode(), rules.encode(), (path.name,), added, settings, chat_template=template
    )


def _check_class(
    directory: Path, beside: dict[str, dict[str, Any]], *, alone: bool, pieces: bool = False
) -> dict[str, str] | None:
    """Refuse what tokenizer_config.json asks for beyond what is known.

    Returns the named tokens that the class begins with if it takes all else from tokenizer.json, None for
    GPT-2's.
    """
    settings = beside.get("tokenizer_config.json", {})
    path = directory / "tokenizer_config.json"
    class_ = settings.get("tokenizer_class")
    name = class_.removesuffix("Fast") if isinstance(class_, str) else class_
    defaults = _GENERIC_CLASSES.get(name) if alone and isinstance(name, str) else None
    if name is None and pieces:
        defaults = {}
    if name is not None and defaults is None and (name != "GPT2Tokenizer" or pieces):
        tokenizer_steps.refuse(path, "tokenizer_class", class_)
    asked = ["split_special_tokens"]
    asked += ["add_prefix_space"] if defaults is None else []
    for key in asked:
        if settings.get(key):
            tokenizer_steps.refuse(path, key, settings[key])
    return defaults
