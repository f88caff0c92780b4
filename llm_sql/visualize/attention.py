"""Attention maps: for every token of a text, how much each head of each layer attends to those before it.

The weights are computed in SQL from the model's rows: a pass over the text is recorded in memory, and queries
and keys are what its attention ops read. So every architecture whose blocks call pg_llm_causal_attention has
maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size
from sqlalchemy import Connection, bindparam, column, text

from llm_sql import printable
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.models.types import Tensor

from .characters import WIDTH, shade
from .files import STILLS, check_target, new_figure, save, style
from .memory import recorded_pass
from .read import TapeRow, require_model

FORMATS = STILLS
# Beyond these a file would have unreadable, or very many, maps.
MOST_MAPS, MOST_LABELS, LONGEST_LABEL = 64, 48, 16
# White space, which is most of what tokens differ in.
MARKS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})

# softmax(q k^T / sqrt(d_head) + mask) of one head; q, k: [T, d_head].
MAP = (
    text(
        """
    SELECT public.pg_llm_softmax(public.pg_llm_add(
        public.pg_llm_mul(public.pg_llm_matmul(q, public.pg_llm_transpose(k)), CAST(:scale AS public.tensor)),
        CAST(:mask AS public.tensor)
    )) AS weights
    FROM (
        SELECT public.pg_llm_slice(a.data, 1, :q_first, :q_first + :d_head) AS q,
            public.pg_llm_slice(b.data, 1, :k_first, :k_first + :d_head) AS k
        FROM public.pg_llm_tape_tensors(true) a, public.pg_llm_tape_tensors(true) b
        WHERE a.id = :queries AND b.id = :keys
        OFFSET 0
    ) heads
    """
    )
    .bindparams(bindparam("scale", type_=Tensor()), bindparam("mask", type_=Tensor()))
    .columns(column("weights", Tensor()))
)


@dataclass(frozen=True)
class Map:
    """One head's weights [T, T]: row i is how token i attends to the tokens 0 to i."""

    layer: int
    head: int
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """A text's tokens as text, and maps of some heads of a model."""

    model: str
    tokens: list[str]
    n_layer: int
    n_head: int
    maps: list[Map]


def read_attention(
    connection: Connection,
    model: str,
    content: str,
    layer: int | None = None,
    head: int | None = None,
    *,
    most: int | None = None,
) -> Attention:
    """Maps of the text, of one layer or head or of all of them.

    LLMSQLError: the text has no tokens or more than the context; the model has no such layer or head, or its
    architecture has no attention op; there are more than `most` maps.
    """
    require_model(connection, model)
    config = connection.execute(
        text("SELECT n_layer, n_head, n_positions FROM public.llm_model_config WHERE model = :model"),
        {"model": model},
    ).one()
    _check_number("layer", layer, config.n_layer, model)
    _check_number("head", head, config.n_head, model)
    ids = list(
        connection.scalar(text("SELECT public.llm_encode(:text, :model)"), {"text": content, "model": model})
        or []
    )
    if not ids:
        raise UsageError("the text is empty", hint="Give at least one token.")
    if len(ids) > config.n_positions:
        raise UsageError(
            f'the text has {len(ids):,} tokens, the context of model "{model}" {config.n_positions:,}',
            hint="Give a shorter text.",
        )
    pieces = list(
        connection.scalars(
            text(
                "SELECT public.llm_decode(ARRAY[t.id], :model)"
                " FROM unnest(CAST(:ids AS int[])) WITH ORDINALITY t (id, n) ORDER BY t.n"
            ),
            {"ids": ids, "model": model},
        )
    )
    with recorded_pass(connection, model, ids) as recorded:
        ops = [op for op in recorded.ops if op.name == "causal_attention"]
        if not ops:
            raise LLMSQLError(
                f'the architecture of model "{model}" calls no attention op',
                hint="visualize graph shows its ops.",
            )
        wanted = [
            (number, h, op)
            for number, op in enumerate(ops)
            if layer in (None, number)
            for h in range(_heads(op))
            if head in (None, h)
        ]
        _check_count(len(wanted), most)
        maps = [Map(number, h, _weights(connection, op, h, len(ids))) for number, h, op in wanted]
    return Attention(model, pieces, len(ops), _heads(ops[0]), maps)


def last_layer(connection: Connection, model: str) -> int:
    """The number of the model's last layer."""
    return _sizes(connection, model)[0] - 1


def chosen_layer(connection: Connection, model: str) -> int | None:
    """What a picture shows unless a layer is chosen: all layers (None) if they have room, else the last."""
    n_layer, n_head = _sizes(connection, model)
    return None if n_layer * n_head <= MOST_MAPS else n_layer - 1


def _sizes(connection: Connection, model: str) -> tuple[int, int]:
    require_model(connection, model)
    query = text("SELECT n_layer, n_head FROM public.llm_model_config WHERE model = :model")
    n_layer, n_head = connection.execute(query, {"model": model}).one()
    return n_layer, n_head


def sample_text(connection: Connection, model: str, length: int = 24) -> str:
    """The beginning of a row of the model's data, held out if there is one."""
    found = connection.scalar(
        text(
            "SELECT public.llm_decode(array_remove(d.tokens[1 : CAST(:length AS int)], "
            "public.llm_begin_token(:model)), :model)"
            " FROM public.llm_dataset d WHERE d.model = :model ORDER BY d.split <> 'validation', d.id LIMIT 1"
        ),
        {"model": model, "length": length},
    )
    if not found:
        raise LLMSQLError(f'model "{model}" has no data to take a text from', hint="--text TEXT")
    return str(found)


def _check_number(what: str, number: int | None, count: int, model: str) -> None:
    if number is not None and not 0 <= number < count:
        raise UsageError(f'model "{model}" has no {what} {number}', hint=f"Its {what}s are 0 to {count - 1}.")


