"""config.json of decoders: what columns and settings it asks for, and what is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest

from llm_sql.decoder_files import FAMILIES, columns_of
from llm_sql.errors import LLMSQLError

# As published, without what has no effect.
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576,
    "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": True,
    "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "llama", "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 49152,
}  # fmt: skip
LLAMA32 = {
    "model_type": "llama", "head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192,
    "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 16,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": True,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "vocab_size": 128256, "eos_token_id": [128001, 128008, 128009],
}  # fmt: skip
QWEN3 = {
    "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_size": 1024,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
    "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
QWEN2 = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768,
    "max_window_layers": 21, "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
    "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
MISTRAL = {"model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 32768}
PYTHIA = {
    "model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": 512, "intermediate_size": 2048,
    "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "num_attention_heads": 8,
    "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False,
    "use_parallel_residual": True, "vocab_size": 50304,
}  # fmt: skip
OPT = {
    "model_type": "opt", "activation_function": "relu", "do_layer_norm_before": True, "ffn_dim": 3072,
    "hidden_size": 768, "max_position_embeddings": 2048, "num_attention_heads": 12, "num_hidden_layers": 12,
    "vocab_size": 50272, "word_embed_proj_dim": 768, "_remove_final_layer_norm": False,
}  # fmt: skip
PLAIN = {
    "n_kv_head": None, "d_head": None, "rope_theta": 10000.0, "rope_dims": 0, "rope_scaling": {},
    "window": None, "qk_norm": False, "qkv_bias": False, "o_bias": False, "mlp_bias": False,
}  # fmt: skip


def settings(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found = columns_of(config | changes, "config.json")["settings"]
    assert isinstance(found, dict)
    return found


def test_sizes_of_smollm2() -> None:
    assert columns_of(SMOLLM2, "config.json") == {
        "arch": "llama", "n_layer": 30, "n_head": 9, "d_model": 576, "n_positions": 8192, "vocab": 49152,
        "d_ff": 1536, "layer_norm_eps": 1e-5, "activation_function": "silu", "tied": True,
        "settings": {**PLAIN, "n_kv_head": 3, "rope_theta": 1e5},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA32, {"n_kv_head": 8, "rope_theta": 5e5, "rope_scaling": LLAMA32["rope_scaling"]}),
        (QWEN3, {"n_kv_head": 8, "d_head": 128, "rope_theta": 1e6, "qk_norm": True}),
        (QWEN2, {"n_kv_head": 2, "rope_theta": 1e6, "qkv_bias": True}),
        (MISTRAL, {"n_kv_head": 8, "window": 4096}),
        (MISTRAL | {"sliding_window": None, "head_dim": 64}, {"n_kv_head": 8, "d_head": 64}),
        (SMOLLM2 | {"attention_bias": True, "mlp_bias": True},
         {"n_kv_head": 3, "rope_theta": 1e5, "qkv_bias": True, "o_bias": True, "mlp_bias": True}),
        (QWEN2 | {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 99},
         {"n_kv_head": 2, "rope_theta": 1e6, "qkv_bias": True, "window": 99}),
        # transformers 5 has all of the rotary embedding in one place, older files call its kind "type".
        (SMOLLM2 | {"rope_parameters": {"rope_theta": 3.0, "rope_type": "default"}},
         {"n_kv_head": 3, "rope_theta": 3.0}),
        (SMOLLM2 | {"rope_scaling": {"type": "linear", "factor": 2}},
         {"n_kv_head": 3, "rope_theta": 1e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ],
)  # fmt: skip
def test_settings_of_llamas_kin(config: dict[str, Any], expected: dict[str, Any]) -> None:
    assert settings(config) == {**PLAIN, **expected}


def test_settings_of_pythia_and_opt() -> None:
    neox = {"rope_theta": 1e4, "rope_scaling": {}, "rope_dims": 16, "parallel": True}
    assert settings(PYTHIA) == neox
    assert settings(PYTHIA, rotary_pct=1.0, use_parallel_residual=False) == {
        **neox,
        "rope_dims": 0,
        "parallel": False,
    }
    assert settings(OPT) == {"norm_first": True, "d_embed": None}
    assert settings(OPT, word_embed_proj_dim=512, do_layer_norm_before=False) == {
        "norm_first": False,
        "d_embed": 512,
    }
    assert columns_of(OPT, "config.json")["layer_norm_eps"] == 1e-5


def test_what_is_given_stands_above_the_file() -> None:
    assert columns_of(SMOLLM2, "config.json", {"window": 9})["settings"]["window"] == 9


@pytest.mark.parametrize(
    ("config", "changes", "named"),
    [
        (SMOLLM2, {"hidden_act": "mish"}, "activation function 'mish'"),
        (SMOLLM2, {"quantization_config": {"bits": 4}}, "quantization_config = "),
        (SMOLLM2, {"auto_map": {"AutoModel": "x.Y"}}, "auto_map = "),
        (SMOLLM2, {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        (SMOLLM2, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
        (SMOLLM2, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'"),
        (SMOLLM2, {"rope_scaling": {"rope_type": "linear"}}, "None for factor of rope_type linear"),
        (SMOLLM2, {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, "beta = 1"),
        (SMOLLM2, {"rope_scaling": {"full_attention": {}}}, "differ from layer to layer"),
        (SMOLLM2, {"rope_scaling": "linear"}, "'linear' for rope_scaling"),
        (SMOLLM2, {"rope_theta": "big"}, "'big' for rope_theta"),
        (SMOLLM2, {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        (SMOLLM2, {"layer_types": ["linear_attention"] * 30}, "layer_types = "),
        (SMOLLM2, {"attention_bias": "yes"}, "'yes' for attention_bias"),
        (SMOLLM2, {"num_key_value_heads": 0}, "0 for num_key_value_heads"),
        (SMOLLM2, {"num_attention_heads": 7}, "not a multiple of 7 heads"),
        (SMOLLM2, {"hidden_size": 576.0}, "576.0 for hidden_size"),
        (QWEN2, {"use_sliding_window": True}, "use_sliding_window with max_window_layers = 21"),
        (QWEN3, {"use_sliding_window": True, "sliding_window": 8,
                 "layer_types": ["full_attention", "sliding_attention"] * 14}, "layer_types of both kinds"),
        (QWEN3, {"layer_types": ["chunked_attention"] * 28}, "layer_types = "),
        (PYTHIA, {"attention_bias": False}, "attention_bias = False"),
        (PYTHIA, {"rotary_pct": 0.01}, "0.01 of a head's 64 numbers"),
        (OPT, {"enable_bias": False}, "enable_bias = False"),
        (OPT, {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine = False"),
        (OPT, {"_remove_final_layer_norm": True}, "_remove_final_layer_norm = True"),
        (OPT, {"model_type": "mixtral"}, "a model of type 'mixtral'"),
        (OPT, {"model_type": ["llama"]}, "a model of type"),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused_by_name(
    config: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(LLMSQLError) as error:
        columns_of(config | changes, "there/config.json")
    assert named in error.value.message
    assert "there/config.json" in error.value.message


def test_every_type_says_what_its_files_hold() -> None:
    for family in FAMILIES.values():
        assert {
            "n_layer",
            "n_head",
            "d_model",
            "n_positions",
            "vocab",
            "d_ff",
            "tied",
        } <= family.columns.keys()
