"""The numbers in the pictures are those of the rows; attention is held against a float64 reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql import graph as g
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.models import metadata
from llm_sql.visualize import attention, characters, flow, graph, read, schema, tape, training

from ..reference import ops
from ..reference.gpt2_numpy import depth

Array = NDArray[Any]

LONG = """SELECT array_to_string(array_agg(CASE WHEN i % 3 = 0 THEN 'the cat sat ' ELSE 'a dog ran ' END), '')
    FROM generate_series(1, 40) i GROUP BY i % 4"""
HYPERPARAMETERS: dict[str, Any] = {
    "batch_size": 2,
    "lr_max": 1e-2,
    "warmup": 0,
    "dropout_p": 0.0,
    "log_every": 0,
}


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def make(engine: Engine, arch: str = "gpt2", model: str = "m") -> None:
    """A model of two layers and heads with random weights, its tokenizer and data."""
    with Session(engine) as session:
        session.execute(text("SELECT llm_build_char_tokenizer(:m, :q)"), {"m": model, "q": LONG})
        vocab = session.scalars(
            text("SELECT count(*) FROM llm_bpe_vocab WHERE model = :m"), {"m": model}
        ).one()
        LanguageModel.create(
            session, model, arch=arch, n_layer=2, n_head=2, d_model=16, n_positions=32, vocab=vocab, seed=3
        )
        # Weights as GPT-2 begins with give nearly even attention.
        session.execute(
            text("UPDATE llm_param SET data = data * 40::float8 WHERE model = :m AND name ~ 'attn'"),
            {"m": model},
        )
        session.execute(
            text("SELECT llm_fill_dataset(:m, :q, 16, validation => 0.2)"), {"m": model, "q": LONG}
        )
        session.commit()


def run(engine: Engine, n_steps: int, **arguments: Any) -> None:
    with Session(engine) as session:
        LanguageModel(session, "m").train(n_steps, **{**HYPERPARAMETERS, **arguments})
        session.commit()


def log_evaluation(engine: Engine, split: str = "validation") -> float:
    with Session(engine) as session:
        loss = LanguageModel(session, "m").evaluate(split, log=True).loss
        session.commit()
    return loss


# ---- the history of training ----


def test_smoothing_is_a_bias_corrected_moving_average() -> None:
    values = [4.0, 2.0, 3.0]
    by_hand = []
    for t in range(1, 4):
        weights = [0.1 * 0.9 ** (t - i) for i in range(1, t + 1)]
        by_hand.append(sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights))
    assert training.smooth(values, 0.9) == pytest.approx(by_hand)
    assert training.smooth(values, 0.0) == values


def test_the_history_is_the_log_with_its_clippings_and_evaluations(
    engine: Engine, connection: Connection
) -> None:
    make(engine)
    before = log_evaluation(engine)
    run(engine, 3, grad_clip=0.5, total_steps=5)
    middle = log_evaluation(engine)
    run(engine, 2, grad_clip=1e6, start_step=1, total_steps=5)
    history = read.read_history(connection, "m")
    rows = connection.execute(text("SELECT step, loss, lr, grad_norm FROM llm_train_log ORDER BY step")).all()
    assert [(s.step, s.loss, s.lr, s.grad_norm) for s in history.steps] == [tuple(row) for row in rows]
    assert [s.clip_threshold for s in history.steps] == [0.5, 0.5, 0.5, 1e6, 1e6]
    assert [s.clipped for s in history.steps] == [float(row.grad_norm) > 0.5 for row in rows[:3]] + [
        False
    ] * 2
    assert any(s.clipped for s in history.steps)
    assert history.run_starts == [4]
    assert [(e.step, e.split, e.loss) for e in history.evaluations] == [
        (0, "validation", before),
        (3, "validation", middle),
    ]
    shown = "\n".join(training.lines(history))
    assert f"held-out: {before:.4f} at 0, {middle:.4f} at 3" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert [step["smoothed"] for step in training.as_json(history)["steps"]] == training.smooth(
        [row.loss for row in rows]
    )


def test_superseded_steps_and_their_evaluations_are_left_out(engine: Engine, connection: Connection) -> None:
    make(engine)
    run(engine, 2)
    log_evaluation(engine)
    with engine.begin() as other:
        other.execute(text("SELECT llm_init_model('m', 4)"))
    run(engine, 1)
    history = read.read_history(connection, "m")
    assert [s.step for s in history.steps] == [1]
    assert history.evaluations == []


def test_the_last_of_two_evaluations_counts_and_each_split_is_a_line(
    engine: Engine, connection: Connection
) -> None:
    make(engine)
    run(engine, 1)
    for split in ("validation", "train", "validation"):
        log_evaluation(engine, split)
    history = read.read_history(connection, "m")
    assert list(training.by_split(history.evaluations)) == ["validation", "train"]
    assert len(history.evaluations) == 2


def test_a_model_without_steps_and_no_model(engine: Engine, connection: Connection) -> None:
    make(engine)
    with pytest.raises(LLMSQLError, match='"m" has not been trained'):
        read.read_history(connection, "m")
    for reader in (read.read_history, read.read_pass, read.read_step):
        with pytest.raises(LLMSQLError, match='"nobody" does not exist'):
            reader(connection, "nobody")


def test_chart_columns_are_means_of_neighbours() -> None:
    assert characters.columns_of([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]
    lines = characters.chart([0.0, 1.0], height=2)
    assert [line[10:] for line in lines] == [" █", "▁█"]


# ---- a recorded step and its parameters ----


def parameters_read(recorded: read.Pass) -> list[str]:
    """The parameters' names in the order in which ops first read them."""
    reads = dict.fromkeys(name for op in recorded.ops for name in op.reads)
    return [name for name in reads if not name.startswith("#")]


