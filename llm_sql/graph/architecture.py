"""An architecture: three trees and a list of parameters, from which models are computed and trained."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnElement

from llm_sql.models import ARCHITECTURE_ROWS, READER, TRAINER, Setting

from . import variables as v
from .elements import SCHEMA, TensorNode, Variable, quote_literal
from .encoders import embed_function, encoder_forward_function, encoder_hidden_function
from .plpgsql import (
    ARGUMENTS,
    CONFIGURATION,
    RESERVED,
    forward_function,
    head_variants,
    hidden_function,
    parameters_function,
)
from .substitute import bind, substitute

# Short of PostgreSQL's 63 bytes by what stands before it in function names.
_EMBED_TYPES = "text, int[], int[], boolean, double precision"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

Init = Literal["normal", "residual", "zeros", "ones"]


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of an architecture, or with `{layer}` in its name one of every block.

    `shape` holds numbers and expressions over the configuration's variables, `4 * d_model` say. `init`:
    'normal' with standard deviation `std`, 'residual' with std / sqrt(2 n_layer), 'zeros', 'ones'. `only_if`:
    a condition over the configuration's variables, without which a model has no such parameter.
    """

    name: str
    shape: tuple[int | ColumnElement[Any], ...]
    init: Init = "normal"
    std: float = 0.02
    only_if: ColumnElement[bool] | None = None

    @property
    def per_layer(self) -> bool:
        return "{layer}" in self.name


