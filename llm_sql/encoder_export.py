"""A sentence encoder as sentence-transformers loads it: what encoder_files.py and wordpiece_files.py read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from llm_sql import encoder_files
from llm_sql.errors import LLMSQLError
from llm_sql.tokenizer_export import HINT, Exported

_MODULES = "sentence_transformers.models"


def files(connection: Connection, model: str, config: dict[str, Any]) -> dict[str, Any]:
    """The small files by their names; `config` is the model's row of llm_model_config."""
    settings = config["settings"]
    tokenizer = Exported(connection, model)
    longest = settings["max_tokens"] or config["n_positions"]
    prompts = {"prompts": settings["prompts"], "default_prompt_name": settings["default_prompt"]}
    kinds = ["Transformer", "Pooling", *(["Normalize"] if settings["normalize"] else [])]
    files: dict[str, Any] = {
        "config.json": _config(config, tokenizer.pad()),
        "modules.json": [
            {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"{_MODULES}.{kind}"}
            for i, kind in enumerate(kinds)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": config["d_model"],
            **{
                flag: mode == settings["pooling"]
                for flag, mode in encoder_files.POOLING_FLAGS.items()
                if mode in ("cls", "mean", "max", "mean_sqrt_len_tokens")
            },
        },
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        "config_sentence_transformers.json": {"model_type": "SentenceTransformer", **prompts},
    }
    if tokenizer.kind not in (None, "wordpiece"):
        raise LLMSQLError(f'the tokenizer of model "{model}" is no WordPiece', hint=HINT)
    return files | tokenizer.files(longest)


def _config(config: dict[str, Any], pad: int | None) -> dict[str, Any]:
    named = {
        theirs: config[ours]
        for ours, (theirs, _) in encoder_files.COLUMNS.items()
        if config[ours] is not None
    }
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "intermediate_size": 4 * config["d_model"],
        **named,
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": pad or 0,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "type_vocab_size": config["settings"]["type_vocab"],
    }
