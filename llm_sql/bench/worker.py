"""The other engines, each in a process of its own, so that neither threads nor memory mix with ours.

The parent writes one JSON object per line and reads one back: {"do": name, ...} -> {"value": number}.
`Worker` is the parent's side, `main` the child's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from llm_sql.bench.shapes import DROPOUT, GRAD_CLIP, Layer, Product, Shape
from llm_sql.errors import LLMSQLError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Their threads wait for more work in a loop for a while, which would slow whoever is measured next: PyTorch's
# products on two threads halved. OpenBLAS's wait for 2^26 cycles, unless told otherwise.
SETTLE_SECONDS = 0.05
OPENBLAS_WAIT = {"OPENBLAS_THREAD_TIMEOUT": "16"}
CHILD = "import sys; from llm_sql.bench.worker import main; main(sys.argv[1], int(sys.argv[2]))"


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


class Worker:
    """A child process that computes with NumPy or PyTorch on a fixed number of threads."""

    def __init__(self, library: str, threads: int) -> None:
        environment = {**os.environ, **OPENBLAS_WAIT, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, library, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def gemm_seconds(self, product: Product) -> float:
        """Seconds of one product."""
        return self._ask(do="gemm", **asdict(product))

    def make_model(self, shape: Shape) -> None:
        self._ask(do="model", **asdict(shape))

    def step_seconds(self, n_steps: int) -> float:
        """Seconds of n_steps training steps of the model made before."""
        return self._ask(do="steps", n_steps=n_steps)

    def layer_seconds(self, layer: Layer) -> float:
        """Seconds of one forward and backward pass through a transformer layer."""
        return self._ask(do="layer", **asdict(layer))

    def make_generator(self, library: str, precision: str, weights: str, n_head: int) -> None:
        """Read the weights of generation_peers.py's classes, in the library's own precision."""
        self._ask(do="generator", library=library, precision=precision, weights=weights, n_head=n_head)

    def make_llama(self, form: str, **sizes: int) -> None:
        """A Llama of these sizes for llama.cpp, in one of its forms (generation_llama.py)."""
        self._ask(do="llama", form=form, **sizes)

    def generation_seconds(self, n_prompt: int, n_tokens: int) -> tuple[float, float]:
        """Seconds of the prompt's pass up to the first token, and of n_tokens further tokens."""
        decode = self._ask(do="generate", n_prompt=n_prompt, n_tokens=n_tokens)
        return self._ask(do="prefill"), decode

    def make_embedder(self, library: str, directory: str, max_tokens: int) -> None:
        """Read the sentence encoder of a directory, as embedding_peers.py does."""
        self._ask(do="embedder", library=library, directory=directory, max_tokens=max_tokens)

    def embed_seconds(self, texts: list[str]) -> float:
        """Seconds of one call over all texts."""
        return self._ask(do="embed", texts=texts)

    def peak_memory(self) -> float:
        """Bytes: the largest resident size the process has had."""
        return self._ask(do="peak_memory")

    def _ask(self, **request: Any) -> float:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise LLMSQLError(
                f"the process that measures another engine ended with code {self._process.wait()}"
            )
        time.sleep(SETTLE_SECONDS)
        return float(json.loads(answer)["value"])


def peak_memory() -> float:
    """Bytes: this process's largest resident size."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before it started this program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) * 1024
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (
        1 if sys.platform == "darwin" else 1024
    )


def numpy_commands() -> dict[str, Callable[[dict[str, Any]], float]]:
    from llm_sql.bench.gemm import NumpyProducts

    products = NumpyProducts()
    return {"gemm": lambda request: products.seconds(Product(**request))}


def torch_commands(threads: int) -> dict[str, Callable[[dict[str, Any]], float]]:
    from llm_sql.bench.torch_reference import TorchLayer, TorchProducts, TorchStepper, set_threads

    set_threads(threads)
    products = TorchProducts()
    steppers: list[TorchStepper] = []
    layers: dict[Layer, TorchLayer] = {}

    def make_model(request: dict[str, Any]) -> float:
        steppers[:] = [TorchStepper(Shape(**request), dropout=DROPOUT, grad_clip=GRAD_CLIP)]
        return 0.0

    def layer_seconds(request: dict[str, Any]) -> float:
        layer = Layer(**request)
        if layer not in layers:
            layers.clear()
            layers[layer] = TorchLayer(layer, DROPOUT)
        return layers[layer].seconds()

    return {
        "gemm": lambda request: products.seconds(Product(**request)),
        "model": make_model,
        "steps": lambda request: steppers[0].time_steps(request["n_steps"]),
        "layer": layer_seconds,
    }


def generation_commands(threads: int) -> dict[str, Callable[[dict[str, Any]], float]]:
    from llm_sql.bench.generation_peers import PeerGenerator, make_peer

    generators: list[PeerGenerator] = []
    prefill = [0.0]

    def make_generator(request: dict[str, Any]) -> float:
        if request["library"] == "transformers":
            from llm_sql.bench.torch_reference import set_threads

            set_threads(threads)
        generators[:] = [make_peer(**request, threads=threads)]
        return 0.0

    def make_llama(request: dict[str, Any]) -> float:
        from llm_sql.bench.generation_llama import llama_peer

        generators[:] = [llama_peer(**request, threads=threads)]
        return 0.0

    def generate(request: dict[str, Any]) -> float:
        decode: float
        prefill[0], decode = generators[0].seconds(**request)
        return decode

    return {
        "generator": make_generator,
        "llama": make_llama,
        "generate": generate,
        "prefill": lambda request: prefill[0],
    }


def embedding_commands(threads: int) -> dict[str, Callable[[dict[str, Any]], float]]:
    from llm_sql.bench.embedding_peers import PeerEmbedder, make_embedder

    embedders: list[PeerEmbedder] = []

    def make(request: dict[str, Any]) -> float:
        embedders[:] = [make_embedder(**request, threads=threads)]
        return 0.0

    return {"embedder": make, "embed": lambda request: embedders[0].seconds(request["texts"])}


def main(library: str, threads: int) -> None:
    known = {"generation": generation_commands, "embedding": embedding_commands}
    commands = numpy_commands() if library == "numpy" else known.get(library, torch_commands)(threads)
    commands["peak_memory"] = lambda request: peak_memory()
    for line in sys.stdin:
        request = json.loads(line)
        value = commands[request.pop("do")](request)
        print(json.dumps({"value": value}), flush=True)
