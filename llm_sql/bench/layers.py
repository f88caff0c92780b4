"""GPT-3's transformer layers, one at a time: forward and backward through the engine's ops.

The ops are those that the server runs, in the order of its forward and backward passes, called from Python,
so that a layer whose weights would fill a server's memory can be measured alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil  # type: ignore[import-untyped]
from numpy.typing import NDArray

from llm_sql.bench.machine import Machine
from llm_sql.bench.report import Row, interleaved, median
from llm_sql.bench.roofline import layer_pass
from llm_sql.bench.shapes import DROPOUT, GPT3_LAYERS, Layer
from llm_sql.bench.worker import Worker, has_torch
from llm_sql.kernels import Engine

Array = NDArray[np.float32]

# Linear layers of a transformer layer: name, inputs and outputs in multiples of d_model.
LINEAR = (("qkv", 1, 3), ("project", 1, 1), ("expand", 1, 4), ("contract", 4, 1))
MEMORY_MARGIN = 1.25  # over weights and gradients: activations, packed panels, the allocator


def measure_layers(machine: Machine, threads: int, repeats: int, *, quick: bool) -> Iterator[Row]:
    """One row per layer; a layer that does not fit into memory gets a note instead of figures."""
    for layer in GPT3_LAYERS[:2] if quick else GPT3_LAYERS:
        what = f"{layer.name}: d {layer.d_model}, {layer.n_head} heads, T={layer.tokens}"
        need = MEMORY_MARGIN * 2 * 4 * layer.n_parameters
        available = psutil.virtual_memory().available
        if need > available:
            note = f"needs {need / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free"
            yield Row("layers", what, threads, "ms", None, note=note)
            continue
        samples = _samples(machine, layer, threads, repeats, together=2 * need < available)
        seconds, peak = median(samples, "ours"), max(samples["peak"])
        assert seconds is not None
        theirs, work = median(samples, "torch"), layer_pass(layer)
        yield Row(
            "layers", what, threads, "ms", seconds * 1e3, None if theirs is None else theirs * 1e3,
            of_peak=work.flops / seconds / peak,
            of_roofline=seconds / work.seconds(peak, machine.bandwidth(threads)),
            note="" if 2 * need < available else "one engine after the other: both do not fit",
        )  # fmt: skip


def _samples(
    machine: Machine, layer: Layer, threads: int, repeats: int, *, together: bool
) -> dict[str, list[float]]:
    """Seconds of forward and backward by engine, and FMA peaks measured in between."""
    ours = {"peak": lambda: machine.peak_flops(threads), "ours": _warm(EngineLayer(layer, threads))}
    if not has_torch():
        return interleaved(ours, repeats)
    if not together:
        first = interleaved(ours, repeats)
        ours.clear()
        with Worker("torch", threads) as worker:
            return first | interleaved({"torch": _warm_worker(worker, layer)}, repeats)
    with Worker("torch", threads) as worker:
        return interleaved({**ours, "torch": _warm_worker(worker, layer)}, repeats)


def _warm(layer: EngineLayer) -> Callable[[], float]:
    layer.seconds()
    return layer.seconds


def _warm_worker(worker: Worker, layer: Layer) -> Callable[[], float]:
    worker.layer_seconds(layer)
    return lambda: worker.layer_seconds(layer)


class EngineLayer:
    """A pre-norm layer as GPT-2 has it: x + attention(ln(x)), then x + mlp(ln(x)), with dropout."""

    def __init__(self, layer: Layer, threads: int) -> None:
        self._engine = e = Engine(threads=threads)
        self._n_head, d = layer.n_head, layer.d_model
        std = 0.02 / math.sqrt(2)
        self._w = {
            name: e.normal((inputs * d, outputs * d), std=std, seed=1, stream=n)
            for n, (name, inputs, outputs) in enumerate(LINEAR)
        }
        self._b = {name: np.zeros(w.shape[1], np.float32) for name, w in self._w.items()}
        self._gain, self._shift = np.ones(d, np.float32), np.zeros(d, np.float32)
        self._x = e.normal((1, layer.tokens, d), seed=2, stream=1)
        self._dout = e.normal((1, layer.tokens, d), seed=2, stream=2)

    def seconds(self) -> float:
        started = time.perf_counter()
        self.forward_backward()
        return time.perf_counter() - started

    def forward_backward(self) -> tuple[Array, Array, dict[str, Array]]:
        """(output, gradient of the input, gradient of each weight)."""
        e, w, b, grads = self._engine, self._w, self._b, {}
        d = self._x.shape[-1]
        x, dout = self._x, self._dout

        ln_1, mean_1, rstd_1 = e.layernorm_forward(x, self._gain, self._shift)
        qkv = e.linear_forward(ln_1, w["qkv"], b["qkv"])
        q, k, v = qkv[..., :d], qkv[..., d : 2 * d], qkv[..., 2 * d :]
        attended, row_max, row_sum = e.attention_forward(
            q, k, v, self._n_head, dropout_p=DROPOUT, seed=1, step=1, site="attention"
        )
        h = e.add(x, self._dropout(e.linear_forward(attended, w["project"], b["project"]), "project"))
        ln_2, mean_2, rstd_2 = e.layernorm_forward(h, self._gain, self._shift)
        hidden = e.linear_forward(ln_2, w["expand"], b["expand"])
        active = e.gelu_forward(hidden)
        out = e.add(h, self._dropout(e.linear_forward(active, w["contract"], b["contract"]), "mlp"))

        dactive, grads["contract"], _ = e.linear_backward(self._dropout(dout, "mlp"), active, w["contract"])
        dln_2, grads["expand"], _ = e.linear_backward(e.gelu_backward(dactive, hidden), ln_2, w["expand"])
        dh, _, _ = e.layernorm_backward(dln_2, h, self._gain, mean_2, rstd_2, dx=dout)
        dattended, grads["project"], _ = e.linear_backward(
            self._dropout(dh, "project"), attended, w["project"]
        )
        gradients = e.attention_backward(
            dattended, attended, row_max, row_sum, q, k, v, self._n_head,
            dropout_p=DROPOUT, seed=1, step=1, site="attention",
        )  # fmt: skip
        dln_1, grads["qkv"], _ = e.linear_backward(np.concatenate(gradients, -1), ln_1, w["qkv"])
        dx, _, _ = e.layernorm_backward(dln_1, x, self._gain, mean_1, rstd_1, dx=dh)
        return out, dx, grads

    def _dropout(self, x: Array, site: str) -> Array:
        return self._engine.dropout(x, DROPOUT, seed=1, step=1, site=site)