@dataclass(frozen=True, eq=False)
class Architecture:
    """A model's forward pass, depth left open.

    `stem` makes the residual stream [..., T, D] from `tokens`; `block` makes the next from `x` and `layer`;
    `head` makes logits [..., T, V] from `x`, and where it ends in `lm_head`, losses are computed without
    holding them. `same_as`: an architecture of the same graph, whose installed functions this one's call.
    `settings`: what a model's configuration holds for it beyond sizes; trees read them by `setting(...)`.

    An encoder's trees (`kind`) run over sequences laid end to end: `tokens` is [N], and `lengths` says how
    many of them each sequence has, for attention, positions and pooling. Its head makes one vector of each,
    [B, D].
    """

    name: str
    stem: TensorNode
    block: TensorNode
    head: TensorNode
    parameters: Sequence[ParameterSpec] = ()
    description: str = ""
    same_as: Architecture | None = None
    kind: Literal["decoder", "encoder"] = "decoder"
    settings: Sequence[Setting] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ArgumentError(
                f"architecture name {self.name!r}: a lower-case letter, then up to 39 letters, digits and _"
            )
        for part in ("stem", "block", "head"):
            if not isinstance(getattr(self, part), TensorNode):
                raise ArgumentError(f"architecture {self.name}: the {part} is not a tree of llm_sql.graph")
        unknown = {spec.init for spec in self.parameters} - {"normal", "residual", "zeros", "ones"}
        if unknown:
            raise ArgumentError(f"architecture {self.name}: unknown initialisations {sorted(unknown)}")
        names = [spec.name for spec in self.parameters]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ArgumentError(f"architecture {self.name}: parameters declared twice: {twice}")
        self._check_settings()

    def _check_settings(self) -> None:
        if self.kind not in ("decoder", "encoder"):
            raise ArgumentError(f"architecture {self.name}: kind is {self.kind!r}, not decoder or encoder")
        names = [setting.name for setting in self.settings]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ArgumentError(f"architecture {self.name}: settings declared twice: {twice}")
        if taken := sorted({*ARGUMENTS, *CONFIGURATION, *RESERVED}.intersection(names)):
            raise ArgumentError(f"architecture {self.name}: settings named as variables are: {taken}")

    def renamed(self, name: str, description: str) -> Architecture:
        """The same graph under another name."""
        return replace(self, name=name, description=description, same_as=self)

    @property
    def forward_name(self) -> str:
        return f"llm_forward_{self.name}"

    @property
    def hidden_name(self) -> str:
        return f"llm_hidden_{self.name}"

    @property
    def embed_name(self) -> str:
        return f"llm_embed_{self.name}"

    @property
    def parameters_name(self) -> str:
        return f"llm_parameters_{self.name}"

    # ---- ad hoc ----

    def hidden(self, n_layer: int, values: Mapping[Any, Any] | None = None, **variables: Any) -> TensorNode:
        """The residual stream [..., T, D] after `n_layer` blocks. `values` give variables, as in select()."""
        return self._bound(self._stream(n_layer), {**(values or {}), **variables})

    def logits(self, n_layer: int, values: Mapping[Any, Any] | None = None, **variables: Any) -> TensorNode:
        """The logits [..., T, V] of a model of `n_layer` blocks."""
        self._require("decoder", "logits")
        return self._headed(head_variants(self.head)[0], n_layer, {**(values or {}), **variables})

    def loss(self, n_layer: int, values: Mapping[Any, Any] | None = None, **variables: Any) -> TensorNode:
        """The mean loss over `targets`, 0-d, of a model of `n_layer` blocks."""
        self._require("decoder", "loss of next tokens")
        return self._headed(head_variants(self.head)[2], n_layer, {**(values or {}), **variables})

    def embeddings(
        self, n_layer: int, values: Mapping[Any, Any] | None = None, **variables: Any
    ) -> TensorNode:
        """The embeddings [B, D] that an encoder of `n_layer` blocks makes of `tokens` [N], B sequences of
        `lengths`.
        """
        self._require("encoder", "embeddings")
        return self._headed(self.head, n_layer, {**(values or {}), **variables})

    def _require(self, kind: str, what: str) -> None:
        if self.kind != kind:
            raise ArgumentError(
                f"architecture {self.name} has no {what}: it is no {kind} but of kind {self.kind}"
            )

    def _headed(self, head: TensorNode, n_layer: int, given: Mapping[Any, Any]) -> TensorNode:
        return self._bound(substitute(head, {v.x.key: self._stream(n_layer)}), given)

    def _stream(self, n_layer: int) -> TensorNode:
        stream = self.stem
        for number in range(n_layer):
            stream = substitute(self.block, {v.x.key: stream, v.layer.key: number})
        return stream

    def _bound(self, tree: TensorNode, given: Mapping[Any, Any]) -> TensorNode:
        """The tree with what is given; settings that are not have their defaults, as an installed model's."""
        defaults = {s.name: s.default for s in self.settings if s.default is not None}
        named = {key.key if isinstance(key, Variable) else key for key in given}
        used = {e.key for leaf in tree.leaves for e in visitors.iterate(leaf) if isinstance(e, Variable)}
        return bind(tree, {**{k: x for k, x in defaults.items() if k in used - named}, **given})

    # ---- installed ----

    def compile_function(self) -> str:
        """CREATE FUNCTION llm_forward_<name>(model, tokens, training, targets, dropout_p, last_only)."""
        return encoder_forward_function(self) if self.kind == "encoder" else forward_function(self)

    def compile_embed(self) -> str:
        """CREATE FUNCTION llm_embed_<name>(model, tokens, lengths, training, dropout_p) of an encoder."""
        return embed_function(self)

    def compile_hidden(self) -> str:
        """CREATE FUNCTION public.llm_hidden_<name>(model, tokens, n_blocks): the residual stream."""
        return encoder_hidden_function(self) if self.kind == "encoder" else hidden_function(self)

    def compile_parameters(self) -> str:
        """CREATE FUNCTION public.llm_parameters_<name>(model), one row per parameter: name, shape, init."""
        return parameters_function(self)

    def script(self) -> str:
        """The compiled functions and their comments, as they stand in models/functions/forward_<name>.sql."""
        functions = (f"{create};\n\n{comment};\n" for create, comment in self._functions())
        return (
            "-- Compiled from the trees of llm_sql.graph by `python -m llm_sql.graph`; change them there.\n\n"
            + "\n\n".join(functions)
        )

    def _functions(self) -> list[tuple[str, str]]:
        """CREATE FUNCTION and COMMENT ON of each installed function."""
        embed = [(self.compile_embed(), self._comment_on_embed())] if self.kind == "encoder" else []
        return [
            *embed,
            (self.compile_function(), self._comment_on_forward()),
            (self.compile_hidden(), self._comment_on_hidden()),
            *([(self.compile_parameters(), self._comment_on_parameters())] if self.parameters else []),
        ]

    def register(self, session: Session) -> None:
        """Install the architecture's functions and its row of llm_arch, in the session's transaction.

        From then on llm_create_model(..., arch => name) makes models of it, and training, evaluation and
        generation work as for built-in ones. Registering a name again replaces its functions; a built-in name
        is refused.
        """
        if not self.parameters:
            raise ArgumentError(f"architecture {self.name} declares no parameters")
        if self.name in BUILT_IN:
            raise ArgumentError(f"architecture {self.name} is built in; choose another name")
        connection = session.connection()
        statements = []
        for create, comment in self._functions():
            statements += [create.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1), comment]
        for statement in (*statements, *self._grants()):
            # As the driver's own statement: no character of a generated body is taken for a parameter.
            connection.exec_driver_sql(statement)
        row = {
            "arch": self.name,
            "forward": f"{SCHEMA}.{self.forward_name}",
            "parameters": f"{SCHEMA}.{self.parameters_name}",
            "description": self.description or None,
            "kind": self.kind,
            "settings": {setting.name: setting.declaration() for setting in self.settings},
        }
        connection.execute(_UPSERT, row)

    def _grants(self) -> list[str]:
        """For databases that take new functions from PUBLIC; the roles may be missing."""
        forward = f"{SCHEMA}.{self.forward_name}(text, int[], boolean, int[], double precision, boolean)"
        routines = (
            f"{forward}, {SCHEMA}.{self.hidden_name}(text, int[], int), {SCHEMA}.{self.parameters_name}(text)"
        )
        if self.kind == "encoder":
            routines += f", {SCHEMA}.{self.embed_name}({_EMBED_TYPES})"
        return [
            f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN "
            f"GRANT EXECUTE ON FUNCTION {routines} TO {role}; END IF; END $$"
            for role in (READER, TRAINER)
        ]

    def _comment_on_forward(self) -> str:
        about = self.description or f"Architecture {self.name}."
        of_encoder = (
            "Embeddings [B, D] of int[] or int[][] tokens; with targets, which number each row's sequences, "
            f"their contrastive loss, 0-d. {about}"
        )
        comment = (
            of_encoder
            if self.kind == "encoder"
            else (
                "Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with "
                f"last_only the logits of the last position, [..., 1, V]. {about}"
            )
        )
        signature = "text, int[], boolean, int[], double precision, boolean"
        return _comment_on(f"{self.forward_name}({signature})", comment)

    def _comment_on_embed(self) -> str:
        return _comment_on(
            f"{self.embed_name}({_EMBED_TYPES})",
            "Embeddings [B, D] of B sequences that are laid end to end in tokens; lengths has the number of "
            f"tokens of each. {self.description or f'Architecture {self.name}.'}",
        )

    def _comment_on_hidden(self) -> str:
        made = "embeddings" if self.kind == "encoder" else "logits"
        return _comment_on(
            f"{self.hidden_name}(text, int[], int)",
            f"The residual stream [..., T, D] of architecture {self.name} after n_blocks blocks, 0 for the "
            f"embeddings; after the last block, the default, what the head makes {made} from.",
        )

    def _comment_on_parameters(self) -> str:
        return _comment_on(
            f"{self.parameters_name}(text)",
            f"Name, shape and initialisation of every parameter of a model of architecture {self.name}. "
            "init: normal or residual with standard deviation std, zeros, ones.",
        )


def _comment_on(function: str, comment: str) -> str:
    lines = textwrap.wrap(comment, 105, drop_whitespace=False)
    written = "\n".join(quote_literal(line) for line in lines)
    return f"COMMENT ON FUNCTION {SCHEMA}.{function} IS\n{written}"


BUILT_IN = frozenset(row["arch"] for row in ARCHITECTURE_ROWS)

_UPSERT = sa.text(
    "INSERT INTO public.llm_arch (arch, forward, parameters, description, kind, settings)"
    " VALUES (:arch, :forward, :parameters, :description, :kind, :settings)"
    " ON CONFLICT (arch) DO UPDATE SET forward = excluded.forward, parameters = excluded.parameters,"
    " description = excluded.description, kind = excluded.kind, settings = excluded.settings"
).bindparams(sa.bindparam("settings", type_=JSONB))
