"""What an architecture needs of a model's configuration beyond the columns of llm_model_config.

llm_arch.settings holds the declarations, llm_model_config.settings the values; llm_config holds the one
against the other (functions/settings.sql).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.exc import ArgumentError

from .config import ModelConfig

COLUMNS = tuple(column.name for column in ModelConfig.__table__.columns)
TYPES = ("text", "boolean", "integer", "number", "object")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# What a bound may be, when it is not a number.
_SIZES = ("n_layer", "n_head", "d_model", "n_positions", "vocab", "d_ff")


@dataclass(frozen=True)
class Setting:
    """One setting: its name, type and default.

    `type`: text, boolean, integer, number, or object, whose values are texts. A default of None means that a
    model need not have a value; then null is one, too. `values` are those that a text may have. `minimum`
    and `maximum` are numbers or sizes by name (`n_positions`); a number must be above `above`.
    """

    name: str
    type: Literal["text", "boolean", "integer", "number", "object"]
    default: Any = None
    doc: str = ""
    values: tuple[str, ...] = ()
    minimum: float | str | None = None
    above: float | None = None
    maximum: float | str | None = None

    def __post_init__(self) -> None:
        what = f"setting {self.name!r}"
        if not _NAME.fullmatch(self.name):
            raise ArgumentError(f"{what}: a lower-case letter, then up to 62 letters, digits and _")
        if self.name in COLUMNS:
            raise ArgumentError(f"{what} is a column of llm_model_config already")
        if self.type not in TYPES:
            raise ArgumentError(f"{what} has type {self.type!r}; types are {', '.join(TYPES)}")
        if self.values and self.type != "text":
            raise ArgumentError(f"{what}: only a text is one of certain values")
        for bound in (self.minimum, self.maximum):
            if isinstance(bound, str) and bound not in _SIZES:
                raise ArgumentError(f"{what} is bound by {bound!r}; sizes are {', '.join(_SIZES)}")
        if self.default is not None and not self._fits(self.default):
            raise ArgumentError(f"{what} has a default that it does not allow: {self.default!r}")

    def _fits(self, value: Any) -> bool:
        if self.type == "object":
            return isinstance(value, dict) and all(isinstance(x, str) for x in (*value, *value.values()))
        if self.type == "boolean":
            return isinstance(value, bool)
        if self.type == "text":
            return isinstance(value, str) and (not self.values or value in self.values)
        if isinstance(value, bool) or not isinstance(value, int if self.type == "integer" else int | float):
            return False
        return (
            (not isinstance(self.minimum, int | float) or value >= self.minimum)
            and (not isinstance(self.maximum, int | float) or value <= self.maximum)
            and (self.above is None or value > self.above)
        )

    def declaration(self) -> dict[str, Any]:
        """As it stands in llm_arch.settings under the setting's name."""
        said = {
            "values": list(self.values) or None,
            "minimum": self.minimum,
            "above": self.above,
            "maximum": self.maximum,
            "doc": self.doc or None,
        }
        given = {name: value for name, value in said.items() if value is not None}
        return {"type": self.type, "default": self.default, **given}


GPT3 = (
    Setting(
        "band", "integer", None, "odd layers see this many tokens, the last ones; null: every layer sees all",
        minimum=1,
    ),
)  # fmt: skip
"""Of architecture gpt3: its alternating dense and locally banded layers."""

BERT = (
    Setting(
        "pooling", "text", "mean", "what becomes of the tokens' vectors: their mean, or the first one's",
        values=("mean", "cls"),
    ),
    Setting("normalize", "boolean", True, "whether embeddings have length 1"),
    Setting("type_vocab", "integer", 2, "rows of the token types' table; the first one is used", minimum=1),
    Setting(
        "max_tokens", "integer", None, "a longer text is cut to this many tokens; null: n_positions",
        minimum=1, maximum="n_positions",
    ),
    Setting("temperature", "number", 0.05, "divides similarities in the contrastive loss", above=0),
    Setting("prompts", "object", {}, "what llm_embed puts before a text, by the prompt's name"),
    Setting("default_prompt", "text", None, "the prompt of a text for which none is named"),
)  # fmt: skip
"""Of sentence encoders: architecture bert."""
