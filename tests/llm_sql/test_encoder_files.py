"""Directories of sentence-transformers: what settings they ask for, and what is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_sql import hub
from llm_sql.errors import LLMSQLError, UsageError

from ..support.encoders import Encoder

CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    """As MiniLM's files are, of another size."""
    return Encoder(tmp_path)


def test_sizes_and_settings_of_minilms_form(encoder: Encoder) -> None:
    found = hub.read(encoder.folder)
    assert found.folder == encoder.folder
    assert found.columns == {
        "arch": "bert", "n_layer": 2, "n_head": 2, "d_model": 8, "n_positions": 16, "vocab": 30, "d_ff": 24,
        "layer_norm_eps": 1e-12, "activation_function": "gelu", "tied": True,
        "settings": {"pooling": "mean", "normalize": True, "type_vocab": 2, "max_tokens": 12},
    }  # fmt: skip


def test_bges_form_takes_the_first_tokens_vector(encoder: Encoder) -> None:
    encoder.pooling(**CLS)
    encoder.put("sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": True})
    settings = hub.read(encoder.folder).columns["settings"]
    assert (settings["pooling"], settings["normalize"], settings["max_tokens"]) == ("cls", True, None)


def test_e5s_form_has_prompts_from_its_files_or_from_the_caller(encoder: Encoder) -> None:
    encoder.prompts({"query": "query: ", "passage": "passage: "}, "query")
    settings = hub.read(encoder.folder).columns["settings"]
    assert settings["prompts"] == {"query": "query: ", "passage": "passage: "}
    assert settings["default_prompt"] == "query"
    given = {"prompts": {"query": "q: "}, "temperature": 0.01}
    settings = hub.read(encoder.folder, given).columns["settings"]
    assert (settings["prompts"], settings["temperature"]) == ({"query": "q: "}, 0.01)
    # As sentence-transformers writes where there are none.
    encoder.prompts({"query": "", "document": "", "later": None})
    assert "prompts" not in hub.read(encoder.folder).columns["settings"]


def test_without_modules_it_is_the_mean_not_normalized(encoder: Encoder) -> None:
    (encoder.folder / "modules.json").unlink()
    settings = hub.read(encoder.folder).columns["settings"]
    assert settings == {"pooling": "mean", "normalize": False, "type_vocab": 2, "max_tokens": 12}
    (encoder.folder / "sentence_bert_config.json").unlink()
    for length, expected in ((10, 10), (16, None), (10**30, None), (512, None)):
        encoder.put("tokenizer_config.json", {"model_max_length": length})
        assert hub.read(encoder.folder).columns["settings"]["max_tokens"] == expected


def test_without_normalize_it_is_not_normalized(encoder: Encoder) -> None:
    encoder.modules("Transformer", "Pooling")
    assert hub.read(encoder.folder).columns["settings"]["normalize"] is False


def test_newer_versions_of_sentence_transformers(encoder: Encoder) -> None:
    """They name modules by longer paths, and pooling by a name."""
    package = "sentence_transformers.sentence_transformer.modules"
    kinds = [
        f"{package}.transformer.Transformer",
        f"{package}.pooling.Pooling",
        f"{package}.normalize.Normalize",
    ]
    encoder.put_modules(
        [{"path": "", "type": kinds[0]}, *({"path": f"{i}", "type": kinds[i]} for i in (1, 2))]
    )
    encoder.put("1/config.json", {"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": True})
    encoder.put("2/config.json", {"module_input_name": "sentence_embedding"})
    assert hub.read(encoder.folder).columns["settings"]["pooling"] == "cls"
    encoder.put("1/config.json", {"embedding_dimension": 8, "pooling_mode": ["mean"]})
    assert hub.read(encoder.folder).columns["settings"]["pooling"] == "mean"


def test_older_versions_have_the_transformer_in_a_folder_of_its_own(encoder: Encoder) -> None:
    inside = encoder.folder / "0_Transformer"
    inside.mkdir()
    for name in ("config.json", "sentence_bert_config.json", "model.safetensors"):
        (encoder.folder / name).rename(inside / name)
    encoder.put_modules(
        [
            {"path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
            for i, kind in enumerate(("Transformer", "Pooling"))
        ]
    )
    found = hub.read(encoder.folder)
    assert found.folder == inside
    assert found.columns["settings"]["max_tokens"] == 12


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
    ({"position_embedding_type": "alibi"}, "position_embedding_type = 'alibi'"),
    ({"is_decoder": True}, "is_decoder = True"),
    ({"add_cross_attention": True}, "add_cross_attention = True"),
    ({"hidden_act": "mish"}, "activation function 'mish'"),
    ({"hidden_act": 3}, "activation function 3"),
    ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map = "),
    ({"quantization_config": {"bits": 8}}, "quantization_config = "),
    ({"architectures": ["BertForSequenceClassification"]}, "architecture BertForSequenceClassification"),
    ({"architectures": ["JinaBertModel"]}, "architecture JinaBertModel"),
]


