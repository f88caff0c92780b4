"""Sentence encoders in the layout of sentence-transformers: what modules.json and its neighbours ask for.

What is computed is BERT with post-LayerNorm blocks, the mean of the tokens' vectors or the first one's, and
perhaps a division by its length. Anything else is refused by its name, before a weight is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from llm_sql import decoder_files
from llm_sql.errors import LLMSQLError, UsageError

# Columns of llm_model_config, the names that transformers' BertConfig has for them, and its defaults.
COLUMNS: dict[str, tuple[str, Any]] = {
    "n_layer": ("num_hidden_layers", 12),
    "n_head": ("num_attention_heads", 12),
    "d_model": ("hidden_size", 768),
    "n_positions": ("max_position_embeddings", 512),
    "vocab": ("vocab_size", 30522),
    "d_ff": ("intermediate_size", 3072),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
    "activation_function": ("hidden_act", "gelu"),
    "tied": ("tie_word_embeddings", True),
}
# Whose files hold the encoder, perhaps with a head of pre-training, which is left out.
_ARCHITECTURES = ("BertModel", "BertForMaskedLM", "BertForPreTraining", "SentenceTransformer")
_POOLING = {"mean": "mean", "cls": "cls"}
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SUPPORTED = "Supported are BERT's equations, mean or CLS pooling, and normalization: MiniLM, BGE, E5, GTE."


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; UsageError where there is none."""
    contents = _read_json(path)
    if not isinstance(contents, dict):
        raise UsageError(f"{path} is not understood: it does not contain a JSON object")
    return contents


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error


