"""Random BERTs in the layout of sentence-transformers, written without its help."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": 8,
    "intermediate_size": 24,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 16,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 30,
}
DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
Tensors = dict[str, NDArray[Any]]


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Hugging Face's tensors of a BERT without heads: linear layers are [out, in]."""
    d, ff = config["hidden_size"], config["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], d),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], d),
        "embeddings.LayerNorm.weight": (d,),
        "embeddings.LayerNorm.bias": (d,),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            found |= {f"{at}attention.{part}.weight": (d, d), f"{at}attention.{part}.bias": (d,)}
        for part, (out, in_) in {"intermediate.dense": (ff, d), "output.dense": (d, ff)}.items():
            found |= {f"{at}{part}.weight": (out, in_), f"{at}{part}.bias": (out,)}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= {f"{at}{part}.weight": (d,), f"{at}{part}.bias": (d,)}
    return found


def heads(config: Mapping[str, Any]) -> Tensors:
    """What is left out: the pooler, the heads of pre-training, the positions' numbers."""
    d = config["hidden_size"]
    return {
        "embeddings.position_ids": np.arange(config["max_position_embeddings"], dtype="<i8")[None],
        "pooler.dense.weight": np.zeros((d, d), np.float32),
        "pooler.dense.bias": np.zeros(d, np.float32),
        "cls.predictions.bias": np.zeros(config["vocab_size"], np.float32),
    }


def random_tensors(config: Mapping[str, Any], seed: int = 1) -> Tensors:
    """Numbers that F16 and BF16 hold too, so that every file of them gives the same model."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.integers(-64, 65, shape) / 64).astype(np.float32) for name, shape in shapes(config).items()
    }


def write_safetensors(path: Path, tensors: Tensors, dtype: str = "F32") -> None:
    """The format by hand: a header's length, JSON, the numbers. Whole numbers stay what they are."""
    header: dict[str, Any] = {}
    data = bytearray()
    for name, tensor in tensors.items():
        kind = dtype if tensor.dtype.kind == "f" else "I64"
        if kind == "BF16":
            encoded = (tensor.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            encoded = tensor.astype(DTYPES[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(tensor.shape)}
        header[name]["data_offsets"] = [len(data), len(data) + len(encoded)]
        data += encoded
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


class Encoder:
    """A directory that holds one."""

    def __init__(self, folder: Path, seed: int = 1, **changes: Any) -> None:
        self.folder = folder
        self.values = CONFIG | changes
        self.tensors = random_tensors(self.values, seed)
        self.config()
        self.modules("Transformer", "Pooling", "Normalize")
        self.pooling()
        self.put("sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
        self.put("config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.0.0"}})
        self.weights()

    def read(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.exists() else None

    def restore(self, name: str, contents: bytes | None) -> None:
        if contents is None:
            (self.folder / name).unlink()
        else:
            (self.folder / name).write_bytes(contents)

    def put(self, name: str, contents: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(contents))

    def config(self, **changes: Any) -> None:
        self.put("config.json", self.values | changes)

    def put_modules(self, modules: list[dict[str, Any]]) -> None:
        self.put("modules.json", modules)

    def modules(self, *kinds: str) -> None:
        self.put_modules(
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": f"{i}_{kind}" if i else "",
                    "type": f"sentence_transformers.models.{kind}",
                }
                for i, kind in enumerate(kinds)
            ]
        )

    def pooling(self, **changes: Any) -> None:
        modes = {
            "word_embedding_dimension": self.values["hidden_size"],
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        }
        self.put("1_Pooling/config.json", modes | changes)

    def vocabulary(self, **config: Any) -> None:
        """A WordPiece tokenizer of as many tokens as the model has: vocab.txt."""
        parts = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *"abcdefghijklm",
            *(f"##{c}" for c in "abcdefghijkl"),
        ]
        (self.folder / "vocab.txt").write_text(
            "".join(f"{part}\n" for part in parts[: self.values["vocab_size"]])
        )
        self.put("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"} | config)

    def prompts(self, prompts: dict[str, Any], default: str | None = None) -> None:
        self.put("config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": default})

    def weights(self, dtype: str = "F32", prefix: str = "", **more: Any) -> None:
        """model.safetensors, with what is left out."""
        named = {prefix + name: tensor for name, tensor in self.tensors.items()}
        path = self.folder / "model.safetensors"
        write_safetensors(path, named | heads(self.values) | more, dtype)

    def shards(self, n: int) -> None:
        """The same in several files with an index."""
        (self.folder / "model.safetensors").unlink(missing_ok=True)
        names = list(self.tensors)
        weight_map = {}
        for i in range(n):
            file = f"model-{i + 1:05d}-of-{n:05d}.safetensors"
            write_safetensors(self.folder / file, {name: self.tensors[name] for name in names[i::n]})
            weight_map |= dict.fromkeys(names[i::n], file)
        self.put("model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
