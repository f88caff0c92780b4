"""Answers to conversations: what LanguageModel and its asynchronous twin ask the database for.

The server renders the templates that it knows. Another one is rendered here (chat_template.py), and then
it is here that turns are left out of a conversation that does not fit into the context.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Dialect, Executable, Select, Text, cast, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection, Row
from sqlalchemy.orm import Session

from llm_sql import chat_template, functions
from llm_sql.chat_template import Message
from llm_sql.keywords import given
from llm_sql.options import DEFAULTS, Chat
from llm_sql.streaming import Query

_TEMPLATE = text(
    "SELECT t.template, t.format, t.bos, t.eos"
    " FROM public.llm_chat_template(CAST(:model AS pg_catalog.text)) t"
)
_CONTEXT = text("SELECT (public.llm_config(CAST(:model AS pg_catalog.text))).n_positions")
_LENGTH = text(
    "SELECT pg_catalog.cardinality(p.tokens) FROM public.llm_chat_prompt("
    "CAST(CAST(:conversation AS pg_catalog.text) AS pg_catalog.jsonb), CAST(:model AS pg_catalog.text)) p"
)

Asking: TypeAlias = Generator[tuple[Executable, dict[str, Any]], "Row[Any]", Any]
"""Statements that are to be executed, each for one row; returns what comes of it."""


def answered(session: Session | Connection, asking: Asking) -> Any:
    """What comes of the questions."""
    row: Row[Any] | None = None
    while True:
        try:
            statement, values = asking.send(row)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value
        row = session.execute(statement, values).one()


def check(model: str) -> Asking:
    """LLMSQLError, or the server's: nothing renders the model's conversations."""
    template = yield _TEMPLATE, {"model": model}
    if template.format is None:
        chat_template.check(template.template)


def prepare(messages: object, model: str, options: Chat) -> Asking:
    """The conversation as llm_chat takes it: the messages themselves if the server renders them."""
    checked = chat_template.checked(messages)
    template = yield _TEMPLATE, {"model": model}
    if template.format is not None:
        return checked
    # As llm_chat_fit does it: no more is left out than must be, and always up to a message of the user.
    first = 1 + (checked[0]["role"] == "system")
    starts = [0, *(i for i, m in enumerate(checked) if i >= first and m["role"] == "user")]
    conversations = [from_message(checked, start) for start in starts]

    def render(number: int) -> dict[str, Any]:
        return chat_template.rendered(template.template, conversations[number], template.bos, template.eos)

    defaults = DEFAULTS["Chat"]
    if (options.get("overflow") or defaults["overflow"][1]) == "error":
        return render(0)
    context = (yield _CONTEXT, {"model": model})[0]
    room = min(options.get("max_tokens") or defaults["max_tokens"][1], max(context // 2, 1))
    low, high, middle = 0, len(starts), 0
    while low < high:
        values = {"conversation": json.dumps(render(middle), ensure_ascii=False), "model": model}
        if (yield _LENGTH, values)[0] + room <= context:
            high = middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    # If not even the last message fits, the server says so.
    return render(min(low, len(starts) - 1))


def from_message(messages: Sequence[Message], start: int) -> list[Message]:
    """The conversation from this message on, with its system message."""
    has_system = messages[0]["role"] == "system"
    return [*messages[: 1 if has_system and start > 0 else 0], *messages[start:]]


def as_jsonb(value: Any) -> Any:
    """A value as jsonb, by way of text, which every driver sends alike."""
    return cast(cast(json.dumps(value, ensure_ascii=False), Text), JSONB)


def select_chat(conversation: Any, model: str, options: Mapping[str, Any]) -> Select[Any]:
    return select(functions.chat(as_jsonb(conversation), model=model, **given(Chat, options)))


def select_chat_stream(conversation: Any, model: str, options: Mapping[str, Any]) -> Select[Any]:
    rows = functions.chat_stream(as_jsonb(conversation), model=model, **given(Chat, options))
    return select(rows.c.step, rows.c.token_id, rows.c.token, rows.c.text, rows.c.is_complete)


def chat_query(conversation: Any, model: str, options: Mapping[str, Any], dialect: Dialect) -> Query:
    """The stream's statement as psycopg takes it."""
    compiled = select_chat_stream(conversation, model, options).compile(dialect=dialect)
    return str(compiled), compiled.params