def _perhaps(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _refuse(path: Path, what: str, hint: str = _SUPPORTED) -> NoReturn:
    raise LLMSQLError(f"{path} has {what}, which is not supported", hint=hint)


def transformer(directory: Path) -> Path:
    """The folder that holds config.json and the weights: `directory`, or the one that modules.json names."""
    modules = directory / "modules.json"
    return _modules(modules)[0] if modules.exists() else directory


def settings_of(directory: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of architecture bert that the directory's files ask for, beside its `config.json`.

    Without modules.json they are what sentence-transformers takes then: the mean, not normalized.
    """
    modules = directory / "modules.json"
    folder, *others = _modules(modules) if modules.exists() else [directory]
    _refuse_differences(folder / "config.json", config)
    pooling = _pooling(others[0] / "config.json", config) if others else "mean"
    found: dict[str, Any] = {
        "pooling": pooling,
        "normalize": len(others) > 1,
        "type_vocab": config.get("type_vocab_size", 2),
        "max_tokens": _max_tokens(folder, config),
    }
    return found | _prompts(directory / "config_sentence_transformers.json")


def _modules(path: Path) -> list[Path]:
    """The folders of Transformer, Pooling and, where it is there, Normalize."""
    contents = _read_json(path)
    if not isinstance(contents, list) or not all(
        isinstance(module, dict)
        and isinstance(module.get("type"), str)
        and isinstance(module.get("path"), str)
        for module in contents
    ):
        raise UsageError(f"{path} is not understood: it does not list modules with a type and a path")
    kinds = []
    for module in contents:
        package, _, kind = module["type"].rpartition(".")
        if package.split(".")[0] != "sentence_transformers":
            _refuse(path, f"a module of type {module['type']}")
        kinds.append(kind)
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        wanted = "Transformer and Pooling, perhaps followed by Normalize"
        other = next((kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")), None)
        if other:
            _refuse(path, f"a module of type {other}")
        raise LLMSQLError(f"{path} lists {', '.join(kinds) or 'no modules'}", hint=f"Supported are {wanted}.")
    folders = [_inside(path, module["path"]) for module in contents]
    if len(folders) > 2:
        normalize = _perhaps(folders[2] / "config.json")
        for name in ("module_input_name", "module_output_name"):
            if normalize.get(name) not in (None, "sentence_embedding"):
                _refuse(folders[2] / "config.json", f"{name} = {normalize[name]!r}")
    return folders


def _inside(path: Path, name: str) -> Path:
    """A folder below modules.json's own, which names no other."""
    folder = path.parent / name
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or len(parts) > 1 or "\\" in name or "\0" in name:
        raise UsageError(f"{path} names {name!r}, which is outside its directory")
    return folder


def _refuse_differences(path: Path, config: Mapping[str, Any]) -> None:
    names = config.get("architectures")
    for name in names if isinstance(names, list) else []:
        if name not in _ARCHITECTURES:
            hint = "A cross-encoder scores pairs of texts; it gives no embeddings."
            _refuse(path, f"the architecture {name}", hint if "Classification" in str(name) else _SUPPORTED)
    only = {"is_decoder": False, "embedding_size": config.get("hidden_size", 768)}
    decoder_files.Config(config, str(path), _SUPPORTED).require({**decoder_files.NEVER, **only})
    types = config.get("type_vocab_size", 2)
    if not isinstance(types, int) or isinstance(types, bool) or types < 1:
        raise UsageError(f"{path} has {types!r} for type_vocab_size")


def _pooling(path: Path, config: Mapping[str, Any]) -> str:
    pooling = read_object(path)
    # Of sentence-transformers until 5 a flag for each way, after it a name or a list of names.
    named = pooling.get("pooling_mode")
    if named is None:
        named = [mode for flag, mode in POOLING_FLAGS.items() if pooling.get(flag)] or ["mean"]
    modes = named if isinstance(named, list) else [named]
    if len(modes) != 1:
        _refuse(path, f"several kinds of pooling at once, {', '.join(map(str, modes))}")
    if modes[0] not in _POOLING:
        _refuse(path, f"pooling {modes[0]!r}")
    width = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    if width != config.get("hidden_size", 768):
        raise LLMSQLError(
            f"{path} is for vectors of {width!r} numbers, config.json has hidden_size "
            f"{config.get('hidden_size', 768)!r}",
            hint="The files do not belong together.",
        )
    if pooling.get("include_prompt", True) is not True:
        _refuse(path, "include_prompt = false")
    return _POOLING[modes[0]]


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int | None:
    """How many tokens a text may have; None: as many as there are positions."""
    path = folder / "sentence_bert_config.json"
    bert = _perhaps(path)
    tokenizer = _perhaps(folder / "tokenizer_config.json")
    if bert.get("transformer_task", "feature-extraction") != "feature-extraction":
        _refuse(path, f"transformer_task = {bert['transformer_task']!r}")
    for name in ("query_prefix", "document_prefix", "query_expansion"):
        if bert.get(name):
            _refuse(path, f"{name} = {bert[name]!r}")
    if bert.get("do_lower_case") and not _lowercases(folder, tokenizer):
        _refuse(path, "do_lower_case with a tokenizer that keeps capital letters")
    given = bert.get("max_seq_length")
    if given is None:
        given = tokenizer.get("model_max_length")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 1:
        raise UsageError(f"{folder} has {given!r} for max_seq_length")
    positions = config.get("max_position_embeddings", 512)
    # transformers writes 10^30 where there is no bound.
    return None if not isinstance(positions, int) or given >= positions else int(given)


def _lowercases(folder: Path, tokenizer: Mapping[str, Any]) -> bool:
    """Whether the tokenizer makes capital letters small."""
    normalizer = _perhaps(folder / "tokenizer.json").get("normalizer")
    if isinstance(normalizer, dict):
        steps = normalizer.get("normalizers")
        for step in steps if isinstance(steps, list) else [normalizer]:
            if isinstance(step, dict) and (step.get("type") == "Lowercase" or step.get("lowercase") is True):
                return True
        return False
    return bool(tokenizer.get("do_lower_case", True))


def _prompts(path: Path) -> dict[str, Any]:
    config = _perhaps(path)
    kind = config.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        _refuse(path, f"a model of type {kind}")
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise UsageError(f"{path} has {prompts!r} for prompts")
    # None stands for a prompt that may be given later.
    prompts = {name: prompt for name, prompt in prompts.items() if prompt is not None}
    for name, prompt in prompts.items():
        if not isinstance(prompt, str):
            raise UsageError(f"{path} has {prompt!r} for the prompt {name!r}")
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise UsageError(f"{path} has the default prompt {default!r}, but no such prompt")
    found: dict[str, Any] = {"prompts": prompts} if any(prompts.values()) else {}
    if default is not None and found:
        found["default_prompt"] = default
    return found