@pytest.mark.parametrize("arch", ["gpt2", "microgpt"])
def test_a_step_by_layers(engine: Engine, connection: Connection, arch: str) -> None:
    make(engine, arch)
    run(engine, 2, grad_clip=0.1)
    step = read.read_step(connection, "m")
    assert (step.step, step.batch_size, step.clipped, step.clip_threshold) == (2, 2, True, 0.1)
    assert [layer.label for layer in step.layers] == ["embedding", "0", "1", "head"]
    # Together the layers have all of the step's gradient, and what clipping left of it.
    assert sum(layer.gradient**2 for layer in step.layers) ** 0.5 == pytest.approx(step.grad_norm, rel=1e-5)
    assert sum(layer.clipped_gradient**2 for layer in step.layers) ** 0.5 == pytest.approx(0.1, rel=1e-5)
    moments = connection.execute(
        text("SELECT sqrt(sum(norm(m) ^ 2)) FROM llm_param WHERE layer = 1")
    ).scalar_one()
    assert step.layers[2].m == pytest.approx(moments)
    stream = connection.execute(
        text(
            "SELECT r.norm FROM llm_tape t JOIN llm_tensor_rt r ON r.id = t.output"
            " WHERE t.name = 'add' ORDER BY t.position DESC LIMIT 1"
        )
    ).scalar_one()
    assert step.layers[2].output == stream
    frames = flow.frames(step)
    assert [f.stage for f in frames if f.stage not in ("forward", "backward")] == [
        "data", "weights", "loss", "clip", "AdamW", "log",
    ]  # fmt: skip
    backward = [f.gradients for f in frames if f.stage == "backward"]
    assert backward == [1, 2, 3, 4]
    assert f"{step.layers[3].gradient:.4g}" in next(f.text for f in frames if f.stage == "backward")


def test_gradients_of_accumulated_micro_batches_are_the_steps(engine: Engine, connection: Connection) -> None:
    make(engine)
    run(engine, 1, grad_clip=0.1, grad_accum=3)
    step = read.read_step(connection, "m")
    assert step.batch_size == 6
    assert sum(layer.gradient**2 for layer in step.layers) ** 0.5 == pytest.approx(step.grad_norm, rel=1e-5)


def test_no_recorded_step(engine: Engine, connection: Connection) -> None:
    make(engine)
    with engine.begin() as other:
        other.execute(text("SET LOCAL pg_llm.tape_keep = 'none'"))
        other.execute(text("SELECT llm_train('m', 1, log_every => 0)"))
    with pytest.raises(LLMSQLError, match="no training step") as caught:
        read.read_step(connection, "m")
    assert "tape_keep" in str(caught.value.hint)


