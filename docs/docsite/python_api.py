"""The Python API: what people import, with typed signatures and docstrings, from the package itself."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import llm_sql
from llm_sql import errors, graph, server, types

from . import ROOT, UndocumentedError
from .markup import block, code, hidden_toctree, page, prose, table
from .sql_pages import Names, anchor, meanings

CLASSES = {
    "models": ("LanguageModel", "AsyncLanguageModel"),
    "clients": ("PGLLMClient", "AsyncPGLLMClient"),
    "results": ("StreamEvent", "BeamResult", "Evaluation", "Recall", "FineTuning", "Progress"),
}
TITLES = {
    "models": ("Models", "Over a SQLAlchemy `Session` or `AsyncSession`; import them from `llm_sql`."),
    "clients": (
        "Clients without SQLAlchemy",
        "Over a psycopg connection; import them from `pg_llm_client` or `llm_sql`.",
    ),
    "results": ("Results", "What the methods return and yield; import them from `llm_sql`."),
}
WIDTH = 88


def pages() -> tuple[dict[str, str], Names]:
    silent: list[str] = []
    written: dict[str, str] = {}
    names: Names = {}

    def put(file: str, title: str, intro: str, entries: list[tuple[str, str]]) -> None:
        written[f"python/{file}"] = page(title, intro, *(text for _, text in entries))
        for name, _ in entries:
            names.setdefault(name, (f"reference/python/{file}", anchor(name)))

    for file, members in CLASSES.items():
        put(file, *TITLES[file], [(name, _class(name, getattr(llm_sql, name), silent)) for name in members])
        for name in members:
            for method, _ in _methods(getattr(llm_sql, name)):
                full = f"{name}.{method}"
                names[full] = (f"reference/python/{file}", anchor(full))
    written["python/functions"] = _functions()
    # The entries of these are their own: `select` or `model` in running text means something else.
    written["python/graph"] = page("llm_sql.graph", *docstring(graph), *_members(graph, silent))
    written["python/types"] = page("llm_sql.types", *docstring(types), *_members(types, silent))
    written["python/server"] = page("llm_sql.server", *docstring(server), *_members(server, silent))
    written["python/errors"] = page("llm_sql.errors", *docstring(errors), *_errors(silent))
    names |= {
        name: ("reference/python/errors", anchor(name))
        for name in vars(errors)
        if inspect.isclass(getattr(errors, name))
    }
    if silent:
        raise UndocumentedError(f"without a docstring: {', '.join(sorted(set(silent)))}")
    order = [*CLASSES, "functions", "graph", "types", "server", "errors"]
    written["python/index"] = page("Python", *docstring(llm_sql), hidden_toctree(order))
    return written, names


def docstring(thing: Any) -> list[str]:
    """The paragraphs of a docstring; indented ones are code, or stay in their columns."""
    found: list[str] = []
    text = inspect.cleandoc(thing.__doc__ or "")
    for part in re.split(r"\n\s*\n(?=\S)", text):
        lead, _, rest = part.partition("\n\n")
        for piece in filter(None, [lead, rest]):
            lines = piece.splitlines()
            if all(line.startswith("    ") or not line for line in lines):
                found.append(block("python", textwrap.dedent(piece).strip()))
            elif any(re.match(r"\S.*\S {3,}\S", line) for line in lines):
                found.append(block("text", piece))
            else:
                found.append(prose(" ".join(piece.split())))
    return found


def _first(thing: Any) -> str:
    return docstring(thing)[0] if thing.__doc__ else ""


# ---- classes ----


def _methods(owner: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(owner).items():
        if not name.startswith("_"):
            inner = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            if inspect.isfunction(inner):
                yield name, getattr(owner, name)


def _class(name: str, owner: Any, silent: list[str]) -> str:
    parts = [f"## `{name}`"]
    if not owner.__doc__ or owner.__doc__.startswith(f"{owner.__name__}("):
        silent.append(name)
    if dataclasses.is_dataclass(owner):
        parts += docstring(owner)
        fields = ([code(f.name), code(_annotation(f.type))] for f in dataclasses.fields(owner))
        parts.append(table(["field", "type"], fields))
    else:
        parts += [block("python", signature(f"class {name}", owner.__init__, bound=True)), *docstring(owner)]
    for method, value in _methods(owner):
        if not value.__doc__:
            # The asynchronous twin of a documented method; or what a library calls, which is no interface.
            twin = getattr(getattr(llm_sql, name.removeprefix("Async"), None), method, None)
            if twin is None:
                continue
            if not twin.__doc__:
                silent.append(f"{name}.{method}")
            value = twin
        shown = list(inspect.signature(getattr(owner, method)).parameters)
        parts += [f"### `{name}.{method}`", block("python", _method_signature(owner, method))]
        parts += [*docstring(value), meanings(shown)]
    return "\n\n".join(filter(None, parts))


def _method_signature(owner: Any, name: str) -> str:
    raw = vars(owner)[name]
    function = raw.__func__ if isinstance(raw, (classmethod, staticmethod)) else raw
    prefix = "@classmethod\n" if isinstance(raw, classmethod) else ""
    return prefix + signature(name, function, bound=not isinstance(raw, staticmethod))


def signature(name: str, function: Callable[..., Any], *, bound: bool = False) -> str:
    """As a stub would have it, an argument a line where it is long."""
    shape = inspect.signature(function)
    parameters = list(shape.parameters.values())[1 if bound else 0 :]
    asynchronous = inspect.iscoroutinefunction(function)
    head = "" if name.startswith("class ") else "async def " if asynchronous else "def "
    returns = ""
    if shape.return_annotation is not shape.empty and head:
        returns = f" -> {_annotation(shape.return_annotation)}"
    declared = []
    star = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            declared.append("*")
            star = True
        star = star or parameter.kind is parameter.VAR_POSITIONAL
        declared.append(_parameter(parameter))
    short = f"{head}{name}({', '.join(declared)}){returns}"
    if len(short) <= WIDTH:
        return short
    return "\n".join([f"{head}{name}(", *(f"    {text}," for text in declared), f"){returns}"])


def _parameter(parameter: inspect.Parameter) -> str:
    star = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
    text = f"{star}{parameter.name}"
    typed = parameter.annotation is not parameter.empty
    if typed:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f"{' = ' if typed else '='}{_value(parameter.default)}"
    return text


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", text)
    return text.replace("NoneType", "None").replace("ndarray[Any, dtype[float32]]", "NDArray[float32]")


def _value(value: Any) -> str:
    text = repr(value)
    return "..." if text.startswith("<") else text


# ---- modules ----


def _members(module: Any, silent: list[str]) -> list[str]:
    """An entry for each function and class that a module gives, a table of its other values."""
    functions, classes, values = [], [], []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            classes.append(_class(name, value, silent if value.__module__.startswith("llm_sql") else []))
        elif inspect.isroutine(value):
            if not value.__doc__:
                silent.append(f"{module.__name__}.{name}")
            functions.append(
                "\n\n".join([f"## `{name}`", block("python", signature(name, value)), *docstring(value)])
            )
        else:
            values.append(name)
    parts = [*functions, *classes]
    if values:
        parts += ["## Values", ", ".join(code(name) for name in values) + "."]
    return parts


def _errors(silent: list[str]) -> list[str]:
    rows = []
    for name, value in vars(errors).items():
        if inspect.isclass(value) and value.__module__ == errors.__name__:
            if not value.__doc__:
                silent.append(name)
            base = value.__bases__[0].__name__
            exit_code = str(getattr(value, "exit_code", ""))
            rows.append([f"## `{name}`", "\n\n".join(docstring(value)), f"Base: {code(base)}."])
            if exit_code:
                rows[-1].append(f"Exit code of the command line: {exit_code}.")
    return ["\n\n".join(row) for row in rows]


def _functions() -> str:
    """llm_sql.functions by its stub, which has the types."""
    stub = (ROOT / "llm_sql" / "functions.pyi").read_text(encoding="utf-8")
    titles = {
        number: line.strip("# -").strip()
        for number, line in enumerate(stub.splitlines(), 1)
        if line.startswith("# ---- ")
    }
    entries: list[tuple[int, str]] = [
        (number, f"## {title[0].upper()}{title[1:]}") for number, title in titles.items()
    ]
    seen: set[str] = set()
    for node in ast.parse(stub).body:
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Expr(ast.Constant(...))]
            text = ast.unparse(node).removesuffix("\n    ...").removeprefix("@overload\n").rstrip(":")
            if len(text) > WIDTH:
                inside, end = text[: text.rindex(") -> ")], text[text.rindex(") -> ") :]
                head, _, rest = inside.partition("(")
                arguments = "".join(f"    {one},\n" for one in re.split(r", (?=\w+: )", rest))
                text = f"{head}(\n{arguments}{end}"
            heading = [] if node.name in seen else [f"### Function `{node.name}`"]
            seen.add(node.name)
            entries.append((node.lineno, "\n\n".join([*heading, block("python", text)])))
    intro = (
        "Every function of the database that people call, as a function that builds a SQLAlchemy expression,"
        " with the same arguments by position or name; `functions.generate` is short for"
        " `functions.llm_generate`. The [SQL reference](../sql/index.md) says what each does. An argument may"
        " be a Python value, a column or any other expression. Functions that return rows give something to"
        " select from: `rows.c.text`."
    )
    return page("llm_sql.functions", intro, *(text for _, text in sorted(entries)))
