"""Arguments that several functions share, each declared once: how text is sampled, how a model is trained.

functions/*.sql name the lists (`{{ sampling.parameters }}`, forms.py); the options of the Python classes and
of the command line come from them too (codegen.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Check:
    """An SQL condition on the arguments, by their names, and how "NAME must ..." goes on. A rule that begins
    with format( is an SQL expression.
    """

    holds: str
    rule: str


@dataclass(frozen=True)
class Argument:
    """One argument: name, type and default as in SQL; what help texts say of it, as a phrase.

    `choices` are the values that a text may have; `flags` are the command line's names for the argument, by
    default --its-name, which is always one of them.
    """

    name: str
    type: str
    default: str
    doc: str
    checks: tuple[Check, ...] = ()
    choices: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def all_checks(self) -> tuple[Check, ...]:
        if not self.choices:
            return self.checks
        *others, last = self.choices
        quoted = ", ".join(f"'{choice}'" for choice in self.choices)
        among = Check(f"{self.name} IN ({quoted})", f"be {', '.join(others)} or {last}")
        return (among, *self.checks)


def _finite(name: str) -> tuple[Check]:
    return (Check(f"abs({name}) < 'Infinity'", "be finite"),)


def _positive(name: str) -> tuple[Check]:
    return (Check(f"{name} > 0 AND {name} < 'Infinity'", "be positive and finite"),)


def _at_least_1(name: str) -> Check:
    return Check(f"{name} >= 1", "be at least 1")


def _fraction(name: str) -> tuple[Check]:
    return (Check(f"{name} >= 0 AND {name} < 1", "be in [0, 1)"),)


def _workers(name: str) -> tuple[Check]:
    return (Check(f"{name} BETWEEN 0 AND 1024", "be between 0 and 1024"),)


# Each of these is used in one place more: settings in kernels/postgres/generation/next_token.c,
# hyperparameters in functions/train_steps.sql. NaN is greater than every number in SQL, so an upper bound
# refuses it.

SAMPLING = (
    Argument(
        "max_tokens", "int", "64", "largest number of tokens to generate", (_at_least_1("max_tokens"),),
        flags=("--max-tokens", "-n"),
    ),
    Argument(
        "temperature", "double precision", "1", "divides the logits; 0: always the most likely token",
        (Check("temperature >= 0 AND temperature < 'Infinity'", "be finite and not negative"),),
        flags=("--temperature", "-t"),
    ),
    Argument(
        "top_k", "int", "50", "how many of the most likely tokens to choose from; 0: all",
        (Check("top_k >= 0", "not be negative"),),
    ),
    Argument(
        "top_p", "double precision", "0.95",
        "choose from the most likely tokens that together have this probability; 1: from all",
        (Check("top_p > 0 AND top_p <= 1", "be above 0 and at most 1"),),
    ),
    Argument("model", "text", "NULL", "name of the model; default: the database's default model"),
    Argument("seed", "bigint", "NULL", "the same seed gives the same text"),
    Argument(
        "stop", "text[]", "NULL", "the text ends before any of these texts",
        (Check("array_position(stop, '') IS NULL", "hold no empty text"),),
    ),
    Argument("echo", "boolean", "false", "put the prompt before the text"),
    Argument(
        "repetition_penalty", "double precision", "1",
        "above 1, makes tokens of the prompt and the text less likely (Keskar et al. 2019)",
        _positive("repetition_penalty"),
    ),
    Argument(
        "presence_penalty", "double precision", "0",
        "subtracted from the logits of tokens that occur in the text",
        _finite("presence_penalty"),
    ),
    Argument(
        "frequency_penalty", "double precision", "0",
        "subtracted from a token's logit for each time it occurs in the text",
        _finite("frequency_penalty"),
    ),
)  # fmt: skip
"""Of llm_generate and what is like it, after the prompt."""

OVERFLOW = Argument(
    "overflow", "text", "'slide'",
    "what does not fit into the context: slide (the oldest turns are left out) or error",
    choices=("slide", "error"),
)  # fmt: skip

HYPERPARAMETERS = (
    Argument(
        "dropout_p", "double precision", "0.1",
        "probability of dropout at embeddings, attention weights and residuals", _fraction("dropout_p"),
        flags=("--dropout-p", "--dropout"),
    ),
    Argument(
        "beta1", "double precision", "0.9", "AdamW's decay rate of the first moment", _fraction("beta1")
    ),
    Argument(
        "beta2", "double precision", "0.999", "AdamW's decay rate of the second moment", _fraction("beta2")
    ),
    Argument(
        "eps", "double precision", "1e-8", "added to the denominator of AdamW's update", _positive("eps")
    ),
    Argument(
        "wd", "double precision", "0.01", "AdamW's decoupled weight decay",
        (Check("wd >= 0 AND wd < 'Infinity'", "be finite and not negative"),),
        flags=("--wd", "--weight-decay"),
    ),
    Argument(
        "lr_max", "double precision", "2.5e-4", "highest learning rate", _positive("lr_max"),
        flags=("--lr-max", "--lr"),
    ),
    Argument(
        "warmup", "int", "NULL",
        "steps of linear warm-up to the highest rate; default: 2000, or a tenth of a run that is not longer",
    ),
    Argument(
        "grad_clip", "double precision", "NULL", "clip gradients to this global norm",
        (Check("COALESCE(grad_clip > 0 AND grad_clip < 'Infinity', true)", "be positive and finite"),),
    ),
    Argument(
        "grad_workers", "int", "1", "threads for the write-back; 0: pg_llm.threads",
        _workers("grad_workers"),
    ),
    Argument(
        "prune_workers", "int", "1", "threads for clearing; 0: pg_llm.threads",
        _workers("prune_workers"),
    ),
    Argument(
        "batch_size", "int", "1", "rows per batch", (_at_least_1("batch_size"),),
        flags=("--batch-size", "-b"),
    ),
    Argument(
        "grad_accum", "int", "1", "batches per step, whose gradients are added",
        (
            _at_least_1("grad_accum"),
            Check(
                "batch_size::bigint * grad_accum <= 2147483647",
                "format('be at most %s for batches of %s rows', 2147483647 / greatest(batch_size, 1),"
                " batch_size)",
            ),
        ),
    ),
    Argument(
        "block_size", "int", "NULL", "how many tokens of a row to use; default: all",
        (
            Check(
                "COALESCE(block_size BETWEEN 1 AND config.n_positions, true)",
                "format('be between 1 and the context of %s', config.n_positions)",
            ),
        ),
    ),
    Argument(
        "schedule", "text", "'cosine'", "learning rate after the warm-up: cosine, linear or constant",
        choices=("cosine", "linear", "constant"),
    ),
    Argument(
        "min_lr", "double precision", "0", "learning rate at the schedule's end",
        (Check("min_lr >= 0 AND min_lr <= lr_max", "format('be between 0 and lr_max %s', lr_max)"),),
    ),
    Argument(
        "decay", "text", "'all'", "parameters that weight decay applies to: all or matrices",
        choices=("all", "matrices"),
    ),
    Argument(
        "seed", "bigint", "0", "seed of batches and dropout", (Check("seed IS NOT NULL", "be a number"),)
    ),
    Argument(
        "data_order", "text", "'shuffled'",
        "order of the rows: shuffled (a seeded permutation per epoch) or by_id",
        choices=("shuffled", "by_id"),
    ),
    Argument(
        "start_step", "bigint", "NULL", "the model's step at which the schedule begins; default: this call's"
    ),
    Argument(
        "total_steps", "bigint", "NULL", "length of the schedule, in steps; default: this call's"
    ),
    Argument(
        "log_every", "int", "1", "steps between NOTICEs; 0: none",
        (Check("log_every >= 0", "not be negative"),),
    ),
    Argument(
        "keep_grad", "boolean", "false", "store the last step's gradients in llm_param.grad",
        (Check("keep_grad IS NOT NULL", "be true or false"),),
    ),
    Argument(
        "optimizer", "text", "'keep'",
        "keep AdamW's moments, or drop them from the last write-back, which then stores data only",
        choices=("keep", "drop"),
    ),
)  # fmt: skip
"""Of llm_train and llm_train_loop."""


def pick(arguments: Iterable[Argument], *names: str, **defaults: str) -> tuple[Argument, ...]:
    """Some of the arguments, in the order of the names, with other defaults for those given by name."""
    known = {argument.name: argument for argument in arguments}
    return tuple(replace(known[name], default=defaults.get(name, known[name].default)) for name in names)


def without(arguments: Iterable[Argument], *names: str) -> tuple[Argument, ...]:
    return tuple(argument for argument in arguments if argument.name not in names)


_OF_A_STEP = (
    *("dropout_p", "beta1", "beta2", "eps", "wd", "lr_max", "warmup", "total_steps", "grad_clip"),
    *("grad_workers", "prune_workers"),
)
_OF_FINETUNING = (
    *("batch_size", "grad_accum", "lr_max", "warmup", "schedule", "min_lr", "dropout_p", "wd", "grad_clip"),
    *("decay", "seed", "log_every"),
    # In this order since before the others could be given; block_size is that of the rows that it makes.
    *("beta1", "beta2", "eps", "grad_workers", "prune_workers", "data_order", "start_step", "total_steps"),
    *("keep_grad", "optimizer"),
)

_OF_A_CHAT = (
    *("model", "max_tokens", "temperature", "top_k", "top_p", "seed", "stop", "echo"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)
CHAT = (*pick(SAMPLING, *_OF_A_CHAT, max_tokens="256", temperature="0.7"), OVERFLOW)
"""Of llm_chat, after the messages. Answers are longer than a continuation, and less is left to chance."""

LISTS: dict[str, tuple[Argument, ...]] = {
    "sampling": SAMPLING,
    # What a generation's handle keeps.
    "settings": without(SAMPLING, "model", "echo"),
    "chat": CHAT,
    "hyperparameters": HYPERPARAMETERS,
    "step": pick(HYPERPARAMETERS, *_OF_A_STEP),
    "finetuning": pick(HYPERPARAMETERS, *_OF_FINETUNING, lr_max="5e-5", grad_clip="1"),
}
"""By the names that the marks in functions/*.sql use."""
