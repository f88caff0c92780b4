"""The relations as an entity-relationship diagram, made from what models/ declares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from llm_sql.models import metadata

from .files import BLACK, BLUE, GREY, LIGHT, ORANGE, STILLS, check_target, new_figure, save, style

FORMATS = STILLS
SHORT_TYPES = {
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "DOUBLE PRECISION": "double_precision",
    "PUBLIC.TENSOR": "tensor",
    "INTEGER": "int",
    "INTEGER[]": "int[]",
    "BIGINT[]": "bigint[]",
}
# The picture's columns, from left to right; a table that is not named here comes last.
COLUMNS = (
    ("llm_arch", "llm_model_config", "llm_tokenizer", "llm_bpe_vocab", "llm_bpe_merges"),
    ("llm_param", "llm_adapter", "llm_dataset", "llm_dataset_load", "llm_checkpoint"),
    ("llm_train_run", "llm_train_log", "llm_clip", "llm_eval_log"),
    ("llm_tape", "llm_tensor_rt", "llm_tensor_map", "llm_tensor"),
)


# What a diagram shows at a time, so that it can be read: a page's diagrams are these.
PARTS = {"models": COLUMNS[0] + COLUMNS[1], "training": COLUMNS[2], "tape": COLUMNS[3]}


@dataclass(frozen=True)
class Link:
    """Columns of `table` that name a row of `refers_to`. declared: by a foreign key; else by value alone.

    optional: the row named may be missing or the columns NULL. many: several rows may name the same one.
    """

    table: str
    columns: tuple[str, ...]
    refers_to: str
    referred: tuple[str, ...]
    declared: bool = False
    optional: bool = False
    many: bool = True


# What no constraint holds: logs and data outlive what they name, or come before it, and a tape is to be
# cheap.
BY_NAME = (
    *(
        Link(table, ("model",), "llm_model_config", ("model",), optional=True)
        for table in (
            "llm_bpe_vocab",
            "llm_bpe_merges",
            "llm_dataset",
            "llm_dataset_load",
            "llm_checkpoint",
            "llm_train_run",
            "llm_train_log",
            "llm_eval_log",
            "llm_tape",
            "llm_tensor",
        )
    ),
    Link("llm_tokenizer", ("model",), "llm_model_config", ("model",), optional=True, many=False),
    Link("llm_tape", ("run",), "llm_train_run", ("run_id",), optional=True),
    Link("llm_tape", ("output",), "llm_tensor_rt", ("id",), many=False),
    Link("llm_tape", ("inputs",), "llm_tensor_rt", ("id",)),
    Link("llm_tensor_rt", ("run",), "llm_train_run", ("run_id",), optional=True),
    Link("llm_tensor_map", ("tensor_id",), "llm_tensor_rt", ("id",)),
    Link(
        "llm_tensor_map",
        ("model", "name", "token_id"),
        "llm_param",
        ("model", "name", "token_id"),
        optional=True,
        many=False,
    ),
)


def tables() -> list[Table]:
    """The tables in the picture's order."""
    order = [name for column in COLUMNS for name in column]
    known = {table.name: table for table in metadata.tables.values()}
    return [known[name] for name in order if name in known] + [
        known[name] for name in sorted(known) if name not in order
    ]


def links() -> list[Link]:
    """Foreign keys, then what is linked by name."""
    found = []
    for table in tables():
        for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name)):
            columns = tuple(column.name for column in key.columns)
            found.append(
                Link(
                    table.name,
                    columns,
                    key.referred_table.name,
                    tuple(element.column.name for element in key.elements),
                    declared=True,
                    optional=any(bool(column.nullable) for column in key.columns),
                )
            )
    return [*found, *BY_NAME]


