"""What the pictures show, read from its relations: the training log, a recorded step, a pass.

Everything here takes a Connection and returns plain values; nothing here draws.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from llm_sql.errors import LLMSQLError

# Ids of a recorded pass lie in a block of this size (models/base.py, pass_sequence).
PASS_SIZE = 16777216

LOG = text(
    """
    SELECT l.run_id, l.step, CASE WHEN abs(l.loss) < 'Infinity' THEN l.loss END, l.lr,
        CASE WHEN l.grad_norm < 'Infinity' THEN l.grad_norm END, l.tokens, l.seconds,
        COALESCE(c.clip_threshold, (r.hyperparameters ->> 'grad_clip')::double precision) AS clip_threshold,
        c.clip_threshold IS NOT NULL AS clipped
    FROM public.llm_train_log l
    JOIN public.llm_train_run r ON r.run_id = l.run_id
    LEFT JOIN LATERAL (
        SELECT max(c.clip_threshold) AS clip_threshold FROM public.llm_clip c WHERE c.tape_id = l.tape_id
    ) c ON true
    WHERE l.model = :model AND NOT l.superseded
    ORDER BY l.step
    """
)
EVALUATIONS = text(
    """
    SELECT DISTINCT ON (e.step, e.split) e.step, e.split, e.tokens, e.loss
    FROM public.llm_eval_log e
    LEFT JOIN public.llm_train_log l ON l.tape_id = e.tape_id
    WHERE e.model = :model AND (e.tape_id IS NULL OR NOT l.superseded)
    ORDER BY e.step, e.split, e.id DESC
    """
)
LAST_PASS = text(f"SELECT max(id) / {PASS_SIZE} FROM public.llm_tape WHERE model = :model")
LAST_STEP_PASS = text(
    f"SELECT max(id) / {PASS_SIZE} FROM public.llm_tape WHERE model = :model AND run IS NOT NULL"
)
OPS = text(
    f"""
    SELECT t.position, t.name, t.inputs, t.output, t.extra, r.shape, r.norm, r.grad_norm
    FROM public.llm_tape t LEFT JOIN public.llm_tensor_rt r ON r.id = t.output
    WHERE t.id >= :pass * {PASS_SIZE}::bigint AND t.id < (:pass + 1) * {PASS_SIZE}::bigint
    ORDER BY t.position
    """
)
PARAMETERS = text(
    f"""
    SELECT DISTINCT m.tensor_id, m.name, r.shape, r.norm, r.grad_norm
    FROM public.llm_tensor_map m LEFT JOIN public.llm_tensor_rt r ON r.id = m.tensor_id
    WHERE m.tensor_id >= :pass * {PASS_SIZE}::bigint AND m.tensor_id < (:pass + 1) * {PASS_SIZE}::bigint
    ORDER BY m.tensor_id
    """
)
STEP = text(
    f"""
    SELECT t.step, l.loss, l.lr, l.grad_norm, l.tokens, r.hyperparameters, r.data ->> 'rows' AS rows,
        c.clip_threshold, c.gradient_slice
    FROM (
        SELECT run, step FROM public.llm_tape
        WHERE id >= :pass * {PASS_SIZE}::bigint AND id < (:pass + 1) * {PASS_SIZE}::bigint LIMIT 1
    ) t
    JOIN public.llm_train_run r ON r.run_id = t.run
    JOIN public.llm_train_log l ON l.run_id = t.run AND l.step = t.step
    LEFT JOIN public.llm_clip c ON c.tape_id = l.tape_id
    """
)
# The moments as they are stored: a root of a sum of squares over the parts of a tensor.
STORED = text(
    """
    SELECT p.name, sqrt(sum(public.norm(p.m) ^ 2)), sqrt(sum(public.norm(p.v) ^ 2))
    FROM public.llm_param p WHERE p.model = :model GROUP BY p.name
    """
)
MODEL_EXISTS = text("SELECT EXISTS (SELECT FROM public.llm_model_config WHERE model = :model)")
LAYER = re.compile(r"^h\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class LogRow:
    """A step as llm_train_log has it. clip_threshold: the run's grad_clip, None without one.

    A loss or norm that is not finite is None.
    """

    run_id: int
    step: int
    loss: float | None
    lr: float | None
    grad_norm: float | None
    tokens: int | None
    seconds: float | None
    clip_threshold: float | None
    clipped: bool


@dataclass(frozen=True)
class Evaluation:
    """A loss that llm_log_evaluation measured: nats per token over a split, after a step."""

    step: int
    split: str
    tokens: int
    loss: float


@dataclass(frozen=True)
class History:
    """A model's steps in order, without superseded ones, and the evaluations between them."""

    model: str
    steps: list[LogRow]
    evaluations: list[Evaluation]

    @property
    def run_starts(self) -> list[int]:
        """The first step of each run but the first."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return [after.step for before, after in pairs if after.run_id != before.run_id]


@dataclass(frozen=True, slots=True)
class TapeRow:
    """An op of a recorded pass and what is known of its output.

    reads: for every input the parameter's name, or `#position` of the op that made it, or its id.
    """

    position: int
    name: str
    inputs: list[int]
    output: int
    extra: dict[str, Any] | None
    shape: list[int] | None
    norm: float | None
    grad_norm: float | None
    reads: list[str]


@dataclass(frozen=True)
class Parameter:
    """A parameter that a pass read: its tensor's id, and the norms of its values and gradient."""

    tensor_id: int
    name: str
    shape: list[int] | None
    norm: float | None
    grad_norm: float | None


