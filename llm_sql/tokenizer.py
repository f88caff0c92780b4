"""A model's tokenizer outside the database: from its rows, for the client's own use.

    bpe = read_bpe(session, "gpt2-small")          # the database's own code: equal ids by construction
    encoding = read_encoding(session, "gpt2-small")  # a tiktoken.Encoding, for what expects one

Both are built from llm_bpe_vocab and llm_bpe_merges; nothing is ever downloaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.kernels import BPE, bpe_alphabet_bytes

if TYPE_CHECKING:
    import tiktoken

GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""How GPT-2 cuts a text into the pieces within which it merges (Radford et al. 2019)."""

SPECIAL_TOKEN = re.compile(r"<\|[^<>]+\|>")
"""Tokens of this form are special, as in llm_bpe_handle."""


@dataclass(frozen=True)
class BpeRows:
    """A model's rows: id and bytes of ordinary tokens, id of special ones by name, merges by rank."""

    tokens: dict[int, bytes]
    special: dict[str, int]
    merges: list[tuple[bytes, bytes]]


def read_rows(session: Session | Connection, model: str) -> BpeRows:
    """The model's BPE rows. LLMSQLError when it has none, or a character tokenizer."""
    vocab = session.execute(
        text(
            "SELECT token_id, token, bytes FROM public.llm_bpe_vocab WHERE model = :model ORDER BY token_id"
        ),
        {"model": model},
    ).all()
    if not vocab or any(not row.bytes for row in vocab):
        raise LLMSQLError(
            f'model "{model}" has no BPE tokenizer', hint="llm-sql tokenizer load MODEL VOCAB MERGES"
        )
    merges = session.execute(
        text("SELECT left_token, right_token FROM public.llm_bpe_merges WHERE model = :model ORDER BY rank"),
        {"model": model},
    ).all()
    special = {row.token: row.token_id for row in vocab if SPECIAL_TOKEN.fullmatch(row.token)}
    return BpeRows(
        tokens={row.token_id: bytes(row.bytes) for row in vocab if row.token not in special},
        special=special,
        merges=[(_bytes(row.left_token), _bytes(row.right_token)) for row in merges],
    )


def _bytes(token: str) -> bytes:
    try:
        return bpe_alphabet_bytes(token)
    except ValueError:
        return token.encode()


def read_bpe(session: Session | Connection, model: str) -> BPE:
    """The model's tokenizer, run by this process exactly as the database runs it."""
    rows = read_rows(session, model)
    tokens = [*rows.tokens.items(), *((id_, name.encode()) for name, id_ in rows.special.items())]
    return BPE(tokens, rows.merges, rows.special.values())


def read_encoding(session: Session | Connection, model: str) -> tiktoken.Encoding:
    """The model's tokenizer as a tiktoken.Encoding.

    tiktoken knows tokens only and merges in the order of their ids. UsageError for a tokenizer whose merges
    have another order, or that has tokens no merge makes.
    """
    import tiktoken

    rows = read_rows(session, model)
    ranks = {token: id_ for id_, token in rows.tokens.items()}
    made = [ranks.get(left + right, -1) for left, right in rows.merges]
    if made != sorted(made) or len(made) + 256 != len(ranks):
        raise UsageError(f'the merges of model "{model}" are not in the order of their tokens\' ids')
    return tiktoken.Encoding(
        name=f"llm_sql/{model}",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens=rows.special,
    )
