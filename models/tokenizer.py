"""llm_bpe_vocab and llm_bpe_merges: the tokenizer of every model."""

from __future__ import annotations

import builtins

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class BpeToken(Base):
    """A token. A character tokenizer's `<|bos|>` stands for no bytes, BPE's added tokens for their name.

    `flags` tell what it is beside a token that merging makes: `added` tokens are searched for in a text as
    a whole, as Hugging Face's AddedToken with its `special`, `lstrip`, `rstrip`, `single_word` and
    `normalized`; `base` ones are made by merging, too. `bos` begins a document, `eos` ends one and, like
    `stop`, a generation; `pad` and `unk` are remembered. NULL: special when it reads <|...|>.
    """

    __tablename__ = "llm_bpe_vocab"
    __table_args__ = (
        CheckConstraint("token_id >= 0", name="token_id"),
        CheckConstraint(
            "flags <@ '{added,base,special,lstrip,rstrip,single_word,normalized,"
            "bos,eos,stop,pad,unk}'::text[]"
            " AND array_position(flags, NULL) IS NULL",
            name="flags",
        ),
        Index(None, "model", "token", unique=True),
        Index("ix_llm_bpe_vocab_flags", "model", postgresql_where=text("flags <> '{}'::text[]")),
        {"comment": "tokens of every model"},
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str] = mapped_column(comment="in GPT-2's byte-level alphabet, or the character itself")
    bytes: Mapped[builtins.bytes] = mapped_column(comment="the token's bytes in a text")
    score: Mapped[float | None]
    flags: Mapped[list[str] | None] = mapped_column(
        comment="added, special, bos, eos, ...; NULL: special if it has the form <|...|>"
    )


class BpeMerge(Base):
    """A merge rule of byte pair encoding; lower ranks merge first."""

    __tablename__ = "llm_bpe_merges"
    __table_args__ = (
        CheckConstraint("rank >= 0", name="rank"),
        {"comment": "merge rules of byte pair encoding"},
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    left_token: Mapped[str]
    right_token: Mapped[str]
    pair: Mapped[str] = mapped_column(comment="the rule as in merges.txt: left, a space, right")
