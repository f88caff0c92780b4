"""The commands of llm-sql: every argument, option, default and environment variable, as Typer holds them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer

from llm_sql.cli import app

from . import UndocumentedError
from .markup import block, code, page, paragraphs, prose, table
from .sql_pages import Names, anchor

KINDS = {int: "integer", str: "text", float: "number", bool: "boolean", Path: "path"}


def pages() -> tuple[dict[str, str], Names]:
    root = typer.main.get_command(app)
    commands = list(_commands(root, "llm-sql"))
    silent = [path for path, command in commands if not (command.help or "").strip()]
    if silent:
        raise UndocumentedError(f"commands without a help text: {', '.join(silent)}")
    overview = table(
        ["command", "what it does"],
        ([code(path), prose(_first_sentence(command.help))] for path, command in commands),
    )
    text = page(
        "Command line",
        paragraphs(root.help or ""),
        "`llm-sql COMMAND --help` shows the same. Where an option names an environment variable, the"
        " variable's value is taken when the option is not given. [Errors](errors.md) lists the exit codes.",
        overview,
        *(_entry(path, command) for path, command in commands),
    )
    names = {path: ("reference/command-line", anchor(path)) for path, _ in commands}
    return {"command-line": text}, names


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, groups left out."""
    inner = getattr(command, "commands", None)
    if inner is None:
        if not command.hidden:
            yield path, command
        return
    for name, each in inner.items():
        yield from _commands(each, f"{path} {name}")


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")


def _entry(path: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *(_usage(a) for a in arguments)])
    parts = [f"## `{path}`", block("text", usage), paragraphs(command.help)]
    if arguments:
        rows = [[code(_usage(a)), prose(a.help or ""), _default(a)] for a in arguments]
        parts.append(table(["argument", "meaning", "default"], rows))
    if options:
        rows = [
            [_flags(o), code(_values(o)), prose(o.help or ""), _default(o), code(_variable(o))]
            for o in options
        ]
        variable = any(row[4] for row in rows)
        head = ["option", "value", "meaning", "default", "variable"]
        parts.append(table(head if variable else head[:4], rows if variable else [row[:4] for row in rows]))
    return "\n\n".join(parts)


def _usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _flags(option: Any) -> str:
    return ", ".join(code(flag) for flag in [*option.opts, *option.secondary_opts])


def _values(option: Any) -> str:
    """What follows the option: its choices, or the kind of value."""
    if option.is_flag:
        return ""
    kind = getattr(option, "type", None)
    if kind is not None:  # Typer on click
        choices = getattr(kind, "choices", None)
        return ", ".join(str(getattr(c, "value", c)) for c in choices) if choices else str(kind.name)
    annotation = option.type_descriptor.annotation
    inner = [each for each in get_args(annotation) if each is not type(None)]
    while inner and any(isinstance(each, type) for each in inner):
        annotation = inner[0]
        inner = [each for each in get_args(annotation) if each is not type(None)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        inner = [each.value for each in annotation]
    return ", ".join(map(str, inner)) or KINDS.get(annotation, annotation.__name__.lower())


def _default(parameter: Any) -> str:
    value = parameter.default
    if isinstance(parameter.show_default, str):
        return code(parameter.show_default)
    if value is None or value is False or value == () or callable(value):
        return "required" if parameter.required else ""
    return code(str(getattr(value, "value", value)))


def _variable(option: Any) -> str:
    return option.envvar if isinstance(option.envvar, str) else ", ".join(option.envvar or ())
