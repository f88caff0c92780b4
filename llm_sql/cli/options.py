"""Options of commands that come from the declared arguments (models/arguments.py): names, types, help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

import typer

from llm_sql.models.arguments import Argument

Command = TypeVar("Command", bound=Callable[..., Any])

_TYPES: dict[str, Any] = {
    "bigint": int,
    "boolean": bool,
    "double precision": float,
    "int": int,
    "text": str,
    "text[]": list[str],
}


def flags_of(argument: Argument) -> tuple[str, ...]:
    """What it is called on the command line; a boolean can be denied, too."""
    declared = argument.name.replace("_", "-")
    if argument.type == "boolean":
        return (f"--{declared}/--no-{declared}",)
    return argument.flags or (f"--{declared}",)


def _parameter(argument: Argument) -> inspect.Parameter:
    """An option that is None unless given: then the database's default holds, which the help shows."""
    help_ = argument.doc[0].upper() + argument.doc[1:]
    if argument.type == "text[]":
        help_ += "; may be repeated"
    help_ += "."
    if argument.default != "NULL":
        help_ += f"  [default: {_shown(argument)}]"
    option = typer.Option(*flags_of(argument), help=help_, show_default=False)
    annotation = Annotated[_TYPES[argument.type] | None, option]  # type: ignore[valid-type, name-defined]
    return inspect.Parameter(
        argument.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _shown(argument: Argument) -> str:
    if argument.type == "boolean":
        return (
            argument.name.replace("_", "-")
            if argument.default == "true"
            else f"no-{argument.name.replace('_', '-')}"
        )
    return argument.default.strip("'")


def options_of(arguments: Iterable[Argument]) -> Callable[[Command], Command]:
    """For a command with `**options`: the arguments as its options, before --url and --json."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [
            parameter.replace(kind=parameter.KEYWORD_ONLY)
            for parameter in signature.parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        last = [parameter for parameter in own if parameter.name in ("url", "json_")]
        first = [parameter for parameter in own if parameter not in last]
        shown = signature.replace(parameters=[*first, *map(_parameter, arguments), *last])
        command.__signature__ = shown  # type: ignore[attr-defined]
        # Typer resolves these, and knows no TypedDict.
        command.__annotations__ = {name: p.annotation for name, p in shown.parameters.items()}
        return command

    return decorate
