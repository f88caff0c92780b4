# mypy: disable-error-code="import-not-found,import-untyped,misc,no-any-return,no-untyped-call,attr-defined"
"""Other engines' generation from the weights that the bench's model has, greedy, on one sequence.

Each class reads the .npz file that LanguageModel.export_weights wrote and has `seconds(n_prompt, n_tokens)`:
those of the prompt's pass up to the first token, and of the further tokens. They run in workers (worker.py);
a library that is not installed is left out of the comparison.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# What runs in which form: precision of ours -> (library, its own name for the precision).
PEERS: dict[str, tuple[tuple[str, str], ...]] = {
    "float32": (("transformers", "float32"), ("llama.cpp", "f32"), ("ctranslate2", "float32")),
    "bf16": (("llama.cpp", "f16"),),
    "int8": (("llama.cpp", "q8_0"), ("ctranslate2", "int8")),
}
MODULES = {
    "transformers": ("torch", "transformers"),
    "llama.cpp": ("llama_cpp", "gguf"),
    "ctranslate2": ("ctranslate2",),
}


def missing_peers() -> list[str]:
    """The libraries that cannot be compared with, for a module of theirs is not installed."""
    return [
        library
        for library, modules in MODULES.items()
        if any(importlib.util.find_spec(module) is None for module in modules)
    ]


class PeerGenerator(Protocol):
    def seconds(self, n_prompt: int, n_tokens: int) -> tuple[float, float]: ...


def make_peer(library: str, precision: str, weights: str, n_head: int, threads: int) -> PeerGenerator:
    """A generator of one library; the weights are the file's."""
    if library == "transformers":
        from llm_sql.bench.transformers_reference import TransformersGenerator

        return TransformersGenerator(read_weights(weights), n_head)
    arrays = read_weights(weights)
    if library == "ctranslate2":
        return CTranslate2Generator(arrays, n_head, precision, threads)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "gpt2.gguf")
        write_gguf(path, arrays, n_head, precision)
        n_positions, vocab = len(arrays["wpe.weight"]), len(arrays["wte.weight"])
        return LlamaCppGenerator(path, n_positions, vocab, threads)


def read_weights(path: str) -> dict[str, Any]:
    """GPT-2's arrays under their names in Hugging Face's GPT2Model."""
    with np.load(path) as file:
        return {name.removeprefix("transformer."): file[name] for name in file.files}


def layers_of(weights: dict[str, Any]) -> range:
    return range(1 + max(int(name.split(".")[1]) for name in weights if name.startswith("h.")))


# ---- llama.cpp ----

# GGUF's names of a block's arrays; matrices lie (outputs, inputs) there.
BLOCK_NAMES = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def gguf_arrays(weights: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "token_embd.weight", weights["wte.weight"]
    yield "output.weight", weights["wte.weight"]
    yield "position_embd.weight", weights["wpe.weight"]
    for part in ("weight", "bias"):
        yield f"output_norm.{part}", weights[f"ln_f.{part}"]
        for layer in layers_of(weights):
            for name, theirs in BLOCK_NAMES.items():
                yield f"blk.{layer}.{theirs}.{part}", weights[f"h.{layer}.{name}.{part}"].T


def write_gguf(path: Path, weights: dict[str, Any], n_head: int, precision: str) -> None:
    """A GGUF file of architecture gpt2 without a vocabulary; positions, gains and biases stay float32."""
    import gguf

    form = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0"}[precision]
    kind = gguf.GGMLQuantizationType[form]
    vocab, width = weights["wte.weight"].shape
    writer = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_block_count(len(layers_of(weights)))
    writer.add_context_length(weights["wpe.weight"].shape[0])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(weights["h.0.mlp.c_fc.weight"].shape[1])
    writer.add_head_count(n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("no_vocab")
    for name, array in gguf_arrays(weights):
        array = np.ascontiguousarray(array, np.float32)
        if array.ndim == 2 and name != "position_embd.weight" and form != "F32":
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCppGenerator:
    """llama.cpp through its C interface, with its default key/value cache, which is in f16.

    shared: the file is mapped, as several processes would map it, and nothing is copied into another order.
    """

    def __init__(
        self, path: Path, n_positions: int, vocab: int, threads: int, *, shared: bool = False
    ) -> None:
        import llama_cpp

        self._lib = llama_cpp
        # It would write about every tensor.
        self._silence = llama_cpp.llama_log_callback(lambda level, message, data: None)
        llama_cpp.llama_log_set(self._silence, None)
        self._vocab = vocab
        parameters = llama_cpp.llama_model_default_params()
        parameters.use_mmap = shared
        if shared:  # the copies crash where AMX is there but not usable
            parameters.use_extra_bufts = False
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise RuntimeError("llama.cpp could not load the model")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = n_positions
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, options)

    def seconds(self, n_prompt: int, n_tokens: int) -> tuple[float, float]:
        memory = self._lib.llama_get_memory(self._context)
        self._lib.llama_memory_clear(memory, False)
        started = time.perf_counter()
        token = self._step([i % self._vocab for i in range(n_prompt)])
        prefilled = time.perf_counter()
        for _ in range(n_tokens):
            token = self._step([token])
        return prefilled - started, time.perf_counter() - prefilled

    def _step(self, tokens: list[int]) -> int:
        ids = (self._lib.llama_token * len(tokens))(*tokens)
        if self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(ids, len(tokens))) != 0:
            raise RuntimeError("llama.cpp could not compute a pass")
        logits = self._lib.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab,)).argmax())


