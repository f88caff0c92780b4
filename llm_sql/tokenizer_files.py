"""The tokenizer files of a directory in the hub's layout, as what llm_load_bpe or llm_load_wordpiece takes.

A tokenizer.json comes first, else vocab.json beside merges.txt or their older names encoder.json and
vocab.bpe, else vocab.txt; the files beside them tell added tokens and which tokens begin and end a text
(added_tokens.py). Two kinds of tokenizers are taken: GPT-2's, byte-level BPE that cuts a text as GPT-2 does,
and BERT's WordPiece (wordpiece_files.py); what would be computed otherwise is refused by its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from llm_sql import added_tokens, functions, wordpiece_files
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

# transformers' classes of tokenizers: GPT-2's, and those that take all from tokenizer.json.
_GPT2_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")
_GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")

_BEYOND = text(
    "SELECT max(v.token_id), c.vocab FROM public.llm_model_config c"
    " INNER JOIN public.llm_bpe_vocab v ON v.model = c.model WHERE c.model = :model"
    " GROUP BY c.vocab HAVING max(v.token_id) >= c.vocab"
)


@dataclass(frozen=True)
class TokenizerFiles:
    """Contents in the forms of vocab.json and merges.txt, and the names of the files they come from.

    `merges` is None for a vocabulary that brings them with it (.tiktoken). `added` is what llm_add_tokens
    takes; None leaves it to the names of the tokens. `settings` are WordPiece's, None for BPE.
    """

    vocab: bytes
    merges: bytes | None
    names: tuple[str, ...]
    added: list[dict[str, Any]] | None = None
    settings: dict[str, Any] | None = None


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
    if ALONE in there:
        return _from_tokenizer_json(directory / ALONE, beside)
    for names in PAIRS:
        if there.issuperset(names):
            return _from_pair(directory, names, beside)
    for names in PAIRS:
        if not there.isdisjoint(names):
            [missing] = set(names) - there
            raise UsageError(f"{directory} has {', '.join(set(names) & there)}, but no {missing}")
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
    if merges is None and vocab.suffix == ".txt":
        return _from_vocab_txt(vocab, {})
    return TokenizerFiles(read_file(vocab), None if merges is None else read_file(merges), (vocab.name,))


def load(session: Session | Connection, model: str, files: TokenizerFiles) -> int:
    """Replace the model's tokenizer by these files' contents; returns the number of tokens.

    LLMSQLError when it has ids that the model's vocabulary does not reach.
    """
    more = not_none({"merges": files.merges, "added": files.added, "settings": files.settings})
    load_ = functions.load_bpe if files.settings is None else functions.load_wordpiece
    size = session.execute(select(load_(model, files.vocab, **more))).scalar_one()
    beyond = session.execute(_BEYOND, {"model": model}).one_or_none()
    if beyond is not None:
        raise LLMSQLError(
            f'the tokenizer has the token id {beyond[0]}, model "{model}" has a vocab of {beyond[1]}',
            hint="Load the tokenizer that the weights were trained with.",
        )
    return size


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
    _refuse_settings(directory, beside, alone=False)
    added = added_tokens.resolve(added_tokens.Tokenizer(base, files=beside))
    return TokenizerFiles(vocab, merges, names, added)


def _from_vocab_txt(path: Path, beside: dict[str, dict[str, Any]]) -> TokenizerFiles:
    contents = read_file(path)
    _, settings, added = wordpiece_files.from_vocab_txt(path, contents, beside)
    return TokenizerFiles(contents, None, (path.name,), added, settings)


def _from_tokenizer_json(path: Path, beside: dict[str, dict[str, Any]]) -> TokenizerFiles:
    return from_contents(path, _read_object(path), beside)


def from_contents(path: Path, contents: dict[str, Any], beside: dict[str, dict[str, Any]]) -> TokenizerFiles:
    """What a tokenizer.json holds, the format of Hugging Face's tokenizers. Errors name `path`."""
    if isinstance(contents.get("model"), dict) and contents["model"].get("type") == "WordPiece":
        base, settings, added = wordpiece_files.from_tokenizer_json(path, contents, beside)
        return TokenizerFiles(json.dumps(base).encode(), None, (path.name,), added, settings)
    try:
        model = contents["model"]
        _refuse_other_kinds(path, contents, model)
        base = {token: added_tokens.number(id_, path.name) for token, id_ in model["vocab"].items()}
        own = [
            added_tokens.claim(token, added_tokens.number(token["id"], path.name), path.name)
            for token in contents.get("added_tokens") or []
        ]
        merges = [rule.split(" ") if isinstance(rule, str) else rule for rule in model["merges"]]
        lines = [f"{left} {right}" for left, right in merges]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not understood: {error}") from error
    if any(line.count(" ") != 1 or "\n" in line for line in lines):
        raise UsageError(f"{path} has merge rules that are not pairs of byte-level tokens")
    if model.get("unk_token") and not all(bpe_alphabet(bytes([byte])) in base for byte in range(256)):
        _refuse(path, "unk_token", model["unk_token"], "with a vocabulary that lacks bytes")
    generic = _refuse_settings(path.parent, beside, alone=True)
    added = added_tokens.resolve(added_tokens.Tokenizer(base, own, generic, beside))
    rules = "#version: 0.2\n" + "".join(f"{line}\n" for line in lines)
    return TokenizerFiles(json.dumps(base).encode(), rules.encode(), (path.name,), added)