@dataclass(frozen=True)
class Pass:
    """A recorded pass: its ops in order, and the parameters that llm_tensor_map names for it."""

    number: int
    ops: list[TapeRow]
    parameters: list[Parameter]


@dataclass(frozen=True)
class Layer:
    """Part of a step: norms of what it put out, of its parameters, their gradient, and AdamW's moments.

    output: NULL where the loss is all it puts out, which is computed without holding logits.
    """

    label: str
    output: float | None
    weights: float
    gradient: float
    clipped_gradient: float
    m: float
    v: float


@dataclass(frozen=True)
class Step:
    """A recorded training step by layers, in the order of the forward pass."""

    model: str
    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    rows: str | None
    batch_size: int
    clip_threshold: float | None
    clipped: bool
    n_ops: int
    layers: list[Layer]


def require_model(connection: Connection, model: str) -> None:
    """LLMSQLError when there is no such model."""
    if not connection.scalar(MODEL_EXISTS, {"model": model}):
        raise LLMSQLError(
            f'model "{model}" does not exist', hint="SELECT model FROM llm_model_config lists the models."
        )


def read_history(connection: Connection, model: str) -> History:
    """The model's steps and evaluations. LLMSQLError when it has no steps."""
    steps = [LogRow(*row) for row in connection.execute(LOG, {"model": model})]
    if not steps:
        require_model(connection, model)
        raise LLMSQLError(f'model "{model}" has not been trained', hint=f"llm-sql train {model}")
    found = connection.execute(EVALUATIONS, {"model": model})
    return History(model, steps, [Evaluation(*row) for row in found])


def read_pass(connection: Connection, model: str) -> Pass:
    """The model's last recorded pass. LLMSQLError when there is none."""
    number = connection.scalar(LAST_PASS, {"model": model})
    if number is None:
        require_model(connection, model)
        raise LLMSQLError(
            f'no pass of model "{model}" is recorded',
            hint="Training records the last step of each call; a pass by hand: SET pg_llm.record = 'graph', "
            "then llm_loss with llm_autograd_mode on.",
        )
    return pass_of(connection, int(number))


def pass_of(connection: Connection, number: int) -> Pass:
    """The recorded pass of this number (id / 2^24)."""
    parameters = [Parameter(*row) for row in connection.execute(PARAMETERS, {"pass": number})]
    rows = [tuple(row) for row in connection.execute(OPS, {"pass": number})]
    return Pass(number, named(rows, {p.tensor_id: p.name for p in parameters}), parameters)


def named(rows: Sequence[tuple[Any, ...]], names: dict[int, str]) -> list[TapeRow]:
    """Tape rows with their inputs' names."""
    made = {row[3]: f"#{row[0]}" for row in rows}
    return [
        TapeRow(
            position=row[0],
            name=row[1],
            inputs=row[2],
            output=row[3],
            extra=row[4],
            shape=row[5],
            norm=row[6],
            grad_norm=row[7],
            reads=[made.get(i) or names.get(i) or str(i) for i in row[2]],
        )
        for row in rows
    ]