# ---- CTranslate2 ----


class CTranslate2Generator:
    """CTranslate2, whose model is built from the arrays as its own converter of GPT-2 does."""

    def __init__(self, weights: dict[str, Any], n_head: int, precision: str, threads: int) -> None:
        import ctranslate2

        self._tokens = [str(i) for i in range(weights["wte.weight"].shape[0])]
        with tempfile.TemporaryDirectory() as directory:
            spec = self._spec(weights, n_head)
            spec.validate()
            spec.optimize(quantization=None)
            spec.save(directory)
            self._generator = ctranslate2.Generator(directory, compute_type=precision, intra_threads=threads)

    def _spec(self, weights: dict[str, Any], n_head: int) -> Any:
        from ctranslate2.specs import common_spec, transformer_spec

        def fill(spec: Any, name: str) -> None:
            matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            if matrix.ndim == 1:
                spec.gamma, spec.beta = matrix, bias
            else:
                spec.weight, spec.bias = np.ascontiguousarray(matrix.T), bias

        spec = transformer_spec.TransformerDecoderModelSpec.from_config(
            len(layers_of(weights)), n_head, pre_norm=True, activation=common_spec.Activation.GELUTanh
        )
        decoder = spec.decoder
        decoder.scale_embeddings = False
        decoder.embeddings.weight = decoder.projection.weight = weights["wte.weight"]
        decoder.position_encodings.encodings = weights["wpe.weight"]
        fill(decoder.layer_norm, "ln_f")
        for i, layer in enumerate(decoder.layer):
            fill(layer.self_attention.layer_norm, f"h.{i}.ln_1")
            fill(layer.self_attention.linear[0], f"h.{i}.attn.c_attn")
            fill(layer.self_attention.linear[1], f"h.{i}.attn.c_proj")
            fill(layer.ffn.layer_norm, f"h.{i}.ln_2")
            fill(layer.ffn.linear_0, f"h.{i}.mlp.c_fc")
            fill(layer.ffn.linear_1, f"h.{i}.mlp.c_proj")
        spec.register_vocabulary(self._tokens)
        spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = self._tokens[-1]
        return spec

    def seconds(self, n_prompt: int, n_tokens: int) -> tuple[float, float]:
        prompt = [self._tokens[i % len(self._tokens)] for i in range(n_prompt)]
        times: list[float] = []

        def stamp(step: Any) -> bool:
            times.append(time.perf_counter())
            return False

        started = time.perf_counter()
        self._generator.generate_batch(
            [prompt], min_length=n_tokens + 1, max_length=n_tokens + 1, sampling_topk=1,
            include_prompt_in_result=False, callback=stamp,
        )  # fmt: skip
        return times[0] - started, times[-1] - times[0]
