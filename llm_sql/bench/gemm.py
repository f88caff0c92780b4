"""Matrix products of GPT-2's shapes: the engine's, packing included, beside NumPy's BLAS and PyTorch's.

Every side writes into an array that exists already and sees the same layouts: NT and TN are products with a
transposed view, which a BLAS reads in place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from llm_sql.bench.machine import Machine
from llm_sql.bench.report import RATE, Row, interleaved, median
from llm_sql.bench.shapes import Product, gpt2_products
from llm_sql.bench.worker import Worker, has_torch
from llm_sql.kernels import Engine, best_isa

Array = NDArray[np.float32]

SAMPLE_SECONDS = 0.03  # of one sample at least, so that a clock's tick or a neighbour's millisecond is little


def measure_gemm(machine: Machine, threads: tuple[int, ...], repeats: int, *, quick: bool) -> Iterator[Row]:
    """One row per product and number of threads."""
    products = gpt2_products((1024,), (256,)) if quick else gpt2_products((256, 1024, 4096), (256, 1024))
    if quick:
        products = [p for p in products if p.name.split()[0] in ("qkv", "mlp", "head")]
    isas: tuple[str, ...] = (best_isa(),) if quick or best_isa() != "avx512" else ("avx512", "avx2")
    for n in threads:
        with contextlib.ExitStack() as stack:
            others = {"numpy": stack.enter_context(Worker("numpy", n))}
            if has_torch():
                others["torch"] = stack.enter_context(Worker("torch", n))
            for isa in isas:
                for product in products if isa == best_isa() else products[:12]:
                    yield _row(machine, product, n, isa, others, repeats)


def _row(
    machine: Machine, product: Product, threads: int, isa: str, workers: dict[str, Worker], repeats: int
) -> Row:
    ours = EngineProducts(Engine(isa=isa, threads=threads))
    samplers: dict[str, Callable[[], float]] = {"peak": lambda: machine.peak_flops(threads, isa)}
    samplers["ours"] = lambda: ours.seconds(product)
    if isa == best_isa():
        for name, worker in workers.items():
            samplers[name] = lambda worker=worker: worker.gemm_seconds(product)  # type: ignore[misc]
    samples = interleaved(samplers, repeats)
    gflops = {
        name: product.flops / seconds * 1e-9
        for name in ("ours", "torch", "numpy")
        if (seconds := median(samples, name)) is not None
    }
    what = f"{product.name} {product.m} x {product.n} x {product.k} {product.form}"
    return Row(
        "kernels", what if isa == best_isa() else f"{what}, {isa}", threads, RATE,
        gflops["ours"], gflops.get("torch"), gflops.get("numpy"),
        of_peak=gflops["ours"] * 1e9 / max(samples["peak"]),
    )  # fmt: skip


class Products:
    """Operands of one product at a time, and the time of `multiply`, which a subclass has."""

    def __init__(self) -> None:
        self._product: Product | None = None
        self._times = 1
        self._operands: tuple[Array, Array, Array]

    def seconds(self, product: Product) -> float:
        if product != self._product:
            self._product = product
            self._operands = operands(product)
            self._times = 1
            self._run()  # touches memory, starts threads
            self._times = max(1, round(SAMPLE_SECONDS / self._run()))
        return self._run()

    def _run(self) -> float:
        assert self._product is not None
        form = self._product.form
        started = time.perf_counter()
        for _ in range(self._times):
            self.multiply(*self._operands, form)
        return (time.perf_counter() - started) / self._times

    def multiply(self, a: Array, b: Array, out: Array, form: str) -> None:
        raise NotImplementedError


def operands(product: Product) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(1)
    m, n, k = product.m, product.n, product.k
    a = rng.standard_normal((k, m) if product.form == "TN" else (m, k), np.float32)
    b = rng.standard_normal((n, k) if product.form == "NT" else (k, n), np.float32)
    return a, b, np.zeros((m, n), np.float32)


class EngineProducts(Products):
    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def multiply(self, a: Array, b: Array, out: Array, form: str) -> None:
        self._engine.gemm(a, b, ta=form == "TN", tb=form == "NT", out=out)


class NumpyProducts(Products):
    def multiply(self, a: Array, b: Array, out: Array, form: str) -> None:
        np.matmul(a.T if form == "TN" else a, b.T if form == "NT" else b, out=out)
