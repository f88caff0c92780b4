"""Options by name: what help() and editors show of a method's, and what an unknown one is told."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from llm_sql.options import DEFAULTS

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

__all__ = ["Unpack", "given", "not_none", "takes"]

Method = TypeVar("Method", bound=Callable[..., Any])


def takes(options: type) -> Callable[[Method], Method]:
    """For a method with `**options: Unpack[...]` of this class: its signature shows each option's type and
    default.
    """

    def decorate(method: Method) -> Method:
        signature = inspect.signature(method, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        by_name = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for (name, (_, default)), annotation in zip(
                DEFAULTS[options.__name__].items(), options.__annotations__.values(), strict=True
            )
        ]
        shown = signature.replace(parameters=[*own, *by_name])
        method.__signature__ = shown  # type: ignore[attr-defined]
        method.__annotations__ = {
            **{name: p.annotation for name, p in shown.parameters.items() if p.annotation is not p.empty},
            "return": shown.return_annotation,
        }
        return method

    return decorate


def given(options: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of options of this class, without those that are None: these have the database's defaults.

    TypeError for a name that is no option.
    """
    known = DEFAULTS[options.__name__]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise TypeError(f"unexpected option {', '.join(map(repr, unknown))}; options are {', '.join(known)}")
    return not_none(values)


def not_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
