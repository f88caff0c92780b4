# mypy: disable-error-code="import-not-found,import-untyped,misc,no-any-return,no-untyped-call,attr-defined"
"""Other engines' embeddings of the same texts from the same directory of files, tokenizer included.

Each class has `seconds(texts)`: one call, from strings to normalised vectors in memory. They run in workers
(worker.py); a library that is not installed is left out of the comparison.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Protocol

MODULES = {
    "sentence-transformers": ("torch", "sentence_transformers"),
    "transformers": ("torch", "transformers"),
    "onnxruntime": ("torch", "transformers", "onnx", "onnxruntime"),
}


def missing_embedders() -> list[str]:
    """The libraries that cannot be compared with, for a module of theirs is not installed."""
    return [
        library
        for library, modules in MODULES.items()
        if any(importlib.util.find_spec(module) is None for module in modules)
    ]


class PeerEmbedder(Protocol):
    def seconds(self, texts: list[str]) -> float: ...


def make_embedder(library: str, directory: str, max_tokens: int, threads: int) -> PeerEmbedder:
    from llm_sql.bench.torch_reference import set_threads

    set_threads(threads)
    quieten()
    if library == "sentence-transformers":
        return SentenceTransformersEmbedder(directory)
    if library == "transformers":
        return TransformersEmbedder(directory, max_tokens)
    return OnnxEmbedder(directory, max_tokens, threads)


def quieten() -> None:
    """Their bars, reports of what a file has besides, and warnings of tracing are nobody's business here."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")


class SentenceTransformersEmbedder:
    """Its encode(), with all texts in one batch."""

    def __init__(self, directory: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(directory, device="cpu")

    def seconds(self, texts: list[str]) -> float:
        started = time.perf_counter()
        self._model.encode(texts, batch_size=len(texts), show_progress_bar=False)
        return time.perf_counter() - started


class PooledBert:
    """BertModel, the mean over a text's tokens, and length one: as sentence-transformers does it."""

    def __init__(self, directory: str, max_tokens: int, attention: str = "sdpa") -> None:
        from transformers import AutoTokenizer, BertModel

        self._max_tokens = max_tokens
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self.bert = BertModel.from_pretrained(
            directory, add_pooling_layer=False, attn_implementation=attention
        ).eval()

    def tokens(self, texts: list[str]) -> tuple[Any, Any]:
        found = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        return found["input_ids"], found["attention_mask"]

    def vectors(self, ids: Any, mask: Any) -> Any:
        import torch

        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        means = (states * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(means, dim=-1)


class TransformersEmbedder:
    def __init__(self, directory: str, max_tokens: int) -> None:
        self._model = PooledBert(directory, max_tokens)

    def seconds(self, texts: list[str]) -> float:
        import torch

        started = time.perf_counter()
        with torch.inference_mode():
            self._model.vectors(*self._model.tokens(texts))
        return time.perf_counter() - started


class OnnxEmbedder:
    """The model exported by PyTorch, with the fusions of onnxruntime's own optimizer for BERT."""

    def __init__(self, directory: str, max_tokens: int, threads: int) -> None:
        import onnxruntime

        self._model = PooledBert(directory, max_tokens, attention="eager")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            self._export(path)
            self._session = onnxruntime.InferenceSession(
                str(self._fused(path)), options, providers=["CPUExecutionProvider"]
            )

    def _export(self, path: Path) -> None:
        import torch

        model = self._model

        class Whole(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bert = model.bert

            def forward(self, input_ids: Any, attention_mask: Any) -> Any:
                return model.vectors(input_ids, attention_mask)

        ids, mask = model.tokens(["one text", "and another text"])
        axes = {0: "texts", 1: "tokens"}
        with torch.inference_mode():
            torch.onnx.export(
                Whole().eval(), (ids, mask), str(path), input_names=["input_ids", "attention_mask"],
                output_names=["vectors"], opset_version=17, dynamo=False,
                dynamic_axes={"input_ids": axes, "attention_mask": axes, "vectors": {0: "texts"}},
            )  # fmt: skip

    def _fused(self, path: Path) -> Path:
        try:
            from onnxruntime.transformers.optimizer import optimize_model
        except ImportError:  # its requirements are not onnxruntime's
            return path
        config = self._model.bert.config
        better = optimize_model(
            str(path), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
        )
        fused = path.with_name("fused.onnx")
        better.save_model_to_file(str(fused))
        return fused

    def seconds(self, texts: list[str]) -> float:
        started = time.perf_counter()
        ids, mask = self._model.tokens(texts)
        self._session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        return time.perf_counter() - started