def _refuse(path: Path, name: str, found: object, how: str = "") -> None:
    raise LLMSQLError(
        f"{path} has {name} = {found!r}{how and ' ' + how}, which is not supported",
        hint="Byte-level BPE tokenizers like GPT-2's and WordPiece ones like BERT's can be loaded.",
    )


def _refuse_settings(directory: Path, beside: dict[str, dict[str, Any]], *, alone: bool) -> bool:
    """Refuse what tokenizer_config.json asks for beyond GPT-2's; whether it takes all from tokenizer.json.

    As transformers does, add_bos_token and add_eos_token are left aside beside a tokenizer.json, whose
    post-processor tells.
    """
    settings = beside.get("tokenizer_config.json", {})
    path = directory / "tokenizer_config.json"
    class_ = settings.get("tokenizer_class")
    generic = alone and class_ in _GENERIC_CLASSES
    if class_ is not None and not generic and class_ not in _GPT2_CLASSES:
        _refuse(path, "tokenizer_class", class_)
    asked = ["split_special_tokens"]
    asked += [] if generic else ["add_prefix_space"]
    asked += [] if alone else ["add_bos_token", "add_eos_token"]
    for name in asked:
        if settings.get(name):
            _refuse(path, name, settings[name])
    return generic


def _part(value: Any, kind: str) -> Any:
    """A step of the tokenizer, out of a sequence of one."""
    while isinstance(value, dict) and value.get("type") == "Sequence" and len(value.get(kind) or []) < 2:
        value = (value.get(kind) or [None])[0]
    return value


def _refuse_other_kinds(path: Path, contents: dict[str, Any], model: dict[str, Any]) -> None:
    steps = _part(contents.get("pre_tokenizer"), "pretokenizers") or {}
    decoder = _part(contents.get("decoder"), "decoders") or {}
    wanted = {
        "model": (model.get("type", "BPE"), "BPE"),
        "pre_tokenizer": (steps.get("type"), "ByteLevel"),
        "add_prefix_space": (bool(steps.get("add_prefix_space", True)), False),
        "use_regex": (steps.get("use_regex", True), True),
        "normalizer": (_part(contents.get("normalizer"), "normalizers"), None),
        "decoder": (decoder.get("type", "ByteLevel"), "ByteLevel"),
        "dropout": (model.get("dropout") or None, None),
        "byte_fallback": (bool(model.get("byte_fallback")), False),
        "ignore_merges": (bool(model.get("ignore_merges")), False),
        "continuing_subword_prefix": (model.get("continuing_subword_prefix") or "", ""),
        "end_of_word_suffix": (model.get("end_of_word_suffix") or "", ""),
        "post_processor": (_adds(contents.get("post_processor")), None),
    }
    for name, (found, supported) in wanted.items():
        if found != supported:
            _refuse(path, name, found)


def _adds(processor: Any) -> Any:
    """What a post-processor is called that puts tokens around a text; None when it puts none."""
    if processor is None:
        return None
    kind = processor.get("type")
    if kind == "ByteLevel":
        return None
    if kind == "Sequence":
        return next((name for name in map(_adds, processor.get("processors") or []) if name), None)
    if kind == "TemplateProcessing" and all("Sequence" in piece for piece in processor.get("single") or []):
        return None
    return kind or "unknown"