def type_of(column: Any) -> str:
    """The column's type in one short word."""
    name = str(column.type.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    return SHORT_TYPES.get(name.upper(), name.lower().replace(" ", "_"))


def keys_of(table: Table, column: Any) -> list[str]:
    """PK and FK, as they apply to the column."""
    keys = ["PK"] if column.primary_key else []
    return keys + (["FK"] if column.foreign_keys else [])


def mermaid(part: str | None = None) -> str:
    """The diagram in Mermaid's language: solid lines are foreign keys, dashed ones link by value alone.

    part: one of PARTS; tables of other parts that it names are boxes without columns.
    """
    shown = PARTS[part] if part else tuple(table.name for table in tables())
    result = ["erDiagram", "    direction LR"]
    for link in links():
        if link.table not in shown:
            continue
        parent = "|o" if link.optional else "||"
        child = "o{" if link.many else "o|"
        line = "--" if link.declared else ".."
        result.append(
            f'    {link.refers_to} {parent}{line}{child} {link.table} : "{", ".join(link.columns)}"'
        )
    for table in tables():
        if table.name not in shown:
            continue
        result.append(f"    {table.name} {{")
        for column in table.columns:
            keys = ", ".join(keys_of(table, column))
            result.append(f"        {type_of(column)} {column.name}{f' {keys}' if keys else ''}")
        result.append("    }")
    return "\n".join(result) + "\n"


def lines() -> list[str]:
    """The relations and their links as text."""
    result = []
    every = links()
    for table in tables():
        key = ", ".join(column.name for column in table.primary_key.columns)
        result.append(f"{table.name} ({key}): {table.comment or ''}")
        for link in every:
            if link.table == table.name:
                how = "foreign key" if link.declared else "by name"
                result.append(
                    f"    {', '.join(link.columns)} -> {link.refers_to}({', '.join(link.referred)}), {how}"
                )
    return result


def as_json() -> dict[str, Any]:
    return {
        "tables": [
            {
                "name": table.name,
                "comment": table.comment,
                "columns": [
                    {
                        "name": column.name,
                        "type": type_of(column),
                        "keys": keys_of(table, column),
                        "nullable": bool(column.nullable),
                        "comment": column.comment,
                    }
                    for column in table.columns
                ],
            }
            for table in tables()
        ],
        "links": [link.__dict__ for link in links()],
    }


# ---- drawing: a box per table, a line per link; one unit is a line of text ----

BOX_WIDTH, GAP_X, GAP_Y = 25.0, 9.0, 2.0


def draw(path: Path) -> None:
    """The diagram into a .png, .svg or .pdf file."""
    check_target(path, FORMATS, "the diagram of the schema")
    places = _places()
    width = max(x for x, _, _ in places.values()) + BOX_WIDTH + GAP_X * 0.6
    height = max(y + h for _, y, h in places.values()) + 2.5
    with style():
        figure = new_figure(width * 0.118, height * 0.118 * 1.3)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(-1, width)
        axes.set_ylim(height, -1)
        axes.axis("off")
        # A model's name stands in nearly every table: those lines would hide the others.
        drawn = [link for link in links() if link.declared or link.refers_to != "llm_model_config"]
        lanes = _lanes(drawn, places)
        for link in drawn:
            _draw_link(axes, link, places, lanes[link])
        for table in tables():
            _draw_table(axes, table, places[table.name])
        axes.plot([], [], color=BLUE, label="foreign key")
        axes.plot([], [], color=ORANGE, linestyle="--", label="by value, without a constraint")
        axes.plot([], [], color="none", label="`model` names a row of llm_model_config everywhere")
        axes.legend(loc="lower left", ncols=3, frameon=False, fontsize=9, handlelength=2.5)
        save(figure, path)


def _places() -> dict[str, tuple[float, float, float]]:
    """x, y and height of each table's box."""
    column_of = {name: number for number, column in enumerate(COLUMNS) for name in column}
    bottom: dict[int, float] = {}
    places = {}
    for table in tables():
        column = column_of.get(table.name, len(COLUMNS) - 1)
        y = bottom.get(column, 0.0)
        height = len(table.columns) + 1.4
        places[table.name] = (column * (BOX_WIDTH + GAP_X), y, height)
        bottom[column] = y + height + GAP_Y
    return places


def _row_of(link_table: str, column: str, places: dict[str, tuple[float, float, float]]) -> float:
    """The height at which a column is written."""
    table = next(t for t in tables() if t.name == link_table)
    return places[link_table][1] + 1.9 + [c.name for c in table.columns].index(column)


def _lanes(drawn: list[Link], places: dict[str, tuple[float, float, float]]) -> dict[Link, float]:
    """How far right of a column of boxes each link runs: lines in the same gap beside each other."""
    gaps: dict[float, list[Link]] = {}
    for link in drawn:
        gaps.setdefault(min(places[link.table][0], places[link.refers_to][0]), []).append(link)
    return {
        link: 1.2 + number * min(1.0, (GAP_X - 3.0) / len(members))
        for members in gaps.values()
        for number, link in enumerate(members)
    }


def _draw_link(axes: Any, link: Link, places: dict[str, tuple[float, float, float]], lane: float) -> None:
    """A line from the columns to the columns they name, along the gaps between the boxes."""
    from_x, to_x = places[link.table][0], places[link.refers_to][0]
    from_y = _row_of(link.table, link.columns[0], places)
    to_y = _row_of(link.refers_to, link.referred[0], places)
    colour, dashes = (BLUE, "-") if link.declared else (ORANGE, "--")
    if from_x == to_x:
        bend = from_x + BOX_WIDTH + lane
        xs = [from_x + BOX_WIDTH, bend, bend, to_x + BOX_WIDTH]
        ys = [from_y, from_y, to_y, to_y]
    elif from_x > to_x:
        bend = to_x + BOX_WIDTH + lane
        if from_x - to_x > BOX_WIDTH + GAP_X:  # over a column between: along the top
            near = from_x - lane
            xs = [from_x, near, near, bend, bend, to_x + BOX_WIDTH]
            ys = [from_y, from_y, -0.7, -0.7, to_y, to_y]
        else:
            xs, ys = [from_x, bend, bend, to_x + BOX_WIDTH], [from_y, from_y, to_y, to_y]
    else:
        bend = from_x + BOX_WIDTH + lane
        xs, ys = [from_x + BOX_WIDTH, bend, bend, to_x], [from_y, from_y, to_y, to_y]
    axes.plot(xs, ys, color=colour, linestyle=dashes, linewidth=1.1, zorder=1)
    axes.plot(xs[-1], ys[-1], marker="o", markersize=3.5, color=colour, zorder=3)


def _draw_table(axes: Any, table: Table, place: tuple[float, float, float]) -> None:
    from matplotlib.patches import Rectangle

    x, y, height = place
    axes.add_patch(Rectangle((x, y), BOX_WIDTH, height, facecolor="white", edgecolor=GREY, zorder=2))
    axes.add_patch(Rectangle((x, y), BOX_WIDTH, 1.2, facecolor="#dceaf5", edgecolor=GREY, zorder=2))
    axes.text(x + 0.4, y + 0.65, table.name, fontsize=9.5, weight="bold", va="center", color=BLACK, zorder=4)
    for number, column in enumerate(table.columns):
        at = y + 1.9 + number
        keys = "/".join(keys_of(table, column))
        axes.text(x + 0.4, at, column.name, fontsize=8, va="center", zorder=4)
        axes.text(x + 20.6, at, type_of(column), fontsize=7, va="center", ha="right", color=GREY, zorder=4)
        axes.text(x + 21.1, at, keys, fontsize=6.5, va="center", color=BLUE, zorder=4)
    axes.plot([x, x + BOX_WIDTH], [y + 1.2, y + 1.2], color=LIGHT, linewidth=0.5, zorder=3)