def test_many_layers_share_frames() -> None:
    layers = [read.Layer(str(n), 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(48)]
    step = read.Step("m", 1, 2.0, 1e-3, 1.0, 10, None, 1, None, False, 5, layers)
    stages = flow.frames(step)
    assert len(stages) < 30
    assert [f.gradients for f in stages if f.stage == "backward"][-1] == 48


@pytest.mark.parametrize("arch", ["gpt2", "microgpt"])
def test_the_tape_names_the_parameters_that_it_read(
    engine: Engine, connection: Connection, arch: str
) -> None:
    make(engine, arch)
    run(engine, 1)
    recorded = read.read_pass(connection, "m")
    names = set(connection.scalars(text("SELECT name FROM llm_param WHERE model = 'm'")))
    assert set(parameters_read(recorded)) == names
    assert all(re.fullmatch(r"#\d+", name) or name in names for op in recorded.ops for name in op.reads)
    lines = tape.lines(recorded, "m")
    assert max(map(len, lines)) <= 80
    assert any("h.1.attn." in line for line in lines)
    assert f'label="wte.weight\\n{tape.size(recorded.parameters[0].shape)}", shape=ellipse' in tape.dot(
        recorded
    )


def test_names_that_differ_in_their_last_part_are_shown_as_one() -> None:
    assert tape.shorten(["#4", "a.weight", "a.bias", "b.weight"]) == ["#4", "a.{weight,bias}", "b.weight"]


def test_an_architecture_of_ones_own_names_its_parameters(engine: Engine, connection: Connection) -> None:
    mixed = g.causal_attention_qkv(g.linear(g.rms_norm(g.x), g.p("h.{layer}.qkv")), dropout_p=0.0)
    mine = g.Architecture(
        "mine",
        stem=g.embedding(g.p("wte"), g.tokens),
        block=g.x + g.linear(mixed, g.p("h.{layer}.out")),
        head=g.lm_head(g.rms_norm(g.x), g.p("wte")),
        parameters=[
            g.ParameterSpec("wte", (g.vocab, g.d_model)),
            g.ParameterSpec("h.{layer}.qkv", (g.d_model, 3 * g.d_model)),
            g.ParameterSpec("h.{layer}.out", (g.d_model, g.d_model), "residual"),
        ],
    )
    with Session(engine) as session:
        mine.register(session)
        session.commit()
    with pytest.raises(LLMSQLError, match='"mine" has no model'):
        graph.read_graph(connection, "mine")
    connection.rollback()
    make(engine, "mine")
    run(engine, 1)
    recorded = read.read_pass(connection, "m")
    assert parameters_read(recorded) == ["wte", "h.0.qkv", "h.0.out", "h.1.qkv", "h.1.out"]
    found = graph.read_graph(connection, "mine")
    assert [part.name for part in found.parts] == ["stem", "block", "head"]
    assert [op.name for op in found.parts[1].ops] == [
        "rmsnorm",
        "linear",
        "causal_attention",
        "linear",
        "add",
    ]
    assert [op.name for op in found.parts[2].ops] == ["rmsnorm", "lm_head"]
    assert len(attention.read_attention(connection, "m", "the cat").maps) == 4


# ---- attention ----


def reference_maps(parameters: dict[str, Array], ids: list[int], n_head: int, arch: str) -> list[Array]:
    """Attention weights [n_head, T, T] of every layer in float64, by the equations of the reference."""
    p = {name: np.asarray(value, dtype=np.float64) for name, value in parameters.items()}
    maps = []
    x = p["wte.weight"][ids] + p["wpe.weight"][: len(ids)]
    if arch == "microgpt":
        x = ops.rmsnorm(x, 1e-5)
    for layer in range(depth(parameters)):
        h = f"h.{layer}"
        if arch == "gpt2":
            norm = ops.layernorm(x, p[f"{h}.ln_1.weight"], p[f"{h}.ln_1.bias"], 1e-5)
            qkv = ops.linear(norm, p[f"{h}.attn.c_attn.weight"], p[f"{h}.attn.c_attn.bias"])
            q, k, v = np.split(qkv, 3, axis=-1)
        else:
            norm = ops.rmsnorm(x, 1e-5)
            q, k, v = (norm @ p[f"{h}.attn.{part}_proj.weight"] for part in "qkv")
        width = q.shape[-1] // n_head
        found = []
        for head in range(n_head):
            part = slice(head * width, (head + 1) * width)
            scores = q[:, part] @ k[:, part].T / np.sqrt(width)
            scores[np.triu_indices(len(ids), 1)] = -np.inf
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            found.append(weights / weights.sum(axis=-1, keepdims=True))
        maps.append(np.stack(found))
        attended = ops.attention(q, k, v, n_head)
        if arch == "gpt2":
            x = x + ops.linear(attended, p[f"{h}.attn.c_proj.weight"], p[f"{h}.attn.c_proj.bias"])
            norm = ops.layernorm(x, p[f"{h}.ln_2.weight"], p[f"{h}.ln_2.bias"], 1e-5)
            hidden = ops.gelu(ops.linear(norm, p[f"{h}.mlp.c_fc.weight"], p[f"{h}.mlp.c_fc.bias"]))
            x = x + ops.linear(hidden, p[f"{h}.mlp.c_proj.weight"], p[f"{h}.mlp.c_proj.bias"])
        else:
            x = x + attended @ p[f"{h}.attn.o_proj.weight"]
            x = x + ops.relu(ops.rmsnorm(x, 1e-5) @ p[f"{h}.mlp.fc1.weight"]) @ p[f"{h}.mlp.fc2.weight"]
    return maps


@pytest.mark.parametrize("arch", ["gpt2", "microgpt"])
def test_attention_is_the_references(engine: Engine, connection: Connection, arch: str) -> None:
    make(engine, arch)
    content = "the cat sat a dog"
    with Session(engine) as session:
        lm = LanguageModel(session, "m")
        ids = lm.encode(content)
        rows = session.execute(text("SELECT name, data::real[] FROM llm_param WHERE model = 'm'")).all()
    expected = reference_maps({name: np.array(data) for name, data in rows}, ids, 2, arch)
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    found = attention.read_attention(connection, "m", content)
    assert "".join(found.tokens) == content
    assert [(one.layer, one.head) for one in found.maps] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for one in found.maps:
        reference = expected[one.layer][one.head]
        assert reference[8].max() > 2 / 9  # not nearly even
        np.testing.assert_allclose(one.weights, reference, rtol=1e-4, atol=1e-6)
        assert np.all(one.weights[np.triu_indices(len(ids), 1)] == 0)
    chosen = attention.read_attention(connection, "m", content, layer=1, head=0)
    assert np.array_equal(chosen.maps[0].weights, found.maps[2].weights)
    assert connection.scalar(text("SELECT pg_llm_recording()")) is False
    lines = attention.lines(chosen)
    assert len(lines) == 3 + len(ids)
    assert max(map(len, lines)) <= 80


def test_a_reader_may_look_at_attention(engine: Engine, connection: Connection) -> None:
    make(engine)
    connection.exec_driver_sql("SET ROLE llm_reader")
    assert len(attention.read_attention(connection, "m", "the cat").maps) == 4
    connection.rollback()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "empty"),
        ("the cat sat on a cat the cat sat", {}, "context"),
        ("the cat", {"layer": 2}, "no layer 2"),
        ("the cat", {"head": -1}, "no head -1"),
    ],
)
def test_what_attention_refuses(
    engine: Engine, connection: Connection, content: str, options: dict[str, int], message: str
) -> None:
    make(engine)
    content = content.replace("on ", "a ") + (" the cat" * 3 if "context" in message else "")
    with pytest.raises(UsageError, match=message):
        attention.read_attention(connection, "m", content, **options)


