"""The SQL reference: functions that people call, the schema's inner ones, the extension's, relations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from llm_sql.models import functions, metadata, views
from llm_sql.models.arguments import LISTS
from llm_sql.models.codegen import CATALOGUE
from llm_sql.models.objects import parse_script

from . import ROOT, UndocumentedError
from .catalog import Catalog, Parameter, Relation, Routine
from .markup import block, code, hidden_toctree, page, paragraphs, prose, table

EXTENSION = ROOT / "kernels" / "postgres"
# The extension's rooms by page; a room that is not here is an error of the build.
ROOMS = {
    "ops": "Operations",
    "tensor": "The type tensor",
    "bytea": "Operations on bytea",
    "autograd": "The tape",
    "params": "Parameters in memory",
    "shared": "Shared weights",
    "generation": "Generations",
    "training": "Optimizer and batches",
    "tokenizer": "Tokenizers in memory",
    "files": "Files",
    "session": "Session",
    "": "Library",
}
_DECLARED = re.compile(
    r"^CREATE (?:OR REPLACE )?(?:FUNCTION|AGGREGATE) (?:public\.)?(\w+)\s*\(", re.MULTILINE
)
_FIRST_LINE = re.compile(r"\A-- (.+)")
Names = dict[str, tuple[str, str]]


def pages(catalog: Catalog) -> tuple[dict[str, str], Names]:
    """MyST pages by name below reference/sql, and for each name in them its page and anchor."""
    by_name = {name: list(found) for name, found in groupby(catalog.routines, lambda r: r.name)}
    sections = {title: names.split() for title, names in CATALOGUE.items()}
    public = {name for names in sections.values() for name in names}
    written: dict[str, str] = {}
    names: Names = {}

    def put(file: str, text: str, entries: Iterable[str]) -> None:
        written[file] = text
        for name in entries:
            names.setdefault(name, (f"reference/sql/{file}", anchor(name)))

    for title, members in sections.items():
        missing = [name for name in members if name not in by_name]
        if missing:
            raise UndocumentedError(f"models/codegen.py lists what the database does not have: {missing}")
        put(slug(title), _functions(title, [by_name[name] for name in members]), members)
    relations = {relation.name: relation for relation in catalog.relations}
    put("tables", _relations(relations), relations)

    rooms = _rooms()
    tensor = [by_name[name] for name in rooms["tensor"] if name in by_name and name not in public]
    put("tensor", _tensor(catalog, tensor), [found[0].name for found in tensor])
    done = public | rooms["tensor"]
    for room, title in ROOMS.items():
        members = sorted(name for name in rooms[room] if name in by_name and name not in done)
        if members:
            file = f"extension-{room or 'library'}"
            put(file, _functions(title, [by_name[name] for name in members], EXTENSION_NOTE), members)
            done |= set(members)
    subjects = _subjects()
    inner = {
        heading: sorted(name for name in members if name in by_name and name not in done)
        for heading, members in subjects.items()
    }
    put("inner", _inner(inner, by_name), [name for members in inner.values() for name in members])
    done |= {name for members in inner.values() for name in members}
    left = by_name.keys() - done
    if left:
        raise UndocumentedError(
            f"functions that no source file of models/ or kernels/postgres declares: {sorted(left)}"
        )
    # Everyday words, which in running text mean something else (sum, shape).
    names = {name: place for name, place in names.items() if "_" in name}
    names["tensor"] = ("reference/sql/tensor", "the-type-tensor")
    written["index"] = _index(sections, written)
    return written, names


INNER_NOTE = (
    "Functions that the others call. They are no interface: names and arguments may change with any version."
    " They are listed because a log or the CONTEXT of an error may name them."
)
EXTENSION_NOTE = "From the extension pg_llm, written in C."


def anchor(name: str) -> str:
    """The id that Sphinx gives a heading."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


slug = anchor


