"""Writes functions.py, functions.pyi and options.py from what models/ declares; migrations.freeze runs it.

The catalogue names the functions that people call; their signatures and comments are those of
models/functions. A test holds the written files current.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .arguments import CHAT, HYPERPARAMETERS, LISTS, SAMPLING, Argument
from .signatures import Column, Routine, routines

# Where the modules go; found without importing what they are about.
HERE = Path(str(getattr(find_spec("llm_sql"), "origin", None))).parent
WIDTH = 110

CATALOGUE = {
    "models": (
        "llm_create_model llm_create_adapter llm_recognise_base llm_init_model llm_drop_model llm_copy_model"
        " llm_rename_model llm_default_model llm_parameters llm_write_cost"
    ),
    "the forward pass": (
        "llm_forward llm_forward_gpt2 llm_forward_gpt3 llm_forward_microgpt llm_forward_llama"
        " llm_forward_neox llm_forward_opt llm_logits llm_loss llm_weight llm_hidden llm_embed_text"
        " llm_perplexity llm_evaluate llm_log_evaluation llm_elements"
    ),
    "embeddings": "llm_embed llm_embed_missing llm_embed_sequences",
    "training": (
        "llm_train llm_train_loop llm_train_resume llm_train_stop llm_train_give_up llm_replay llm_finetune"
        " llm_train_step llm_materialize_params llm_backprop llm_accumulate_grads llm_prune_autograd_state"
        " llm_tape_flush llm_prune_runs llm_contrastive_loss llm_recall"
    ),
    "tokenizers and data": (
        "llm_encode llm_encode_sequence llm_decode llm_build_char_tokenizer llm_load_bpe llm_load_wordpiece"
        " llm_load_sentencepiece llm_prefix_tokens"
        " llm_token_bytes llm_end_token llm_begin_token llm_end_tokens pg_llm_load_bpe_vocab"
        " pg_llm_load_bpe_merges llm_train_bpe llm_tokenizer_kind llm_boundaries llm_fill_dataset"
        " llm_fill_pairs"
    ),
    "generation": "llm_generate llm_generate_stream llm_beam_search llm_release",
    "conversations": "llm_chat llm_chat_stream llm_chat_prompt llm_chat_template llm_set_chat_template",
    "weights in and out": (
        "pg_llm_import_npz pg_llm_import_safetensors pg_llm_export_npz pg_llm_export_safetensors"
        " llm_checkpoint_save llm_checkpoint_load llm_checkpoint_orphans llm_checkpoint_sweep"
        " llm_publish llm_unpublish llm_publication"
    ),
}
"""Every function of llm_sql.functions, by the section of the file that it is in."""

WRITTEN = "Written by models/codegen.py from models/: run python -m llm_sql.migrations.freeze, do not edit."

# SQL types as Python's: of a value, of what may be passed for one, and of a result.
_VALUES = {
    "bigint": "int",
    "boolean": "bool",
    "bytea": "bytes",
    "double precision": "float",
    "integer": "int",
    "integer[]": "Sequence[int]",
    "jsonb": "Any",
    "regclass": "str",
    "tensor": "NDArray[np.float32]",
    "tensor[]": "list[NDArray[np.float32] | None]",
    "text": "str",
    "text[]": "Sequence[str]",
    "void": "None",
}
_NAMES = {
    "bigint": "Int",
    "boolean": "Bool",
    "bytea": "Bytes",
    "double precision": "Double",
    "integer": "Int",
    "integer[]": "Ints",
    "jsonb": "Json",
    "regclass": "Text",
    "tensor": "Tensor",
    "text": "Text",
    "text[]": "Texts",
}


def short(name: str) -> str:
    return name.removeprefix("pg_").removeprefix("llm_")


def _class(routine: Routine) -> str:
    if routine.kind == "PROCEDURE":
        return "Procedure"
    return "RowsFunction" if routine.columns else "SqlFunction"


# ---- functions.py ----


def _columns(columns: Iterable[Column]) -> str:
    return ", ".join(f"{c.name} {c.type}{'' if c.default is None else '?'}" for c in columns)


def _literal(value: str, indent: str, room: int) -> list[str]:
    """A string literal, in lines of at most `room` characters."""
    lines = re.findall(rf".{{1,{room}}}(?:\s|$)|\S+\s?", value, re.DOTALL)
    return [indent + repr(line) for line in lines or [""]]


def _signature(routine: Routine) -> list[str]:
    returns = f"({_columns(routine.columns)})" if routine.columns else routine.returns
    indent = " " * 8
    parameters = _literal(_columns(routine.parameters), indent, WIDTH - 14)
    parameters[-1] += ","
    result = _literal(returns, indent, WIDTH - 14)
    result[-1] += ","
    return ["    (", *parameters, *result, "    ),"]


def _entry(overloads: tuple[Routine, ...]) -> list[str]:
    first = overloads[0]
    doc = _literal(first.comment, " " * 8, WIDTH - 14)
    return [
        f"{first.name} = {short(first.name)} = {_class(first)}(",
        f"    {first.name!r},",
        *(line for routine in overloads for line in _signature(routine)),
        *(["    doc=(", *doc, "    ),"]),
        ")",
    ]


_FUNCTIONS_HEAD = f'''"""The database's functions as SQLAlchemy expressions, for use inside any `select()`.

    select(functions.llm_generate("SELECT is", max_tokens=40, model="catalog-gpt"))
    select(Page.id, functions.llm_perplexity("catalog-gpt", Page.body)).order_by(...)
    select(functions.llm_evaluate("catalog-gpt").c.perplexity)
    connection.execute(functions.llm_train_loop("catalog-gpt", 200, lr_max=1e-3))

