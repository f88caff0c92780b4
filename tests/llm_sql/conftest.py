"""A small trained model that the service's tests share the making of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from llm_sql import LanguageModel

DOCUMENTS = ("the cat sat", "the dog ran", "a cat ran", "a dog sat", "the end")
LINES = "SELECT unnest(ARRAY[" + ", ".join(f"'{document}'" for document in DOCUMENTS) + "])"
MODEL = "tiny"


@pytest.fixture
def tiny(engine: Engine) -> Iterator[LanguageModel]:
    """An untrained model with tokenizer and data, committed."""
    with Session(engine) as session:
        session.execute(
            text("SELECT llm_build_char_tokenizer(:model, :query)"), {"model": MODEL, "query": LINES}
        )
        vocab = session.scalars(
            text("SELECT count(*) FROM llm_bpe_vocab WHERE model = :m"), {"m": MODEL}
        ).one()
        lm = LanguageModel.create(
            session, MODEL, n_layer=1, n_head=2, d_model=16, n_positions=32, vocab=vocab, seed=1
        )
        session.execute(
            text("SELECT llm_fill_dataset(:model, :query, validation => 0.2)"),
            {"model": MODEL, "query": LINES},
        )
        session.commit()
        yield lm
