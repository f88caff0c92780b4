"""Sentence encoders from files and to files: BERT's names, [out, in] matrices, what is refused."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from llm_sql import LanguageModel, importing
from llm_sql.errors import LLMSQLError
from llm_sql.kernels import WeightsFile

from ..support.encoders import Encoder, heads, write_safetensors
from ..support.tensors import value

Connection = psycopg.Connection[Any]
OURS = {
    "attention.self.query": "attn.q_proj",
    "attention.self.key": "attn.k_proj",
    "attention.self.value": "attn.v_proj",
    "attention.output.dense": "attn.o_proj",
    "attention.output.LayerNorm": "ln_1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "ln_2",
}
OUTSIDE = {
    "embeddings.word_embeddings.weight": "wte.weight",
    "embeddings.position_embeddings.weight": "wpe.weight",
    "embeddings.token_type_embeddings.weight": "wtt.weight",
    "embeddings.LayerNorm.weight": "ln_embd.weight",
    "embeddings.LayerNorm.bias": "ln_embd.bias",
}


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    """In a directory that server and test both read and write."""
    path = Path(tempfile.mkdtemp(prefix="llm-sql-files-", dir="/tmp"))
    path.chmod(0o777)
    yield Encoder(path)
    shutil.rmtree(path)


@pytest.fixture
def put(engine: Engine) -> Callable[..., importing.Imported]:
    def put(source: Any, model: str = "e", **options: Any) -> importing.Imported:
        found = importing.read(source, tokenizer=False, **options)
        with Session(engine) as session, session.begin():
            return importing.store(session.connection(), model, found)

    return put


def expected(encoder: Encoder) -> dict[str, Any]:
    """The encoder's tensors as they must stand in llm_param."""
    found = {}
    for name, tensor in encoder.tensors.items():
        if name in OUTSIDE:
            found[OUTSIDE[name]] = tensor
            continue
        _, _, layer, *part, kind = name.split(".")
        matrix = kind == "weight" and "LayerNorm" not in name
        found[f"h.{layer}.{OURS['.'.join(part)]}.{kind}"] = tensor.T if matrix else tensor
    return found


def stored(conn: Connection, model: str = "e") -> dict[str, Any]:
    return dict(conn.execute("SELECT name, data FROM llm_param WHERE model = %s", (model,)).fetchall())


def check(conn: Connection, encoder: Encoder, model: str = "e") -> None:
    wanted, found = expected(encoder), stored(conn, model)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert np.array_equal(found[name], tensor), name


def test_weights_are_stored_in_out_under_our_names(conn: Connection, encoder: Encoder, put: Any) -> None:
    assert put(encoder.folder).weights == sum(tensor.size for tensor in encoder.tensors.values())
    check(conn, encoder)
    config = value(conn, "SELECT to_jsonb(c) - 'created_at' FROM llm_model_config c WHERE model = 'e'")
    assert config == {
        "model": "e", "arch": "bert", "n_layer": 2, "n_head": 2, "d_model": 8, "n_positions": 16, "vocab": 30,
        "d_ff": 24, "layer_norm_eps": 1e-12, "activation_function": "gelu", "tied": True, "init_seed": None,
        "settings": {"pooling": "mean", "normalize": True, "type_vocab": 2, "max_tokens": 12},
    }  # fmt: skip
    listed = dict(conn.execute("SELECT name, shape FROM llm_parameters('e')").fetchall())
    assert listed == {name: list(tensor.shape) for name, tensor in expected(encoder).items()}


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
def test_other_elements_give_the_same_model(conn: Connection, encoder: Encoder, put: Any, dtype: str) -> None:
    encoder.weights(dtype)
    put(encoder.folder)
    check(conn, encoder)


@pytest.mark.parametrize("prefix", ["bert.", "model.", "module.bert."])
def test_wrappers_names(conn: Connection, encoder: Encoder, put: Any, prefix: str) -> None:
    encoder.weights(prefix=prefix)
    put(encoder.folder)
    check(conn, encoder)


