"""A pass recorded in the session's memory alone: nothing is written, and readers may do it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, text

from .read import Parameter, Pass, named

SETTINGS = ("pg_llm.record", "pg_llm.autograd")
SET = text("SELECT set_config(:name, :value, true)")
FORWARD = text("SELECT public.shape(public.llm_forward(:model, CAST(:tokens AS int[]), false))")
OPS = text(
    """
    SELECT t.position, t.name, t.inputs, t.output, t.extra, r.shape, r.norm, NULL::double precision
    FROM public.pg_llm_tape(true) t LEFT JOIN public.pg_llm_tape_tensors(false) r ON r.id = t.output
    ORDER BY t.position
    """
)
PARAMETERS = text(
    """
    SELECT p.id, p.name, r.shape, r.norm, NULL::double precision
    FROM public.pg_llm_tape_params() p LEFT JOIN public.pg_llm_tape_tensors(false) r ON r.id = p.id
    ORDER BY p.id
    """
)
CLEAR = text("SELECT public.pg_llm_tape_clear()")


@contextmanager
def recorded_pass(connection: Connection, model: str, tokens: Sequence[int] | None) -> Iterator[Pass]:
    """A forward pass over the tokens (None: a few, whatever they stand for), in memory until the block ends.

    Inside the block pg_llm_tape_tensors(true) has the values of all its tensors. A tape that the session held
    before is lost.
    """
    if tokens is None:
        tokens = [0] * int(
            connection.scalar(
                text("SELECT least(n_positions, 8) FROM public.llm_model_config WHERE model = :model"),
                {"model": model},
            )
            or 1
        )
    connection.execute(CLEAR)  # loads the library, too, which knows the settings
    before = {
        name: connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) for name in SETTINGS
    }
    connection.execute(SET, {"name": "pg_llm.record", "value": "full"})
    connection.execute(SET, {"name": "pg_llm.autograd", "value": "on"})
    connection.execute(FORWARD, {"model": model, "tokens": list(tokens)})
    connection.execute(SET, {"name": "pg_llm.autograd", "value": "off"})
    parameters = [Parameter(*row) for row in connection.execute(PARAMETERS)]
    rows = [tuple(row) for row in connection.execute(OPS)]
    yield Pass(0, named(rows, {p.tensor_id: p.name for p in parameters}), parameters)
    # After an error the transaction is over, and with it the tape and the settings.
    connection.execute(CLEAR)
    for name, value in before.items():
        connection.execute(SET, {"name": name, "value": value})
