"""The work of `create`: a new model, or the weights of one whose sizes are already registered."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from llm_sql import functions
from llm_sql.cli.database import open_session
from llm_sql.cli.models import FLAGS, SMALL
from llm_sql.errors import LLMSQLError, UsageError

_CONFIG = text(
    "SELECT arch, n_layer, n_head, d_model, n_positions, vocab,"
    " EXISTS (SELECT FROM public.llm_param p WHERE p.model = c.model) AS has_weights"
    " FROM public.llm_model_config c WHERE model = :model"
)
_TOKENS = text("SELECT max(token_id) + 1 FROM public.llm_bpe_vocab WHERE model = :model")


def create_model(
    url: str | None,
    model: str,
    arch: str | None,
    sizes: dict[str, int],
    seed: int,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Registered or found, and initialised; what it is, and its number of weights."""
    wanted = sizes if arch else {**SMALL, **sizes}
    with open_session(url) as session:
        config = session.execute(_CONFIG, {"model": model}).mappings().one_or_none()
        if config is not None and not config["has_weights"]:
            _check({**sizes, **({"arch": arch} if arch else {})}, config, model)
            if settings:
                raise UsageError(
                    f'"{model}" is registered with its settings',
                    hint="omit --setting, or UPDATE llm_model_config SET settings = ...",
                )
            n_weights = session.scalars(select(functions.init_model(model, seed))).one()
        else:
            if config is None:
                _check_new(session, model, arch, wanted)
            n_weights = session.scalars(
                select(functions.create_model(model, arch or "gpt2", **wanted, seed=seed, settings=settings))
            ).one()
            config = session.execute(_CONFIG, {"model": model}).mappings().one()
        shape = {name: value for name, value in config.items() if name != "has_weights"}
    return {"model": model, **shape, "parameters": n_weights}


def _check(given: dict[str, Any], config: Any, model: str) -> None:
    """What is given agrees with what is registered."""
    for name, value in given.items():
        if value != config[name]:
            raise UsageError(
                f'{FLAGS[name]} is {value}, but "{model}" is registered with {name} {config[name]}',
                hint=f"omit {FLAGS[name]}, or choose another name",
            )


def _check_new(session: Session, model: str, arch: str | None, wanted: dict[str, int]) -> None:
    heads, width = wanted.get("n_head"), wanted.get("d_model")
    # Of llama the setting d_head may say otherwise; the database tells.
    if heads and width and width % heads and arch != "llama":
        raise UsageError(f"--heads {heads} does not divide --width {width}")
    tokens = session.scalar(_TOKENS, {"model": model})
    if tokens is not None and wanted.get("vocab", tokens) < tokens:
        raise LLMSQLError(
            f'--vocab is {wanted["vocab"]}, but the tokenizer of "{model}" has {tokens} tokens',
            hint="omit --vocab",
        )
    if arch is None and tokens is None and "vocab" not in wanted:
        raise UsageError(
            f'model "{model}" has no tokenizer, so --vocab is needed',
            hint=f"or first: llm-sql tokenizer chars {model} --query 'SELECT ...'",
        )
