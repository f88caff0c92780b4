"""The bench measures what it says, and leaves the database as it was."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from llm_sql import bench
from llm_sql.bench import gemm, generation, generation_llama, generation_peers, layers, memory, steps
from llm_sql.bench.gemm import EngineProducts, NumpyProducts, operands
from llm_sql.bench.layers import EngineLayer
from llm_sql.bench.machine import Machine
from llm_sql.bench.report import Row, interleaved
from llm_sql.bench.roofline import attention_flops, training_step
from llm_sql.bench.scratch import scratch_database
from llm_sql.bench.sessions import measure_sessions
from llm_sql.bench.shapes import GPT2_LONG, MICROGPT, SMALL, Layer, Product, products_of_linear
from llm_sql.bench.storage import measure_storage
from llm_sql.bench.worker import Worker
from llm_sql.cli import app
from llm_sql.errors import UsageError
from llm_sql.kernels import DecodeLoop
from llm_sql.kernels import Engine as KernelEngine

from ..amount import extended


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's side has its own tests; elsewhere it would only take time."""
    for module in (gemm, layers, memory, steps):
        monkeypatch.setattr(module, "has_torch", lambda: False)


def databases(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT datname FROM pg_database ORDER BY 1")))


@extended
@pytest.mark.usefixtures("no_torch")
def test_steps_are_timed_in_a_database_of_their_own(engine: Engine) -> None:
    before = databases(engine)
    rows = list(bench.run_bench(lambda: engine, ["train"], threads=2, repeats=1))
    assert [row.what for row in rows] == [
        "step of microgpt, B=1 T=8",
        "step of 4 layers, d 128, B=12 T=64",
        "step of GPT-2 124M outside kernels",
    ]
    assert all(row.llm_sql is not None and 0 < row.llm_sql < 10_000 for row in rows)
    assert all(row.pytorch is None and row.ratio is None for row in rows)
    assert databases(engine) == before
    with engine.connect() as connection:
        left = text("SELECT (SELECT count(*) FROM llm_param) + (SELECT count(*) FROM llm_dataset)")
        assert connection.scalar(left) == 0


def test_sessions_train_at_once(engine: Engine) -> None:
    trained = text("SELECT count(DISTINCT model) FROM llm_train_log WHERE step = 11")
    with scratch_database(engine) as scratch:
        rows = list(measure_sessions(scratch, 2, 1, shape=MICROGPT, sessions=(1, 3)))
        with scratch.connect() as connection:
            assert connection.scalar(trained) == 3
    assert [row.what for row in rows] == [
        "microgpt, B=1 T=8, 1 session at once", "microgpt, B=1 T=8, 3 sessions at once",
    ]  # fmt: skip
    assert all(row.llm_sql and row.unit == "steps/s" for row in rows)
    assert rows[1].note.endswith("times one session's")


def test_storage_stands_beside_what_is_said_of_it(engine: Engine) -> None:
    with scratch_database(engine) as scratch:
        rows = list(measure_storage(scratch, 2, 2, shape=SMALL))
    assert [(row.what, row.unit) for row in rows] == [
        ("write back 4 layers", "s"), ("load 4 layers", "s"),
        ("WAL of a write-back", "GB"), ("llm_param on disk", "GB"),
    ]  # fmt: skip
    for row in rows[2:]:
        # Other sessions' WAL counts, too, so a busy server may show more than was said.
        assert re.search(r"(within|BEYOND) the \S+ GB of llm_write_cost", row.note), row.note
        assert row.llm_sql is not None
        assert row.llm_sql > 0


@extended
@pytest.mark.usefixtures("no_torch")
def test_products_are_timed_beside_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    products = products_of_linear("mlp", 70, 50, 90)
    monkeypatch.setattr(gemm, "gpt2_products", lambda rows, head_rows: products)
    rows = list(gemm.measure_gemm(Machine(), (1,), 1, quick=True))
    assert [row.what for row in rows] == [
        "mlp 70 x 90 x 50 NN", "mlp dx 70 x 50 x 90 NT", "mlp dw 50 x 90 x 70 TN",
    ]  # fmt: skip
    assert all(row.llm_sql and row.numpy and row.of_peak for row in rows)


@pytest.mark.parametrize("form", ["NN", "NT", "TN"])
def test_every_side_computes_the_same_product(form: str) -> None:
    a, b, out = operands(Product("p", 30, 20, 10, form))
    expected = (a.T if form == "TN" else a).astype(np.float64) @ (b.T if form == "NT" else b)
    for side in (EngineProducts(KernelEngine()), NumpyProducts()):
        out[...] = np.nan
        side.multiply(a, b, out, form)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("no_torch")
def test_a_layer_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = (Layer("small", 48, 3, 20), Layer("vast", 48_000_000, 3, 20))
    monkeypatch.setattr(layers, "GPT3_LAYERS", shapes)
    small, vast = layers.measure_layers(Machine(), 1, 1, quick=False)
    assert small.llm_sql is not None
    assert small.llm_sql > 0
    assert (vast.llm_sql, "GB of memory" in vast.note) == (None, True)


def test_the_roofline_counts_what_a_step_must_do() -> None:
    assert GPT2_LONG.n_parameters == 124_439_808
    work = training_step(GPT2_LONG)
    # Six operations a token for each weight that is multiplied by (all but positions, biases, gains).
    weights = 12 * 12 * 768**2 + 50257 * 768
    assert work.flops == 6 * 1024 * weights + 12 * attention_flops(1, 1024, 768)
    assert attention_flops(1, 2, 1) == 6 * 2 * 3
    assert work.bytes == 44 * GPT2_LONG.n_parameters + 2 * 16 * 4 * 12 * 1024 * 768
    assert work.seconds(1e12, 1e11) == work.flops / 1e12 + work.bytes / 1e11


def test_ratios_below_one_are_better() -> None:
    assert Row("s", "time", 1, "ms", 2.0, 4.0).ratio == 0.5
    assert Row("s", "rate", 1, "GFLOP/s", 4.0, 2.0).ratio == 0.5
    assert Row("s", "alone", 1, "ms", 2.0).ratio is None
    order: list[str] = []
    interleaved({"a": lambda: order.append("a") or 0.0, "b": lambda: order.append("b") or 0.0}, 2)
    assert order == ["a", "b", "a", "b"]


def test_sections_by_name() -> None:
    assert bench.parse_sections(["train", "machine"]) == ("machine", "train")
    assert bench.parse_sections([]) == bench.QUICK
    assert bench.parse_sections(["all"]) == bench.SECTIONS
    with pytest.raises(UsageError, match="trian"):
        bench.parse_sections(["trian"])


def test_the_command_needs_no_server_for_the_machine() -> None:
    result = CliRunner().invoke(app, ["bench", "machine", "--threads", "1", "--json"])
    peak, bandwidth = json.loads(result.stdout)
    assert (peak["what"], peak["unit"]) == ("FMA peak", "GFLOP/s")
    assert peak["llm_sql"] > 1
    assert bandwidth["llm_sql"] > 0.1


def test_peak_memory_of_a_child() -> None:
    with Worker("numpy", 1) as worker:
        before = worker.peak_memory()
        worker.gemm_seconds(Product("p", 3000, 3000, 8, "NN"))
        assert worker.peak_memory() - before > 3000 * 3000 * 4 / 2


# -- PyTorch's side


def test_the_reference_is_the_same_model() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from llm_sql.bench.torch_reference import GPT

    for shape in (SMALL, MICROGPT):
        assert sum(p.numel() for p in GPT(shape, 0.0).parameters()) == shape.n_parameters


def test_a_layer_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from llm_sql.bench.torch_reference import TorchLayer

    monkeypatch.setattr(layers, "DROPOUT", 0.0)
    layer = Layer("small", 48, 3, 20)
    ours, theirs = EngineLayer(layer, 1), TorchLayer(layer, 0.0)
    block = theirs._block
    linear = {"qkv": block.qkv, "project": block.project, "expand": block.expand, "contract": block.contract}
    with torch.no_grad():
        theirs._x.copy_(torch.from_numpy(ours._x))
        theirs._dout.copy_(torch.from_numpy(ours._dout))
        for name, module in linear.items():
            module.weight.copy_(torch.from_numpy(ours._w[name].T.copy()))
            module.bias.zero_()
    theirs.seconds()
    out, dx, grads = ours.forward_backward()
    np.testing.assert_allclose(out, block(theirs._x).detach().numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, theirs._x.grad.numpy(), rtol=1e-5, atol=1e-5)
    for name, module in linear.items():
        np.testing.assert_allclose(grads[name], module.weight.grad.numpy().T, rtol=1e-4, atol=1e-5)


def test_tokenizing_is_timed_beside_tiktoken(engine: Engine) -> None:
    pytest.importorskip("tiktoken")
    (row,) = bench.run_bench(lambda: engine, ["tokenizer"], threads=1, repeats=1)
    assert row.unit == "MB/s"
    assert row.llm_sql is not None
    assert row.llm_sql > 0
    assert row.note.startswith("tiktoken")


def test_tokenizing_needs_tiktoken_to_compare_with(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (row,) = bench.run_bench(lambda: engine, ["tokenizer"], threads=1, repeats=1)
    assert row.llm_sql is None
    assert "not installed" in row.note


def gpt2_weights(n_layer: int, width: int, vocab: int, positions: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (vocab, width), "wpe.weight": (positions, width)}
    matrices = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
    matrices |= {"mlp.c_fc": (width, 4 * width), "mlp.c_proj": (4 * width, width)}
    for norm in ("ln_f", *(f"h.{i}.ln_{j}" for i in range(n_layer) for j in (1, 2))):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for layer in range(n_layer):
        for name, shape in matrices.items():
            shapes |= {f"h.{layer}.{name}.weight": shape, f"h.{layer}.{name}.bias": shape[1:]}
    return {name: 0.1 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_other_engines_generate_from_the_same_weights(precision: str, tmp_path: Path) -> None:
    """From the weights of one file, each in its own process."""
    path = tmp_path / "weights.npz"
    np.savez(path, **gpt2_weights(2, 128, 1000, 64))  # type: ignore[arg-type]
    missing = generation_peers.missing_peers()
    if len(missing) == len(generation_peers.MODULES):
        pytest.skip("no other engine is installed")
    for library, form in generation_peers.PEERS[precision]:
        if library in missing:
            continue
        with Worker("generation", 1) as worker:
            worker.make_generator(library, form, str(path), 4)
            prefill, decode = worker.generation_seconds(16, 8)
        assert 0 < prefill < 60
        assert 0 < decode < 60


def test_a_llama_generates_beside_others(engine: Engine) -> None:
    """In both forms; llama.cpp reads a file of the same sizes, where it is installed."""
    tiny = generation_llama.Llama("tiny", 2, 3, 1, 96, 256, 256, 1000)
    with scratch_database(engine) as scratch:
        rows = list(generation_llama.measure_llama(scratch, 1, 1, quick=True, model=tiny))
    assert [row.what for row in rows] == [f"further tokens, tiny, {name}" for name in ("bf16", "int4")]
    for row in rows:
        assert row.llm_sql is not None
        assert row.llm_sql > 0
        assert (row.llama_cpp is None) == ("llama.cpp" in generation_peers.missing_peers())


def test_a_row_has_a_column_per_engine() -> None:
    samples = {"int8": [(2.0, 1.0)], "llama.cpp q8_0": [(4.0, 3.0)], "loop in C int8": [(0.0, 0.5)]}
    row = generation.beside(samples, "further tokens", "int8", 1, 64, 2)
    assert (row.llm_sql, row.llama_cpp, row.c_loop, row.ctranslate2) == (64.0, 64 / 3, 128.0, None)
    assert (row.ratio, row.note) == (1 / 3, "llama.cpp q8_0")
    assert generation.beside(samples, "prompt", "int8", 0, 512, 2).c_loop is None


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8", "int4"])
def test_the_loop_in_c(precision: str) -> None:
    sizes = {"n_layer": 2, "n_head": 3, "d_model": 48, "n_positions": 20, "vocab": 100}
    loop = DecodeLoop(KernelEngine(threads=2), **sizes, precision=precision)
    loop.prompt(15)
    assert 0 <= loop.tokens(15, 5) < 100
    for call in (lambda: loop.prompt(21), lambda: loop.tokens(15, 6), lambda: loop.tokens(21, 0)):
        with pytest.raises(ValueError, match="20 positions"):
            call()
    with pytest.raises(ValueError, match="n_head must divide"):
        DecodeLoop(KernelEngine(), **sizes | {"n_head": 5})
