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
TYPES = ("text", "boolean", "integer", "number", "object", "options")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# What a bound may be, when it is not a number.
_SIZES = ("n_layer", "n_head", "d_model", "n_positions", "vocab", "d_ff")


@dataclass(frozen=True)
class Setting:
    """One setting: its name, type and default.

    `type`: text, boolean, integer, number, object, whose values are texts, or options, whose values are
    texts, numbers, true and false. A default of None means that a model need not have a value; then null is
    one, too. `values` are those that a text may have. `minimum` and `maximum` are numbers or sizes by name
    (`n_positions`); a number must be above `above`, an integer may have to divide the size `divides`.
    """

    name: str
    type: Literal["text", "boolean", "integer", "number", "object", "options"]
    default: Any = None
    doc: str = ""
    values: tuple[str, ...] = ()
    minimum: float | str | None = None
    above: float | None = None
    maximum: float | str | None = None
    divides: str | None = None

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
        if self.divides is not None and (self.type != "integer" or self.minimum is None):
            raise ArgumentError(f"{what}: what divides a size is an integer with a minimum")
        for bound in (self.minimum, self.maximum, self.divides):
            if isinstance(bound, str) and bound not in _SIZES:
                raise ArgumentError(f"{what} is bound by {bound!r}; sizes are {', '.join(_SIZES)}")
        if self.default is not None and not self._fits(self.default):
            raise ArgumentError(f"{what} has a default that it does not allow: {self.default!r}")

    def _fits(self, value: Any) -> bool:
        if self.type == "options":
            plain = str | bool | int | float
            return isinstance(value, dict) and all(isinstance(x, plain) for x in value.values())
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
            "divides": self.divides,
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

_ROPE_THETA = Setting("rope_theta", "number", 10000.0, "base of the rotary frequencies", minimum=1.0)
_ROPE_DIMS = Setting(
    "rope_dims", "integer", 0, "how many numbers of each head are turned; 0: all of them", minimum=0
)
_ROPE_SCALING = Setting(
    "rope_scaling",
    "options",
    {},
    'as config.json has it: {}, or "rope_type" linear or llama3 and its factors',
)

LLAMA = (
    Setting(
        "n_kv_head", "integer", None, "heads of keys and values, each for several of queries; null: n_head",
        minimum=1, divides="n_head",
    ),
    Setting("d_head", "integer", None, "width of a head; null: d_model / n_head", minimum=1, maximum=65536),
    _ROPE_THETA,
    _ROPE_DIMS,
    _ROPE_SCALING,
    Setting("window", "integer", None, "how many tokens one sees, itself among them; null: all", minimum=1),
    Setting("qk_norm", "boolean", False, "whether the heads of queries and keys are normalised (Qwen3)"),
    Setting("qkv_bias", "boolean", False, "whether queries, keys and values have biases (Qwen2)"),
    Setting("o_bias", "boolean", False, "whether attention's output has a bias"),
    Setting("mlp_bias", "boolean", False, "whether the MLP's matrices have biases"),
)  # fmt: skip
"""Of Llama and its kin, SmolLM2, Qwen2, Qwen3, Mistral: architecture llama."""

NEOX = (
    _ROPE_THETA,
    _ROPE_DIMS,
    _ROPE_SCALING,
    Setting("parallel", "boolean", True, "whether attention and MLP read the same state, beside each other"),
)
"""Of GPT-NeoX and Pythia: architecture neox."""

OPT = (
    Setting("norm_first", "boolean", True, "whether norms stand before attention and MLP, not after sums"),
    Setting(
        "d_embed", "integer", None, "width of the token embedding, projected to d_model; null: d_model",
        minimum=1, maximum=65536,
    ),
)  # fmt: skip
"""Of OPT: architecture opt."""