def test_norms_by_their_first_names(conn: Connection, encoder: Encoder, put: Any) -> None:
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in encoder.tensors.items()
    }
    write_safetensors(encoder.folder / "model.safetensors", renamed)
    put(encoder.folder)
    check(conn, encoder)


def test_several_files(conn: Connection, encoder: Encoder, put: Any) -> None:
    encoder.shards(3)
    put(encoder.folder)
    check(conn, encoder)


def test_a_file_that_the_server_reads(conn: Connection, encoder: Encoder, put: Any) -> None:
    put(encoder.folder)
    other = Encoder(encoder.folder, seed=7)
    other.weights(prefix="bert.")
    path = encoder.folder / "model.safetensors"
    path.chmod(0o644)
    assert value(conn, "SELECT pg_llm_import_safetensors(%s, 'e')", (str(path),)) == sum(
        tensor.size for tensor in other.tensors.values()
    )
    check(conn, other)


def test_a_folder_of_the_transformer(conn: Connection, encoder: Encoder, put: Any) -> None:
    inside = encoder.folder / "0_Transformer"
    inside.mkdir()
    for name in ("config.json", "model.safetensors"):
        (encoder.folder / name).rename(inside / name)
    kinds = ("Transformer", "Pooling")
    encoder.put_modules(
        [
            {"path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
            for i, kind in enumerate(kinds)
        ]
    )
    put(encoder.folder)
    check(conn, encoder)


def test_settings_of_the_caller(conn: Connection, encoder: Encoder, put: Any) -> None:
    put(encoder.folder, settings={"prompts": {"query": "query: "}, "temperature": 0.01})
    settings = value(conn, "SELECT settings FROM llm_model_config WHERE model = 'e'")
    assert settings["prompts"] == {"query": "query: "}
    assert settings["temperature"] == 0.01
    for wrong, message in (
        ({"poling": "cls"}, '"poling" of model "f" is not known to architecture "bert"'),
        ({"pooling": "max"}, '"pooling" of model "f" must be one of mean, cls'),
    ):
        with pytest.raises(DBAPIError, match=message):
            put(encoder.folder, "f", settings=wrong)
    with pytest.raises(LLMSQLError, match='model "e" knows no setting poling'):
        put(encoder.folder, settings={"poling": "cls"})
    assert value(conn, "SELECT count(*) FROM llm_model_config WHERE model = 'f'") == 0


def test_a_model_that_is_registered_must_be_the_same(conn: Connection, encoder: Encoder, put: Any) -> None:
    put(encoder.folder)
    put(encoder.folder)
    for changes, message in (
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05, model .* has 1e-12"),
        ({"hidden_act": "relu"}, "activation_function relu, model .* has gelu"),
        ({"type_vocab_size": 3}, "type_vocab 3, model .* has 2"),
    ):
        encoder.config(**changes)
        with pytest.raises(LLMSQLError, match=message):
            put(encoder.folder)
    encoder.config()
    encoder.modules("Transformer", "Pooling")
    with pytest.raises(LLMSQLError, match='normalize false, model "e" has true'):
        put(encoder.folder)
    conn.execute("SELECT llm_create_model('g', 'gpt2', 2, 2, 8, 16, 30)")
    with pytest.raises(LLMSQLError, match='arch bert, model "g" has gpt2'):
        put(encoder.folder, "g")
    conn.execute(
        'UPDATE llm_model_config SET settings = settings || \'{"prompts": {"q": "q: "}}\' WHERE model = \'e\''
    )
    encoder.modules("Transformer", "Pooling", "Normalize")
    put(encoder.folder)
    assert value(conn, "SELECT settings -> 'prompts' FROM llm_model_config WHERE model = 'e'") == {"q": "q: "}


def test_what_the_file_has_too_much_or_lacks_is_named(conn: Connection, encoder: Encoder, put: Any) -> None:
    def with_(name: str, tensor: Any) -> dict[str, Any]:
        return encoder.tensors | {name: tensor}

    bias = "embeddings.LayerNorm.bias"
    ones = np.ones(8, np.float32)
    lacking = {
        name: tensor for name, tensor in encoder.tensors.items() if "layer.1.output.dense.w" not in name
    }
    wrapped = {f"bert.{name}": tensor for name, tensor in encoder.tensors.items()}
    cases: list[tuple[dict[str, Any], str]] = [
        (with_("classifier.weight", ones), "does not have: classifier.weight"),
        (
            with_("encoder.layer.0.crossattention.self.query.bias", ones),
            "does not have: encoder.layer.0.cross",
        ),
        (with_("encoder.layer.2.output.dense.bias", ones), "does not have: encoder.layer.2.output"),
        (lacking, "lacks .*h.1.mlp.fc2.weight"),
        (with_("embeddings.word_embeddings.weight", np.zeros((31, 8), np.float32)), r"shape \[31, 8\]"),
        (
            with_("encoder.layer.0.intermediate.dense.weight", np.zeros((8, 24), np.float32)),
            r"shape \[8, 24\], expected \[24, 8\]",
        ),
        (wrapped | {bias: ones}, f"{bias}.* under two names"),
        (with_(bias, np.ones(8, np.int64)), "elements of type I64"),
        (with_(bias, np.full(8, np.nan, np.float32)), "not finite"),
    ]
    for tensors, message in cases:
        write_safetensors(encoder.folder / "model.safetensors", tensors)
        with pytest.raises(DBAPIError, match=message):
            put(encoder.folder)
        assert value(conn, "SELECT count(*) FROM llm_model_config WHERE model = 'e'") == 0
    (encoder.folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(LLMSQLError, match="is refused"):
        put(encoder.folder)


def test_a_decoder_takes_no_encoders_file(conn: Connection, encoder: Encoder) -> None:
    conn.execute("SELECT llm_create_model('g', 'gpt2', 2, 2, 8, 16, 30)")
    path = encoder.folder / "model.safetensors"
    path.chmod(0o644)
    with pytest.raises(errors.InvalidParameterValue, match=r"does not have: .*encoder\.layer\.0\."):
        conn.execute("SELECT pg_llm_import_safetensors(%s, 'g')", (str(path),))


@pytest.mark.parametrize("where", ["client", "server"])
def test_an_exported_file_is_the_one_that_was_imported(
    conn: Connection, engine: Engine, encoder: Encoder, put: Any, where: str
) -> None:
    put(encoder.folder)
    target = encoder.folder / "out.safetensors"
    if where == "client":
        with Session(engine) as session, session.begin():
            LanguageModel(session, "e").export_weights(target)
    else:
        conn.execute("SELECT pg_llm_export_safetensors(%s, 'e')", (str(target),))
    with WeightsFile(target) as file:
        found = {name: file.read(name) for name, _, _ in file.tensors()}
    assert found.keys() == encoder.tensors.keys() - heads(encoder.values).keys()
    for name, tensor in found.items():
        assert tensor.shape == encoder.tensors[name].shape
        assert np.array_equal(tensor, encoder.tensors[name]), name
    other = Encoder(encoder.folder, seed=1)
    target.replace(other.folder / "model.safetensors")
    put(other.folder, "again")
    check(conn, encoder, "again")


def whole(conn: Connection, model: str) -> list[Any]:
    """Configuration, tokenizer and the ids of a text."""
    queries = (
        "SELECT to_jsonb(c) - 'created_at' - 'model' - 'settings' FROM llm_model_config c WHERE model = %s",
        "SELECT (llm_config(%s)).settings",
        "SELECT jsonb_agg(to_jsonb(v) - 'model' ORDER BY token_id) FROM llm_bpe_vocab v WHERE model = %s",
        "SELECT settings FROM llm_tokenizer WHERE model = %s",
        "SELECT llm_encode_sequence('Abcd éa [MASK] xyz [cls]', %s)",
    )
    return [value(conn, query, (model,)) for query in queries]


@pytest.mark.parametrize("form", ["mean", "cls, prompts, capital letters"])
def test_a_directory_that_is_exported_gives_the_same_model(
    conn: Connection, engine: Engine, encoder: Encoder, put: Any, form: str
) -> None:
    encoder.vocabulary()
    if form != "mean":
        encoder.vocabulary(do_lower_case=False, strip_accents=True, tokenize_chinese_chars=False)
        encoder.pooling(pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
        encoder.modules("Transformer", "Pooling")
        encoder.prompts({"query": "q: ", "passage": "p: "}, "query")
        encoder.put("sentence_bert_config.json", {"max_seq_length": 16})
        encoder.config(hidden_act="relu", layer_norm_eps=1e-7, pad_token_id=None)
    with Session(engine) as session, session.begin():
        lm = LanguageModel.import_model(session, "e", encoder.folder)
        assert lm.export_weights(encoder.folder / "out") == sum(t.size for t in encoder.tensors.values())
        again = LanguageModel.import_model(session, "again", encoder.folder / "out")
        assert again.encode("abc") == lm.encode("abc")
    assert whole(conn, "again") == whole(conn, "e")
    assert value(conn, "SELECT llm_encode_sequence('ab', 'e')") == [2, 5, 19, 3]
    check(conn, encoder, "again")
    kept = sorted(path.name for path in encoder.folder.iterdir() if path.name.startswith("."))
    assert kept == []


def test_a_directory_is_written_whole_or_not_at_all(
    conn: Connection, engine: Engine, encoder: Encoder, put: Any
) -> None:
    put(encoder.folder)
    conn.execute("SELECT llm_create_model('g', 'microgpt', 1, 2, 8, 16, 30)")
    full, file = encoder.folder / "full", encoder.folder / "file"
    full.mkdir()
    (full / "mine").touch()
    file.touch()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = sorted(encoder.folder.iterdir())
    with Session(engine) as session:
        for model, target, message in (
            ("e", full, "is there already and not empty"),
            ("e", file, "is there already and not empty"),
            ("e", encoder.folder / "no" / "folder", "cannot write"),
            ("g", encoder.folder / "decoder", 'model "g" of architecture microgpt is none that'),
        ):
            with pytest.raises(LLMSQLError, match=message):
                LanguageModel(session, model).export_weights(target)
        with pytest.raises(KeyboardInterrupt):
            LanguageModel(session, "e").export_weights(encoder.folder / "new", progress=stop)
        with pytest.raises(DBAPIError, match="does not exist"):
            LanguageModel(session, "nobody").export_weights(encoder.folder / "new")
        assert sorted(encoder.folder.iterdir()) == before
        empty = encoder.folder / "empty.dir"
        empty.mkdir()
        LanguageModel(session, "e").export_weights(empty)
        # Without a tokenizer there is none in it.
        assert {path.name for path in empty.iterdir()} == {
            "model.safetensors",
            "config.json",
            "modules.json",
            "1_Pooling",
            "sentence_bert_config.json",
            "config_sentence_transformers.json",
        }


def test_an_export_while_recording_records_nothing(conn: Connection, encoder: Encoder, put: Any) -> None:
    put(encoder.folder)
    with conn.transaction():
        conn.execute("INSERT INTO llm_autograd_mode VALUES (true)")
        conn.execute("SELECT pg_llm_export_safetensors(%s, 'e')", (str(encoder.folder / "out.safetensors"),))
        assert value(conn, "SELECT count(*) FROM llm_tape") == 0


def test_names_of_berts_tensors(conn: Connection) -> None:
    rows = conn.execute(
        "SELECT n, b.* FROM unnest('{h.11.mlp.fc1.weight,h.0.ln_2.weight,h.0.attn.q_proj.bias,"
        "h.0.mlp.fc3.weight,wtt.weight,x,h.weight}'::text[]) n CROSS JOIN LATERAL llm_bert_name(n) b"
    ).fetchall()
    assert rows == [
        ("h.11.mlp.fc1.weight", "encoder.layer.11.intermediate.dense.weight", True),
        ("h.0.ln_2.weight", "encoder.layer.0.output.LayerNorm.weight", False),
        ("h.0.attn.q_proj.bias", "encoder.layer.0.attention.self.query.bias", False),
        ("h.0.mlp.fc3.weight", None, False),
        ("wtt.weight", "embeddings.token_type_embeddings.weight", False),
        ("x", None, False),
        ("h.weight", None, False),
    ]