def _index(sections: dict[str, list[str]], written: dict[str, str]) -> str:
    extension = [file for file in written if file.startswith("extension-")]
    people = table(
        ["what", "functions"],
        (
            [f"[{title[0].upper() + title[1:]}]({slug(title)}.md)", ", ".join(code(name) for name in members)]
            for title, members in sections.items()
        ),
    )
    return page(
        "SQL",
        "Everything of ours in a provisioned database, with the comments from its catalog. All of it is in"
        " the schema `public`. Who may execute a function is told as provisioning grants it.",
        "## Functions that people call",
        people,
        "## The rest",
        "Tables and views, the type `tensor` with its operators and casts, the functions of the extension,"
        " and what the functions above are made of.",
        hidden_toctree([*(slug(title) for title in sections), "tables", "tensor", *extension, "inner"]),
    )


# ---- functions ----


def _functions(title: str, groups: list[list[Routine]], note: str = "") -> str:
    return page(title[0].upper() + title[1:], paragraphs(note), *(_entry(group, "##") for group in groups))


def _inner(subjects: dict[str, list[str]], by_name: dict[str, list[Routine]]) -> str:
    parts = [paragraphs(INNER_NOTE)]
    for heading, names in subjects.items():
        if names:
            parts += [f"## {heading}", *(_entry(by_name[name], "###") for name in names)]
    return page("Inner functions", *parts)


def _entry(overloads: list[Routine], level: str) -> str:
    """A function with all its overloads."""
    parts = [f"{level} `{overloads[0].name}`"]
    for routine in overloads:
        parts += [block("sql", signature(routine)), paragraphs(routine.comment or "")]
    parts.append(meanings([parameter.name for parameter in overloads[0].parameters]))
    executors = {routine.executors for routine in overloads}
    if len(executors) == 1:
        parts.append(_executors(overloads[0]))
    else:
        parts += [f"{code(routine.identity)}: {_executors(routine)}" for routine in overloads]
    return "\n\n".join(filter(None, parts))


def _executors(routine: Routine) -> str:
    if "PUBLIC" in routine.executors:
        return "Executed by every role."
    if not routine.executors:
        return "Executed by its owner, and by those to whom the owner grants it."
    return f"Executed by {', '.join(code(role) for role in routine.executors)}."


def signature(routine: Routine) -> str:
    """As CREATE FUNCTION writes it."""
    inputs = [parameter for parameter in routine.parameters if not parameter.out]
    outputs = [parameter for parameter in routine.parameters if parameter.out]
    if routine.operation == "PROCEDURE":
        returns = ""
    elif outputs:
        columns = ", ".join(f"{parameter.name} {parameter.type}" for parameter in outputs)
        returns = f" RETURNS {'TABLE ' if routine.returns.startswith(('TABLE', 'SETOF')) else ''}({columns})"
    else:
        returns = f" RETURNS {routine.returns}"
    head = f"{routine.operation} {routine.name}("
    short = head + ", ".join(_declared(parameter) for parameter in inputs) + f"){returns}"
    if len(short) <= 88:
        return short
    lines = [
        f"    {_declared(parameter)}{',' if parameter is not inputs[-1] else ''}" for parameter in inputs
    ]
    return "\n".join([head, *lines, f"){returns}"])


def _declared(parameter: Parameter) -> str:
    default = "" if parameter.default is None else f" DEFAULT {_plain(parameter.default)}"
    return f"{parameter.name} {parameter.type}{default}".strip()


def _plain(default: str) -> str:
    """A default without the cast that the catalog adds."""
    return re.sub(r"^('(?:[^']|'')*'|NULL)::[\w ]+(?:\[\])?$", r"\1", default)


def meanings(names: list[str]) -> str:
    """What models/arguments.py says of arguments that functions share, as a table; empty for others."""
    shared = "sampling" if "temperature" in names else "hyperparameters" if "lr_max" in names else None
    known = {argument.name: argument.doc for argument in LISTS[shared]} if shared else {}
    rows = [[code(name), prose(known[name])] for name in names if name in known]
    return table(["argument", "meaning"], rows) if rows else ""


