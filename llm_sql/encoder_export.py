"""A sentence encoder as sentence-transformers loads it: what encoder_files.py and wordpiece_files.py read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from llm_sql import encoder_files
from llm_sql.errors import LLMSQLError

_TOKENIZER = text("SELECT kind, settings FROM public.llm_tokenizer WHERE model = :model")
_TOKENS = text(
    "SELECT token_id, token, COALESCE(flags, '{}') FROM public.llm_bpe_vocab WHERE model = :model"
    " ORDER BY token_id"
)
_ADDED_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MODULES = "sentence_transformers.models"


def files(connection: Connection, model: str, config: dict[str, Any]) -> dict[str, Any]:
    """The small files by their names; `config` is the model's row of llm_model_config."""
    settings = config["settings"]
    tokens = [(id_, token, set(flags)) for id_, token, flags in connection.execute(_TOKENS, {"model": model})]
    longest = settings["max_tokens"] or config["n_positions"]
    prompts = {"prompts": settings["prompts"], "default_prompt_name": settings["default_prompt"]}
    kinds = ["Transformer", "Pooling", *(["Normalize"] if settings["normalize"] else [])]
    files: dict[str, Any] = {
        "config.json": _config(config, tokens),
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
    tokenizer = connection.execute(_TOKENIZER, {"model": model}).one_or_none()
    if tokenizer is not None and tokenizer.kind == "wordpiece":
        files |= _tokenizer(tokenizer.settings, tokens, longest)
    elif tokens:
        raise LLMSQLError(
            f'the tokenizer of model "{model}" is no WordPiece', hint="Name a file: model.safetensors."
        )
    return files


Tokens = list[tuple[int, str, set[str]]]


def _config(config: dict[str, Any], tokens: Tokens) -> dict[str, Any]:
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
        "pad_token_id": next((id_ for id_, _, flags in tokens if "pad" in flags), 0),
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "type_vocab_size": config["settings"]["type_vocab"],
    }


def _tokenizer(settings: dict[str, Any], tokens: Tokens, longest: int) -> dict[str, Any]:
    """tokenizer.json, which tells all, and what transformers wants to know beside it."""
    text_of = {id_: token for id_, token, _ in tokens}
    prefix, suffix = settings["template"]["prefix"], settings["template"]["suffix"]
    around = [*prefix, *suffix]

    def pieces(ids: list[int]) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": text_of[id_], "type_id": 0}} for id_ in ids]

    def sequence(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    alone = [*pieces(prefix), sequence("A", 0), *pieces(suffix)]
    normalizer = {
        name: settings[name] for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id_, "content": token, **{flag: flag in flags for flag in _ADDED_FLAGS}}
            for id_, token, flags in tokens
            if "added" in flags
        ],
        "normalizer": {"type": "BertNormalizer", **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": alone,
            "pair": [*alone, sequence("B", 1), *pieces(suffix)],
            "special_tokens": {
                text_of[id_]: {"id": text_of[id_], "ids": [id_], "tokens": [text_of[id_]]} for id_ in around
            },
        },
        "decoder": {
            "type": "WordPiece",
            "prefix": settings["continuing_subword_prefix"],
            "cleanup": settings["cleanup"],
        },
        "model": {
            "type": "WordPiece",
            "unk_token": settings["unk_token"],
            "continuing_subword_prefix": settings["continuing_subword_prefix"],
            "max_input_chars_per_word": settings["max_input_chars_per_word"],
            "vocab": {token: id_ for id_, token, flags in tokens if "added" not in flags or "base" in flags},
        },
    }
    names = {"unk_token": settings["unk_token"]}
    names |= {"cls_token": text_of[prefix[0]]} if prefix else {}
    names |= {"sep_token": text_of[suffix[-1]]} if suffix else {}
    for _, token, flags in tokens:
        if "pad" in flags:
            names["pad_token"] = token
        elif token == "[MASK]" and "special" in flags:
            names["mask_token"] = token
    config = {
        # Takes all from tokenizer.json.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
        **names,
    }
    return {"tokenizer.json": whole, "tokenizer_config.json": config, "special_tokens_map.json": names}
