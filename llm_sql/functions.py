"""The database's functions as SQLAlchemy expressions, for use inside any `select()`.

    select(functions.generate("SELECT is", max_tokens=40, model="catalog-gpt"))
    select(Page.id, functions.perplexity("catalog-gpt", Page.body)).order_by(...)

Every argument may be a Python value or a column. The defaults are those of the database's functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Boolean, Double, Function, Integer, Text, cast, func
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeEngine

Argument = Any
IntArray = ARRAY(Integer)
TextArray = ARRAY(Text)


def _typed(value: Argument, type_: TypeEngine[Any]) -> ColumnElement[Any]:
    """A column stays as it is; a Python value is sent with its type, so that overloads and NULL resolve."""
    return value if isinstance(value, ColumnElement) else cast(value, type_)


def _sampling(
    prompt: Argument,
    max_tokens: Argument,
    temperature: Argument,
    top_k: Argument,
    top_p: Argument,
    model: Argument,
    seed: Argument,
    stop: Argument,
    echo: Argument,
    repetition_penalty: Argument,
    presence_penalty: Argument,
    frequency_penalty: Argument,
) -> list[ColumnElement[Any]]:
    """The arguments of llm_generate and llm_generate_stream, in their order."""
    if isinstance(stop, str):
        stop = [stop]
    return [
        _typed(prompt, TextArray if isinstance(prompt, (list, tuple)) else Text()),
        _typed(max_tokens, Integer()),
        _typed(temperature, Double()),
        _typed(top_k, Integer()),
        _typed(top_p, Double()),
        _typed(model, Text()),
        _typed(seed, BigInteger()),
        _typed(stop, TextArray),
        _typed(echo, Boolean()),
        _typed(repetition_penalty, Double()),
        _typed(presence_penalty, Double()),
        _typed(frequency_penalty, Double()),
    ]


def generate(
    prompt: Argument,
    *,
    max_tokens: Argument = 64,
    temperature: Argument = 1.0,
    top_k: Argument = 50,
    top_p: Argument = 0.95,
    model: Argument = None,
    seed: Argument = None,
    stop: Argument = None,
    echo: Argument = False,
    repetition_penalty: Argument = 1.0,
    presence_penalty: Argument = 0.0,
    frequency_penalty: Argument = 0.0,
) -> Function[Any]:
    """The continuation of a prompt (text), or of each of several (text[])."""
    arguments = _sampling(
        prompt, max_tokens, temperature, top_k, top_p, model, seed, stop, echo,
        repetition_penalty, presence_penalty, frequency_penalty,
    )  # fmt: skip
    result: TypeEngine[Any] = TextArray if isinstance(prompt, (list, tuple)) else Text()
    return func.llm_generate(*arguments, type_=result)


def generate_stream(
    prompt: Argument,
    *,
    max_tokens: Argument = 64,
    temperature: Argument = 1.0,
    top_k: Argument = 50,
    top_p: Argument = 0.95,
    model: Argument = None,
    seed: Argument = None,
    stop: Argument = None,
    echo: Argument = False,
    repetition_penalty: Argument = 1.0,
    presence_penalty: Argument = 0.0,
    frequency_penalty: Argument = 0.0,
) -> TableValuedAlias:
    """One row per token: step, token_id, token, text so far, is_complete. Fetch it through a cursor."""
    arguments = _sampling(
        prompt, max_tokens, temperature, top_k, top_p, model, seed, stop, echo,
        repetition_penalty, presence_penalty, frequency_penalty,
    )  # fmt: skip
    names = ("step", "token_id", "token", "text", "is_complete")
    return func.llm_generate_stream(*arguments).table_valued(*names)


def encode(text: Argument, model: Argument) -> Function[Any]:
    """Token ids of a text (int[])."""
    return func.llm_encode(_typed(text, Text()), _typed(model, Text()), type_=IntArray)


def decode(tokens: Argument, model: Argument) -> Function[Any]:
    """The text of token ids."""
    return func.llm_decode(_typed(tokens, IntArray), _typed(model, Text()), type_=Text())


def loss(
    model: Argument, tokens: Sequence[int] | Argument, targets: Sequence[int] | Argument
) -> Function[Any]:
    """Mean negative log-likelihood in nats per token, targets below 0 ignored; no dropout."""
    return func.llm_loss(
        _typed(model, Text()), _typed(tokens, IntArray), _typed(targets, IntArray), type_=Double()
    )


def perplexity(model: Argument, text: Argument) -> Function[Any]:
    """exp of the mean negative log-likelihood of the text's tokens."""
    return func.llm_perplexity(_typed(model, Text()), _typed(text, Text()), type_=Double())


def evaluate(model: Argument, split: Argument = "validation") -> TableValuedAlias:
    """One row over a split of the model's data set: tokens, nll (the mean, in nats per token), perplexity."""
    return func.llm_evaluate(_typed(model, Text()), _typed(split, Text())).table_valued(
        "tokens", "nll", "perplexity"
    )


def create_model(
    model: Argument,
    arch: Argument,
    n_layer: Argument,
    n_head: Argument,
    d_model: Argument,
    n_positions: Argument,
    vocab: Argument,
    seed: Argument = 0,
) -> Function[Any]:
    """Register a model and initialise its weights; the number of them."""
    sizes = [_typed(size, Integer()) for size in (n_layer, n_head, d_model, n_positions, vocab)]
    return func.llm_create_model(
        _typed(model, Text()), _typed(arch, Text()), *sizes, _typed(seed, BigInteger()), type_=BigInteger()
    )