# ---- graphs and the schema ----


def test_the_graph_of_an_architecture_is_its_expression_tree() -> None:
    found = graph.of_architecture(g.gpt2)
    stem, block, head = found.parts
    assert [op.name for op in stem.ops] == ["embedding", "embedding", "add", "dropout"]
    assert block.ops[0].parameters == ("h.{layer}.ln_1.weight", "h.{layer}.ln_1.bias")
    assert block.ops[5].inputs == (graph.STREAM, 5)
    assert head.ops[-1].parameters == ("wte.weight or lm_head.weight",)
    assert "block × n_layer" in "\n".join(graph.lines(found))
    assert graph.dot(found).count("->") == graph.mermaid(found).count("-->")


@pytest.mark.parametrize("arch", ["gpt2", "microgpt"])
def test_the_graph_of_a_model_is_that_of_its_architecture(
    engine: Engine, connection: Connection, arch: str
) -> None:
    make(engine, arch)
    from_pass = graph.read_graph(connection, "m")
    from_tree = graph.of_architecture({"gpt2": g.gpt2, "microgpt": g.microgpt}[arch])
    for ours, theirs in zip(from_pass.parts, from_tree.parts, strict=True):
        assert [op.inputs for op in ours.ops] == [op.inputs for op in theirs.ops]
    assert from_pass.parts[0].ops[0].shape == "8×16"
    assert connection.scalar(text("SELECT count(*) FROM llm_tape")) == 0


def test_unknown_names_have_no_graph(connection: Connection, engine: Engine) -> None:
    with pytest.raises(LLMSQLError, match='no architecture or model "gpt9"'):
        graph.read_graph(connection, "gpt9")
    # Seeded without weights: the architecture's tree.
    assert graph.read_graph(connection, "gpt2-small").parts[1].title == "block × 12"


def test_links_by_name_are_of_columns_that_exist_and_no_foreign_key_already() -> None:
    tables = {table.name: table for table in metadata.tables.values()}
    declared = {(link.table, link.columns) for link in schema.links() if link.declared}
    assert len(declared) == sum(len(table.foreign_key_constraints) for table in tables.values())
    for link in schema.BY_NAME:
        assert set(link.columns) <= set(tables[link.table].columns.keys())
        assert set(link.referred) <= set(tables[link.refers_to].columns.keys())
        assert (link.table, link.columns) not in declared
    # Whatever names a model is linked to it, by a key or by name.
    linked = {link.table for link in schema.links() if "model" in link.columns}
    assert linked == {name for name, table in tables.items() if "model" in table.columns} - {
        "llm_model_config"
    }
    assert [table.name for table in schema.tables()] == [name for column in schema.COLUMNS for name in column]
