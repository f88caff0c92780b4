# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
"""Tokens per second of a model of architecture llama, beside llama.cpp with as many bits to a weight.

SmolLM2-135M's sizes with random weights: time does not depend on their values. All read shared weights, ours
the files that sessions map, llama.cpp its own mapped file; its matrices are bf16's and int4's counterparts,
f16 and Q4_1, its embedding and head f16 and Q8_0, as published files have them.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, text

from llm_sql.bench.database import vacuum
from llm_sql.bench.generation import TOKENS, Generator
from llm_sql.bench.generation_peers import LlamaCppGenerator, missing_peers
from llm_sql.bench.report import Row
from llm_sql.bench.worker import Worker

N_PROMPT, N_TOKENS = 64, 64
# Ours, and llama.cpp's form of the matrices and of the embedding.
FORMS = {"bf16": "F16", "int4": "Q4_1"}
HEADS = {"F16": "F16", "Q4_1": "Q8_0"}


@dataclass(frozen=True)
class Llama:
    """A model by its sizes."""

    name: str
    n_layer: int
    n_head: int
    n_kv_head: int
    d_model: int
    d_ff: int
    n_positions: int
    vocab: int


SMOLLM2 = Llama("SmolLM2-135M", 30, 9, 3, 576, 1536, 1024, 49152)
SMALL = Llama("Llama, 4 layers, width 192", 4, 3, 1, 192, 512, 1024, 8192)

REGISTER = """
INSERT INTO llm_model_config
    (model, arch, n_layer, n_head, d_model, d_ff, n_positions, vocab, tied, activation_function,
     layer_norm_eps, settings)
VALUES (:name, 'llama', :n_layer, :n_head, :d_model, :d_ff, :n_positions, :vocab, true, 'silu', 1e-5,
    jsonb_build_object('n_kv_head', CAST(:n_kv_head AS int), 'rope_theta', 1e5))
"""


# ---- llama.cpp ----


def write_gguf(path: Path, form: str, sizes: Llama) -> None:
    """A GGUF file of architecture llama with random matrices and without a vocabulary."""
    import gguf

    draw = np.random.default_rng(1)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(sizes.n_layer)
    writer.add_context_length(sizes.n_positions)
    writer.add_embedding_length(sizes.d_model)
    writer.add_feed_forward_length(sizes.d_ff)
    writer.add_head_count(sizes.n_head)
    writer.add_head_count_kv(sizes.n_kv_head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_rope_dimension_count(sizes.d_model // sizes.n_head)
    writer.add_vocab_size(sizes.vocab)
    writer.add_tokenizer_model("no_vocab")

    def add(name: str, outputs: int, inputs: int, kind: str = form) -> None:
        type_ = gguf.GGMLQuantizationType[kind]
        array = draw.standard_normal((outputs, inputs), np.float32) * np.float32(0.02)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(array, type_), raw_dtype=type_)

    width, narrow = sizes.d_model, sizes.d_model // sizes.n_head * sizes.n_kv_head
    add("token_embd", sizes.vocab, width, HEADS[form])
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(sizes.n_layer):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, np.float32))
        for name, outputs, inputs in (
            ("attn_q", width, width), ("attn_k", narrow, width), ("attn_v", narrow, width),
            ("attn_output", width, width), ("ffn_gate", sizes.d_ff, width), ("ffn_up", sizes.d_ff, width),
            ("ffn_down", width, sizes.d_ff),
        ):  # fmt: skip
            add(f"blk.{layer}.{name}", outputs, inputs)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_peer(form: str, threads: int, **sizes: Any) -> LlamaCppGenerator:
    model = Llama(**sizes)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "llama.gguf")
        write_gguf(path, form, model)
        return LlamaCppGenerator(path, model.n_positions, model.vocab, threads, shared=True)


# ---- rows ----


def measure_llama(
    engine: Engine, threads: int, repeats: int, *, quick: bool, model: Llama | None = None
) -> Iterator[Row]:
    """Rows for further tokens in every precision that llama.cpp has too; all take turns."""
    model = model or (SMALL if quick else SMOLLM2)
    with engine.begin() as connection:
        connection.execute(text(REGISTER), asdict(model))
        connection.execute(text("SELECT llm_init_model(:name, 1)"), {"name": model.name})
    with contextlib.ExitStack() as stack:
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        vacuum(stack.enter_context(engine.connect()))
        ours = {
            name: Generator(stack.enter_context(autocommit.connect()), model, name, threads) for name in FORMS
        }
        peers: dict[str, Worker] = {}
        if "llama.cpp" not in missing_peers():
            for form in FORMS.values():
                peers[form] = stack.enter_context(Worker("generation", threads))
                peers[form].make_llama(form, **asdict(model))
        generators: dict[str, Generator | Worker] = {**ours, **peers}
        samples: dict[str, list[float]] = {name: [] for name in generators}
        for at in range(repeats + 1):
            for name, one in generators.items():
                seconds = one.seconds if isinstance(one, Generator) else one.generation_seconds
                took = seconds(N_PROMPT, N_TOKENS)[1]
                if at > 0:  # the first time maps the weights
                    samples[name].append(took)
    for name, form in FORMS.items():
        theirs = samples.get(form)
        yield Row(
            "generate",
            f"further tokens, {model.name}, {name}",
            threads,
            TOKENS,
            N_TOKENS / statistics.median(samples[name]),
            llama_cpp=N_TOKENS / statistics.median(theirs) if theirs else None,
            note=f"llama.cpp {form}" if theirs else "",
        )