def groups_of(ops: Sequence[TapeRow], parameters: dict[int, str]) -> list[str]:
    """For every op the part of the model it belongs to: "embedding", a layer's number, or "head".

    An op that reads a parameter h.N.* is of layer N. Among ops that read none, a part ends where a single
    tensor, the residual stream, is all that later ops need of earlier ones.
    """
    last_use: dict[int, int] = {}
    for place, op in enumerate(ops):
        for tensor in op.inputs:
            last_use[tensor] = place
    made = {op.output: place for place, op in enumerate(ops)}
    # Places after which one computed tensor alone is still needed.
    cuts = [
        place
        for place in range(len(ops))
        if sum(born <= place < last_use.get(tensor, -1) for tensor, born in made.items()) == 1
    ]
    found: list[str] = []
    current, last_reader = "embedding", -1
    for place, op in enumerate(ops):
        read = [parameters[i] for i in op.inputs if i in parameters]
        layers = [match[1] for name in read if (match := LAYER.match(name))]
        group = layers[0] if layers else ("head" if read and current != "embedding" else current)
        found.append(group)
        if group != current:
            between = [cut for cut in cuts if last_reader <= cut < place]
            # What precedes the head's parameters is the head's, what follows the stem's is the stem's.
            end = (min if group == "head" else max)(between, default=place - 1)
            found[end + 1 : place] = [group] * (place - 1 - end)
        if read:
            current, last_reader = group, place
    return found


def read_step(connection: Connection, model: str) -> Step:
    """The last training step of the model whose pass is recorded, by layers."""
    hint = (
        "The last step of each training call is recorded unless pg_llm.record is 'off' or pg_llm.tape_keep "
        f"is 'none': llm-sql train {model} --steps 1"
    )
    number = connection.scalar(LAST_STEP_PASS, {"model": model})
    if number is None:
        require_model(connection, model)
        raise LLMSQLError(f'no training step of model "{model}" is recorded', hint=hint)
    row = connection.execute(STEP, {"pass": number}).first()
    recorded = pass_of(connection, int(number))
    if row is None or not any(p.grad_norm is not None for p in recorded.parameters):
        raise LLMSQLError(f'the recorded step of model "{model}" has no log or no gradients', hint=hint)
    hyperparameters = dict(row.hyperparameters)
    stored = {name: norms for name, *norms in connection.execute(STORED, {"model": model})}
    threshold = row.clip_threshold or hyperparameters.get("grad_clip")
    clipped = row.clip_threshold is not None
    shrink = threshold / row.grad_norm if clipped else 1.0
    return Step(
        model=model,
        step=row.step,
        loss=row.loss,
        lr=row.lr,
        grad_norm=row.grad_norm,
        tokens=row.tokens,
        rows=row.rows,
        batch_size=int(hyperparameters.get("batch_size") or 1) * int(hyperparameters.get("grad_accum") or 1),
        clip_threshold=threshold,
        clipped=clipped,
        n_ops=len(recorded.ops),
        layers=_layers(recorded, stored, row.gradient_slice or {}, shrink),
    )


def _layers(
    recorded: Pass, stored: dict[str, list[Any]], clip_norms: dict[str, Any], shrink: float
) -> list[Layer]:
    """The pass by layers. Gradients: llm_clip's norms where there are some (they are of the whole step, the
    tape's of its last micro-batch), else the tape's.
    """
    names = {p.tensor_id: p.name for p in recorded.parameters}
    groups = groups_of(recorded.ops, names)
    order = list(dict.fromkeys(groups))
    output: dict[str, float] = {}
    first_reader: dict[int, str] = {}
    for op, group in zip(recorded.ops, groups, strict=True):
        # The last output that is not a single number: the loss is shown by itself.
        if op.shape and op.norm is not None:
            output[group] = op.norm
        for tensor in op.inputs:
            first_reader.setdefault(tensor, group)
    layers = []
    for group in order:
        members = [p for p in recorded.parameters if first_reader.get(p.tensor_id) == group]
        gradient = _root([float(clip_norms.get(p.name) or p.grad_norm or 0.0) for p in members])
        layers.append(
            Layer(
                label=group,
                output=output.get(group),
                weights=_root([p.norm or 0.0 for p in members]),
                gradient=gradient,
                clipped_gradient=gradient * shrink,
                m=_root([stored[p.name][0] or 0.0 for p in members if p.name in stored]),
                v=_root([stored[p.name][1] or 0.0 for p in members if p.name in stored]),
            )
        )
    return layers


def _root(norms: Sequence[float]) -> float:
    """The norm of tensors together from that of each."""
    return float(sum(norm * norm for norm in norms) ** 0.5)