def _check_count(count: int, most: int | None) -> None:
    if most is not None and count > most:
        raise UsageError(
            f"{count} maps are too many for a picture, which holds {most}",
            hint="Choose a layer (--layer) or a head (--head).",
        )


def _heads(op: TapeRow) -> int:
    return int((op.extra or {})["n_head"])


def _weights(connection: Connection, op: TapeRow, head: int, length: int) -> NDArray[np.float32]:
    d_model = (op.shape or [0])[-1]
    d_head = d_model // _heads(op)
    fused = len(op.inputs) == 1  # [q | k | v] per token
    extra = op.extra or {}
    # Heads of queries share those of keys, several in a row; within a window a token sees the last ones.
    key_head = head // (_heads(op) // int(extra.get("n_kv_head") or _heads(op)))
    hidden = np.full((length, length), -np.inf, dtype=np.float32)
    mask = np.triu(hidden, 1)
    if extra.get("sliding_window"):
        mask += np.tril(hidden, -int(extra["sliding_window"]))
    row = connection.execute(
        MAP,
        {
            "scale": np.float32(d_head**-0.5),
            "mask": mask,
            "queries": op.inputs[0],
            "keys": op.inputs[0] if fused else op.inputs[1],
            "q_first": head * d_head,
            "k_first": key_head * d_head + (d_model if fused else 0),
            "d_head": d_head,
        },
    ).one()
    return np.asarray(row.weights, dtype=np.float32)


# ---- showing ----


def visible(piece: str) -> str:
    """A token as it can be shown in one line."""
    return printable.visible(piece.translate(MARKS)) or "∅"


def lines(attention: Attention, width: int = WIDTH) -> list[str]:
    """The first of the maps as a shaded table: a row per token, a column per token it attends to."""
    one = attention.maps[0]
    tokens = [visible(piece) for piece in attention.tokens]
    label = min(max(map(cell_len, tokens)), 12)
    cell = 2 if label + 1 + 2 * len(tokens) <= width else 1
    if label + 1 + cell * len(tokens) > width:
        raise UsageError(
            f"a map of {len(tokens)} tokens does not fit {width} columns",
            hint="Write a file (-o attention.png), or give a shorter text.",
        )
    result = [
        f"{printable.title(attention.model)}: layer {one.layer} of {attention.n_layer},"
        f" head {one.head} of {attention.n_head} (--layer and --head choose)",
        f"rows attend to columns; weights: {shade(0.05)} from 0.05, {shade(0.15)} 0.15, {shade(0.35)} 0.35,"
        f" {shade(0.65)} 0.65",
        " " * (label + 1) + "".join(set_cell_size(token, 1).ljust(cell) for token in tokens).rstrip(),
    ]
    for number, token in enumerate(tokens):
        row = "".join(shade(float(weight)) * cell for weight in one.weights[number, : number + 1])
        shown = set_cell_size(token, label) if cell_len(token) > label else token
        result.append(f"{' ' * (label - cell_len(shown))}{shown} {row}".rstrip())
    return result


def as_json(attention: Attention) -> dict[str, Any]:
    return {
        "model": attention.model,
        "tokens": attention.tokens,
        "maps": [
            {"layer": one.layer, "head": one.head, "weights": one.weights.tolist()} for one in attention.maps
        ],
    }


def draw(attention: Attention, path: Path) -> None:
    """All maps, a row of them per layer and a column per head, into a .png, .svg or .pdf file."""
    check_target(path, FORMATS, "an attention map")
    _check_count(len(attention.maps), MOST_MAPS)
    layers = sorted({one.layer for one in attention.maps})
    heads = sorted({one.head for one in attention.maps})
    n = len(attention.tokens)
    single = len(attention.maps) == 1
    side = max(5.0, min(9.0, 0.22 * n)) if single else 2.1
    with style():
        figure = new_figure(
            side * len(heads) + 1.4, side * len(layers) + (1.2 if single else 1.0), layout="constrained"
        )
        grid = figure.subplots(len(layers), len(heads), squeeze=False)
        image: Any = None
        for one in attention.maps:
            axes = grid[layers.index(one.layer)][heads.index(one.head)]
            # What the causal mask removes is blank, so that it cannot be taken for a weight of 0.
            shown = np.where(np.tri(n, dtype=bool), one.weights, np.nan)
            image = axes.imshow(shown, cmap="viridis", vmin=0.0, vmax=1.0, interpolation="nearest")
            axes.set_title(f"layer {one.layer}, head {one.head}", fontsize=9, loc="center")
            _label(
                axes,
                attention.tokens,
                size=8 if single else 6,
                bottom=one.layer == layers[-1],
                left=one.head == heads[0],
                all_tokens=single or n <= 24,
            )
        figure.colorbar(image, ax=grid.ravel().tolist(), shrink=0.6, label="attention weight")
        figure.suptitle(
            f"{printable.title(attention.model)}: which token (row) attends to which (column)", fontsize=11
        )
        save(figure, path)


def _label(axes: Any, tokens: Sequence[str], size: int, bottom: bool, left: bool, all_tokens: bool) -> None:
    if not all_tokens or len(tokens) > MOST_LABELS:
        axes.set(xlabel="position" if bottom else "", ylabel="position" if left else "")
        axes.tick_params(labelsize=size)
        return
    names = [printable.title(visible(piece), LONGEST_LABEL) for piece in tokens]
    rotation = 90 if max(map(len, names)) > 1 else 0
    axes.set_xticks(range(len(names)), names if bottom else [], fontsize=size, rotation=rotation)
    axes.set_yticks(range(len(names)), names if left else [], fontsize=size)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