Arguments may be Python values or columns, by position or by name; what is not given takes the database's
default. Functions that return rows give something to select from, procedures a CALL. Each has a short name
too: `functions.generate`, `functions.import_npz`.

{WRITTEN}
"""
# fmt: off

from __future__ import annotations

from .sql_function import Procedure, RowsFunction, SqlFunction
'''


def functions_module() -> str:
    known = routines()
    lines = [_FUNCTIONS_HEAD]
    for title, names in CATALOGUE.items():
        lines += [f"# ---- {title} ----", ""]
        for name in names.split():
            lines += _entry(known[name])
        lines.append("")
    lines += [
        "FUNCTIONS = tuple(",
        '    value for name, value in list(globals().items()) if name.startswith(("llm_", "pg_llm_"))',
        ")",
        '"""Every function of the catalogue."""',
    ]
    return "\n".join(lines) + "\n"


# ---- functions.pyi ----


def _def(routine: Routine, overloaded: bool) -> list[str]:
    """The typed head of a function, with its comment."""
    parameters = [
        f"{p.name}: {_NAMES[p.type]}{'' if p.default is None else ' = ...'}" for p in routine.parameters
    ]
    if routine.kind == "PROCEDURE":
        result = "Call"
    elif routine.columns:
        result = "TableValuedAlias"
    else:
        result = f"Function[{_VALUES[routine.returns]}]"
    head = [f"def {routine.name}({', '.join(parameters)}) -> {result}:"]
    if len(head[0]) > WIDTH:
        head = [f"def {routine.name}(", *(f"    {parameter}," for parameter in parameters), f") -> {result}:"]
    doc = routine.comment.replace("\\", "\\\\").replace('"""', "'''")
    wrapped = [
        line
        for paragraph in doc.split("\n")
        for line in (textwrap.wrap(paragraph, WIDTH - 4) if paragraph else [""])
    ]
    body = [f'    """{wrapped[0]}', *(f"    {line}".rstrip() for line in wrapped[1:])]
    body[-1] += '"""' if len(body) == 1 else ""
    if len(body) > 1:
        body.append('    """')
    return [*(["@overload"] if overloaded else []), *head, *body]


