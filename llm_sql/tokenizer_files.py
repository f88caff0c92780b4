"""The tokenizer files of a directory in the hub's layout, as what llm_load_bpe takes.

vocab.json beside merges.txt, their older names encoder.json and vocab.bpe, or a tokenizer.json alone. Only
GPT-2's kind of tokenizer is taken: byte-level BPE that cuts a text as GPT-2 does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, LargeBinary, bindparam, text
from sqlalchemy.orm import Session

from llm_sql.errors import LLMSQLError, UsageError

PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
ALONE = "tokenizer.json"

_LOAD = text(
    "SELECT public.llm_load_bpe(CAST(:model AS text), CAST(:vocab AS bytea), CAST(:merges AS bytea))"
).bindparams(bindparam("vocab", type_=LargeBinary), bindparam("merges", type_=LargeBinary))
_BEYOND = text(
    "SELECT max(v.token_id), c.vocab FROM public.llm_model_config c"
    " INNER JOIN public.llm_bpe_vocab v ON v.model = c.model WHERE c.model = :model"
    " GROUP BY c.vocab HAVING max(v.token_id) >= c.vocab"
)


@dataclass(frozen=True)
class TokenizerFiles:
    """Contents in the forms of vocab.json and merges.txt, and the names of the files they come from.

    `merges` is None for a vocabulary that brings them with it (.tiktoken).
    """

    vocab: bytes
    merges: bytes | None
    names: tuple[str, ...]


def read_file(path: Path) -> bytes:
    """The file's bytes; UsageError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def read_directory(directory: Path) -> TokenizerFiles | None:
    """The directory's tokenizer, None when it holds no file of one.

    UsageError for files that cannot be read or are half of a pair; LLMSQLError for a tokenizer of another
    kind.
    """
    there = {entry.name for entry in directory.iterdir()}
    for names in PAIRS:
        if there.issuperset(names):
            vocab, merges = (read_file(directory / name) for name in names)
            return TokenizerFiles(vocab, merges, names)
    if ALONE in there:
        return _from_tokenizer_json(directory / ALONE)
    for names in PAIRS:
        if not there.isdisjoint(names):
            [missing] = set(names) - there
            raise UsageError(f"{directory} has no {missing} beside {', '.join(set(names) & there)}")
    return None


def load(session: Session | Connection, model: str, files: TokenizerFiles) -> int:
    """Replace the model's tokenizer by these files' contents; returns the number of tokens.

    LLMSQLError when it has ids that the model's vocabulary does not reach.
    """
    contents = {"model": model, "vocab": files.vocab, "merges": files.merges}
    size = int(session.execute(_LOAD, contents).scalar_one())
    beyond = session.execute(_BEYOND, {"model": model}).one_or_none()
    if beyond is not None:
        raise LLMSQLError(
            f'the tokenizer has the token id {beyond[0]}, model "{model}" has a vocab of {beyond[1]}',
            hint="Load the tokenizer that the weights were trained with.",
        )
    return size


def _from_tokenizer_json(path: Path) -> TokenizerFiles:
    """The vocabulary and merges of a tokenizer.json (the format of Hugging Face's tokenizers)."""
    try:
        contents: dict[str, Any] = json.loads(read_file(path))
        model = contents["model"]
        _refuse_other_kinds(path, contents, model)
        vocab: dict[str, int] = dict(model["vocab"])
        for token in contents.get("added_tokens") or []:
            if vocab.setdefault(token["content"], token["id"]) != token["id"]:
                raise UsageError(f"{path} has two ids for the token {token['content']!r}")
        merges = [rule.split(" ") if isinstance(rule, str) else rule for rule in model["merges"]]
        lines = [f"{left} {right}" for left, right in merges]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is not understood: {error}") from error
    if any(line.count(" ") != 1 or "\n" in line for line in lines):
        raise UsageError(f"{path} has merge rules that are not pairs of byte-level tokens")
    rules = "#version: 0.2\n" + "".join(f"{line}\n" for line in lines)
    return TokenizerFiles(json.dumps(vocab).encode(), rules.encode(), (path.name,))


def _refuse_other_kinds(path: Path, contents: dict[str, Any], model: dict[str, Any]) -> None:
    steps = contents.get("pre_tokenizer") or {}
    wanted = {
        "model": (model.get("type", "BPE"), "BPE"),
        "pre_tokenizer": (steps.get("type"), "ByteLevel"),
        "add_prefix_space": (bool(steps.get("add_prefix_space", True)), False),
        "use_regex": (steps.get("use_regex", True), True),
        "normalizer": (contents.get("normalizer"), None),
        "dropout": (model.get("dropout") or None, None),
        "byte_fallback": (bool(model.get("byte_fallback")), False),
        "ignore_merges": (bool(model.get("ignore_merges")), False),
        "continuing_subword_prefix": (model.get("continuing_subword_prefix") or "", ""),
        "end_of_word_suffix": (model.get("end_of_word_suffix") or "", ""),
    }
    for name, (found, supported) in wanted.items():
        if found != supported:
            raise LLMSQLError(
                f"{path} has {name} = {found!r}, which is not supported",
                hint="Tokenizers of GPT-2's kind can be loaded: byte-level BPE.",
            )