@pytest.mark.parametrize(("changes", "named"), CONFIGS, ids=[named for _, named in CONFIGS])
def test_a_config_that_is_not_computed_is_refused(
    encoder: Encoder, changes: dict[str, Any], named: str
) -> None:
    encoder.config(**changes)
    with pytest.raises(LLMSQLError) as error:
        hub.read(encoder.folder)
    assert named in error.value.message
    assert "not supported" in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    "kind", ["roberta", "xlm-roberta", "mpnet", "distilbert", "modernbert", "t5", None, 3]
)
def test_other_models_are_refused_by_their_type(encoder: Encoder, kind: Any) -> None:
    encoder.config(model_type=kind)
    with pytest.raises(LLMSQLError, match="a model of type") as error:
        hub.read(encoder.folder)
    assert repr(kind) in error.value.message
    assert "MiniLM, BGE, E5" in str(error.value.hint)


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        (("Transformer", "Pooling", "Dense"), "a module of type Dense"),
        (("Transformer", "Pooling", "Dense", "Normalize"), "a module of type Dense"),
        (("Transformer", "WordWeights", "Pooling"), "a module of type WordWeights"),
        (("StaticEmbedding",), "a module of type StaticEmbedding"),
        (("Transformer", "Normalize"), "lists Transformer, Normalize"),
        (("Transformer", "Normalize", "Pooling"), "lists Transformer, Normalize, Pooling"),
        (("Transformer",), "lists Transformer"),
        ((), "lists no modules"),
    ],
)
def test_other_modules_are_refused_by_name(encoder: Encoder, kinds: tuple[str, ...], named: str) -> None:
    encoder.modules(*kinds)
    with pytest.raises(LLMSQLError) as error:
        hub.read(encoder.folder)
    assert named in error.value.message
    assert error.value.hint


POOLINGS: list[tuple[dict[str, Any], str]] = [
    ({"pooling_mode_max_tokens": True}, "several kinds of pooling at once, max, mean"),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, "pooling 'max'"),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, "pooling 'lasttoken'"),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_weightedmean_tokens": True}, "pooling 'weightedmean'"),
    (
        {"pooling_mode_mean_tokens": False, "pooling_mode_mean_sqrt_len_tokens": True},
        "'mean_sqrt_len_tokens'",
    ),
    ({"pooling_mode": "max"}, "pooling 'max'"),
    ({"pooling_mode": ["cls", "mean"]}, "several kinds of pooling at once, cls, mean"),
    ({"include_prompt": False}, "include_prompt = false"),
    ({"word_embedding_dimension": 9}, "vectors of 9 numbers, config.json has hidden_size 8"),
]


@pytest.mark.parametrize(("changes", "named"), POOLINGS, ids=[named for _, named in POOLINGS])
def test_other_pooling_is_refused_by_name(encoder: Encoder, changes: dict[str, Any], named: str) -> None:
    encoder.pooling(**changes)
    with pytest.raises(LLMSQLError) as error:
        hub.read(encoder.folder)
    assert named in error.value.message
    assert "1_Pooling/config.json" in error.value.message


def test_other_files_are_refused_by_name(encoder: Encoder) -> None:
    cases: list[tuple[str, Any, str]] = [
        (
            "config_sentence_transformers.json",
            {"model_type": "SparseEncoder"},
            "a model of type SparseEncoder",
        ),
        ("config_sentence_transformers.json", {"prompts": {"q": 3}}, "3 for the prompt 'q'"),
        ("config_sentence_transformers.json", {"prompts": ["q"]}, r"\['q'\] for prompts"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "the default prompt 'q'"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "'long' for max_seq_length"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "0 for max_seq_length"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task = 'fill-mask'"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "module_input_name = "),
        ("modules.json", {"0": "Transformer"}, "does not list modules"),
        ("modules.json", [{"type": 3, "path": ""}], "does not list modules"),
    ]
    for name, contents, message in cases:
        before = encoder.read(name)
        encoder.put(name, contents)
        with pytest.raises(LLMSQLError, match=message):
            hub.read(encoder.folder)
        encoder.restore(name, before)
    encoder.put_modules([{"path": "", "type": "custom_st.Transformer"}])
    with pytest.raises(LLMSQLError, match=r"a module of type custom_st\.Transformer"):
        hub.read(encoder.folder)


def test_capital_letters_that_only_sentence_transformers_would_make_small(encoder: Encoder) -> None:
    encoder.put("sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": True})
    hub.read(encoder.folder)
    encoder.put("tokenizer_config.json", {"do_lower_case": False})
    with pytest.raises(LLMSQLError, match="do_lower_case"):
        hub.read(encoder.folder)
    encoder.put("tokenizer.json", {"normalizer": {"type": "BertNormalizer", "lowercase": True}})
    hub.read(encoder.folder)


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/../../b", "a/b", "..", "C:\\x"])
def test_modules_lie_in_the_directory(encoder: Encoder, path: str) -> None:
    encoder.put_modules(
        [
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": path, "type": "sentence_transformers.models.Pooling"},
        ]
    )
    with pytest.raises(UsageError, match="outside its directory"):
        hub.read(encoder.folder)


@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("contents", [b"", b"{", b"[1", b"\xff", b"[" * 100000, b"3"])
def test_damaged_files_are_told(encoder: Encoder, name: str, contents: bytes) -> None:
    (encoder.folder / name).write_bytes(contents)
    with pytest.raises(UsageError, match=name.split("/")[-1]):
        hub.read(encoder.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "8"}, "for hidden_size|has hidden_size"),
        ({"num_hidden_layers": 2.5}, "2.5 for num_hidden_layers"),
        ({"layer_norm_eps": True}, "True for layer_norm_eps"),
        ({"type_vocab_size": 0}, "0 for type_vocab_size"),
    ],
)
def test_sizes_that_are_none(encoder: Encoder, changes: dict[str, Any], message: str) -> None:
    encoder.config(**changes)
    with pytest.raises(LLMSQLError, match=message):
        hub.read(encoder.folder)


def test_json_is_what_is_shown(encoder: Encoder) -> None:
    assert json.loads((encoder.folder / "modules.json").read_text())[0]["path"] == ""
