"""Embeddings of many texts: what LanguageModel.embed and its asynchronous twin send and receive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, column, func, select, text

from llm_sql import functions
from llm_sql.client import check_text
from llm_sql.errors import UsageError
from llm_sql.keywords import not_none
from llm_sql.models.types import Tensor

# Of one statement: the server holds so many embeddings at a time.
TEXTS = 1024
WIDTH = text("SELECT (public.llm_config(:model)).d_model")


def texts_of(texts: str | Sequence[str]) -> list[str]:
    """The texts as a list. UsageError: one of them is None, of which there is no embedding."""
    listed = [texts] if isinstance(texts, str) else list(texts)
    for number, one in enumerate(listed):
        if one is None:
            raise UsageError(f"text {number} is None", hint="Leave it out, or pass an empty text.")
        check_text(one)
    return listed


def statements(texts: Sequence[str], model: str, prompt: str | None) -> Iterator[Select[Any]]:
    """Statements whose rows, one after the other, are the embeddings."""
    for first in range(0, len(texts), TEXTS):
        part = functions.embed(list(texts[first : first + TEXTS]), model, **not_none({"prompt": prompt}))
        # The planner computes a STABLE argument of unnest to count its rows, but no subquery.
        rows = (
            func.pg_catalog.unnest(select(part).scalar_subquery())
            .table_valued(column("embedding", Tensor()), with_ordinality="place")
            .render_derived()
        )
        yield select(rows.c.embedding).order_by(rows.c.place)


def as_array(
    texts: str | Sequence[str], embeddings: list[NDArray[np.float32]], width: int
) -> NDArray[np.float32]:
    """[d] of one text, [n, d] of several."""
    if isinstance(texts, str):
        return embeddings[0]
    return (
        cast("NDArray[np.float32]", np.stack(embeddings)) if embeddings else np.empty((0, width), np.float32)
    )