# ---- where functions are declared ----


def _rooms() -> dict[str, set[str]]:
    """The functions of each folder of the extension, and of its own script."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for script in sorted(EXTENSION.rglob("*.sql")):
        room = "" if script.parent == EXTENSION else script.parent.relative_to(EXTENSION).parts[0]
        if room == "build" or script.name.startswith("pg_llm--"):
            continue
        if room not in found:
            raise UndocumentedError(
                f"docs/docsite/sql_pages.py: ROOMS has no title for kernels/postgres/{room}"
            )
        found[room] |= set(_DECLARED.findall(script.read_text(encoding="utf-8")))
    return found


def _subjects() -> dict[str, list[str]]:
    """The routines of each file of models/functions, by what its first line says."""
    found: dict[str, list[str]] = {}
    for name, text in (*functions.sources(), *views.sources()):
        line = _FIRST_LINE.match(text)
        told = line[1].split(":")[0].split(". ")[0].rstrip(".") if line else name
        heading = told if not told.startswith("Compiled from") else "Forward passes of the architectures"
        found.setdefault(heading, []).extend(
            item.name for item in parse_script(text, name) if item.is_routine
        )
    return {heading: sorted(set(members)) for heading, members in found.items()}


# ---- relations ----


def _relations(relations: dict[str, Relation]) -> str:
    modules: dict[str, list[Relation]] = {}
    for mapper in metadata.sorted_tables:
        if mapper.name in relations:
            modules.setdefault("Tables", []).append(relations[mapper.name])
    listed = {relation.name for relation in modules["Tables"]}
    others = [relation for relation in relations.values() if relation.name not in listed]
    views = [relation for relation in others if relation.kind == "view"]
    tables = [relation for relation in others if relation.kind == "table"]
    parts: list[str] = []
    for heading, members in (("Tables", [*modules["Tables"], *tables]), ("Views", views)):
        overview = table(["name", "what it holds"], ([code(r.name), prose(r.comment or "")] for r in members))
        parts += [f"## {heading}", overview, *(_relation(relation) for relation in members)]
    return page("Tables and views", *parts)


def _relation(relation: Relation) -> str:
    view = relation.kind == "view"
    head = ["column", "type", "meaning"] if view else ["column", "type", "null", "default", "meaning"]

    rows = [
        [code(c.name), code(c.type), prose(c.comment or "")]
        if view
        else [
            code(c.name), code(c.type), "yes" if c.nullable else "no", code(_plain(c.default or "")),
            prose(c.comment or ""),
        ]
        for c in relation.columns
    ]  # fmt: skip
    rights = "; ".join(f"{code(role)}: {', '.join(names)}" for role, names in relation.rights)
    return "\n\n".join(
        part
        for part in (
            f"### `{relation.name}`",
            paragraphs((relation.comment or "")[0].upper() + (relation.comment or "")[1:] + "."),
            table(head, rows),
            "\n".join(f"- `{constraint}`" for constraint in relation.constraints),
            f"Granted to {rights}." if rights else "Granted to nobody but its owner.",
        )
        if part
    )


# ---- tensor ----


def _tensor(catalog: Catalog, groups: list[list[Routine]]) -> str:
    aggregates = [group for group in groups if group[0].kind == "a"]
    others = [group for group in groups if group[0].kind != "a"]
    return page(
        "The type tensor",
        *(f"`{name}`: {prose(comment or '')}." for name, comment in catalog.types),
        "## Operators",
        table(
            ["expression", "result", "meaning"],
            ([code(o.expression), code(o.result), prose(o.comment or "")] for o in catalog.operators),
        ),
        "## Casts",
        table(
            ["from", "to", "applied", "meaning"],
            ([code(c.source), code(c.target), c.context, prose(c.comment or "")] for c in catalog.casts),
        ),
        "## Aggregates",
        *(_entry(group, "###") for group in aggregates),
        "## Functions",
        *(_entry(group, "###") for group in others),
    )