_STUB_HEAD = f"""# {WRITTEN}
# fmt: off
# ruff: noqa

from collections.abc import Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Function
from sqlalchemy.sql.selectable import TableValuedAlias

from .sql_function import Call, Expression, SqlFunction

Bool: TypeAlias = bool | Expression | None
Bytes: TypeAlias = bytes | Expression | None
Double: TypeAlias = float | Expression | None
Int: TypeAlias = int | Expression | None
Ints: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | NDArray[Any] | Expression | None
Json: TypeAlias = Any
Tensor: TypeAlias = NDArray[Any] | Expression | None
Text: TypeAlias = str | Expression | None
Texts: TypeAlias = Sequence[str] | Expression | None
"""


def functions_stub() -> str:
    known = routines()
    lines = [_STUB_HEAD]
    for title, names in CATALOGUE.items():
        lines += [f"# ---- {title} ----", ""]
        for name in names.split():
            overloads = known[name]
            for routine in overloads:
                lines += _def(routine, len(overloads) > 1)
            lines += [f"{short(name)} = {name}", ""]
    return "\n".join([*lines, "FUNCTIONS: tuple[SqlFunction, ...]"]) + "\n"


# ---- options.py ----

_OPTIONS: dict[str, tuple[str, tuple[str, ...], tuple[Argument, ...]]] = {
    "Sampling": ("llm_generate", ("prompt", "model"), SAMPLING),
    "AnySampling": ("llm_generate", ("prompt",), SAMPLING),
    "Chat": ("llm_chat", ("messages", "model"), CHAT),
    "BeamSearch": ("llm_beam_search", ("prompt", "model"), SAMPLING),
    "AnyBeamSearch": ("llm_beam_search", ("prompt",), SAMPLING),
    "Training": ("llm_train", ("model", "n_steps", "n_layer", "n_head", "d", "vocab"), HYPERPARAMETERS),
    "Finetuning": ("llm_finetune", ("model", "query", "steps"), LISTS["finetuning"]),
}
"""Class, function whose arguments they are, which of its parameters are no options, what describes them."""


def _python(column: Column, argument: Argument | None) -> str:
    """The type of an option's value."""
    if argument and argument.choices:
        value = f"Literal[{', '.join(map(repr, argument.choices))}]"
    else:
        value = "str | Sequence[str]" if column.type == "text[]" else _VALUES[column.type]
    return f"{value} | None" if column.default == "NULL" else value


def _default(column: Column) -> Any:
    text = column.default or "NULL"
    if text == "NULL":
        return None
    if text in ("true", "false"):
        return text == "true"
    if text.startswith("'"):
        return text[1:-1]
    return float(text) if column.type == "double precision" else int(text)


_OPTIONS_HEAD = f'''"""Options by name, with the database's types and defaults, for type checkers and help().

Those of Any... name the model, too.

{WRITTEN}
"""
# fmt: off

from collections.abc import Sequence
from typing import Any, Literal, TypedDict
'''


def options_module() -> str:
    lines = [_OPTIONS_HEAD]
    defaults = ["DEFAULTS: dict[str, dict[str, tuple[str, Any]]] = {"]
    for name, (function, without, arguments) in _OPTIONS.items():
        known = {argument.name: argument for argument in arguments}
        options = [p for p in routines()[function][0].parameters if p.name not in without]
        lines += ["", f"class {name}(TypedDict, total=False):", f'    """Arguments of {function}."""', ""]
        defaults.append(f"    {name!r}: {{")
        for option in options:
            lines.append(f"    {option.name}: {_python(option, known.get(option.name))}")
            if option.name in known:
                lines.append(f'    """{known[option.name].doc}"""')
            defaults.append(f"        {option.name!r}: ({option.type!r}, {_default(option)!r}),")
        defaults.append("    },")
        lines.append("")
    lines += [*defaults, "}", '"""SQL type and default of every option, by the class that has it."""']
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Name below llm_sql/ and text of everything that is written."""
    return {
        "functions.py": functions_module(),
        "functions.pyi": functions_stub(),
        "options.py": options_module(),
    }


def write() -> list[Path]:
    """Write all of them; returns what was written."""
    written = []
    for name, text in files().items():
        path = HERE / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
