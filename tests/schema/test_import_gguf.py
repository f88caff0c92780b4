"""A model from a GGUF file: the same rows, tokens and texts as from the directory it was converted from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

pytest.importorskip("gguf")

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from llm_sql import LanguageModel, importing
from llm_sql.cli import app
from llm_sql.errors import LLMSQLError

from ..support import gguf_models
from ..support.encoders import write_safetensors
from ..support.tensors import value

Connection = psycopg.Connection[Any]
GOLDEN = Path(__file__).parents[1] / "golden"
TEXTS = ["Größe 12345 don't", "<|endoftext|>", "日本語 and  spaces", ""]


def golden_tokenizer() -> tuple[list[str], list[str]]:
    """Tokens in the order of their ids, and merges."""
    vocab = json.loads((GOLDEN / "bpe_vocab.json").read_text(encoding="utf-8"))
    merges = (GOLDEN / "bpe_merges.txt").read_text(encoding="utf-8").splitlines()
    return sorted(vocab, key=vocab.__getitem__), [line for line in merges if not line.startswith("#")]


def write_both(folder: Path, file: Path) -> None:
    """A random GPT-2 with the golden tokenizer, once as a directory, once as a GGUF file."""
    tokens, merges = golden_tokenizer()
    tensors = gguf_models.tensors_of("gpt2", vocab=len(tokens))
    config = {
        "model_type": "gpt2", "n_layer": 2, "n_head": 4, "n_embd": 32, "n_inner": 64, "n_positions": 64,
        "vocab_size": len(tokens),
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", tensors)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((GOLDEN / f"bpe_{name}").read_bytes())
    end = tokens.index("<|endoftext|>")
    gguf_models.write(
        file,
        "gpt2",
        tensors=gguf_models.converted("gpt2", tensors),
        more={
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3 if i == end else 1 for i in range(len(tokens))],
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.bos_token_id": end,
            "tokenizer.ggml.eos_token_id": end,
            "tokenizer.ggml.unknown_token_id": end,
            "tokenizer.chat_template": "{{ messages }}",
        },
    )


def rows(conn: Connection, query: str, model: str) -> list[Any]:
    return conn.execute(query, (model,)).fetchall()


def stays_so(conn: Connection, engine: Engine, model: str, folder: Path) -> None:
    """Exported as a directory and imported again, the tokenizer has the same rows, and the same files."""
    queries = (
        "SELECT token_id, token, bytes, flags FROM llm_bpe_vocab WHERE model = %s ORDER BY token_id",
        "SELECT rank, left_token, right_token FROM llm_bpe_merges WHERE model = %s ORDER BY rank",
        "SELECT kind, settings, chat_template FROM llm_tokenizer WHERE model = %s",
    )
    with Session(engine) as session, session.begin():
        LanguageModel(session, model).export_weights(folder / "first")
        LanguageModel.import_model(session, "back", folder / "first")
        LanguageModel(session, "back").export_weights(folder / "second")
    for query in queries:
        assert rows(conn, query, "back") == rows(conn, query, model)
    for file in (folder / "first").iterdir():
        assert (folder / "second" / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_same_model_as_from_its_directory(
    conn: Connection, engine: Engine, db_url: str, tmp_path: Path
) -> None:
    folder, file = tmp_path / "hub", tmp_path / "model.gguf"
    write_both(folder, file)
    with Session(engine) as session, session.begin():
        LanguageModel.import_model(session, "hub", folder)
    result = CliRunner().invoke(app, ["import", str(file), "--model", "gguf", "--url", db_url, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["path"] == str(file)
    assert told["tokens"] == len(golden_tokenizer()[0])
    stored = "SELECT name, token_id, data::bytea FROM llm_param WHERE model = %s ORDER BY name, token_id"
    assert rows(conn, stored, "gguf") == rows(conn, stored, "hub")
    config = "SELECT to_jsonb(c) - 'created_at' - 'model' FROM llm_model_config c WHERE model = %s"
    assert rows(conn, config, "gguf") == rows(conn, config, "hub")
    # A file does not tell whether an added token at the end is part of the vocabulary, too.
    vocab = (
        "SELECT token_id, token, array_remove(flags, 'base') FROM llm_bpe_vocab WHERE model = %s ORDER BY 1"
    )
    assert rows(conn, vocab, "gguf") == rows(conn, vocab, "hub")
    for text in TEXTS:
        tokens = [value(conn, "SELECT llm_encode(%s, %s)", (text, model)) for model in ("gguf", "hub")]
        assert tokens[0] == tokens[1]
    again = value(conn, "SELECT llm_generate('the ', 12, model => 'gguf', temperature => 0)")
    assert again == value(conn, "SELECT llm_generate('the ', 12, model => 'hub', temperature => 0)")
    stays_so(conn, engine, "gguf", tmp_path)


CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2, "rms_norm_eps": 1e-6},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, "rms_norm_eps": 1e-6},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "head_dim": 16},
    "gptneox": {"model_type": "gpt_neox", "layer_norm_eps": 1e-5, "rotary_pct": 0.25},
}


@pytest.mark.parametrize("arch", CONFIGS)
def test_rows_and_settings_of_every_architecture(
    conn: Connection, engine: Engine, tmp_path: Path, arch: str
) -> None:
    """As from the directory that the file was converted from; BF16 is stored as such from either."""
    folder = tmp_path / "hub"
    folder.mkdir()
    config = CONFIGS[arch] | {
        "num_hidden_layers": gguf_models.LAYERS, "num_attention_heads": gguf_models.HEADS, "hidden_size": 32,
        "intermediate_size": 64, "max_position_embeddings": 64, "vocab_size": 40,
        "tie_word_embeddings": arch != "gptneox",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tensors = gguf_models.tensors_of(arch)
    if arch == "gptneox":  # GGUF's vectors stay F32
        write_safetensors(folder / "model.safetensors", tensors)
        file = gguf_models.write(tmp_path / "m.gguf", arch)
    else:
        write_safetensors(folder / "model.safetensors", tensors, "BF16")
        file = gguf_models.write(tmp_path / "m.gguf", arch, elements="BF16")
    with Session(engine) as session, session.begin():
        for name, source in (("hub", folder), ("gguf", file)):
            LanguageModel.import_model(session, name, source, tokenizer=False)
    stored = "SELECT name, token_id, data FROM llm_param WHERE model = %s ORDER BY name, token_id"
    for ours, theirs in zip(rows(conn, stored, "gguf"), rows(conn, stored, "hub"), strict=True):
        assert ours[:2] == theirs[:2]
        assert np.array_equal(ours[2], theirs[2]), ours[0]
    if arch != "gptneox":
        query = "SELECT dtype(data) FROM llm_param WHERE model = 'gguf' AND name = 'h.1.attn.q_proj.weight'"
        assert value(conn, query) == "bf16"
    settings = "SELECT to_jsonb(llm_config(%s)) - 'created_at' - 'model'"
    assert rows(conn, settings, "gguf") == rows(conn, settings, "hub")


def test_pieces_of_sentencepiece(conn: Connection, engine: Engine, tmp_path: Path) -> None:
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", *"abt", "▁a", "at", "▁at", "<|end|>"]
    normal = len(words) - 8
    file = gguf_models.write(
        tmp_path / "m.gguf",
        tensors=gguf_models.converted("llama", gguf_models.tensors_of("llama", vocab=len(words))),
        metadata={"vocab_size": len(words)},
        more={
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": words,
            "tokenizer.ggml.scores": [0.0] * normal + [-9.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, 0.0],
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 7, 3],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        },
    )
    with Session(engine) as session, session.begin():
        LanguageModel.import_model(session, "pieces", file)
    query = "SELECT llm_encode_sequence(%s, 'pieces')"
    # The best pair first: a and t, though ▁ and a would be one, too.
    for text, expected in {
        "at": ["<s>", "▁at"],
        "ab at": ["<s>", "▁a", "b", "▁at"],
        "é": ["<s>", "▁", "<0xC3>", "<0xA9>"],
        "": ["<s>"],
    }.items():
        assert [words[i] for i in value(conn, query, (text,))] == expected
    assert value(conn, "SELECT llm_decode(llm_encode(' at\nb', 'pieces'), 'pieces')") == " at\nb"
    ends = value(
        conn,
        "SELECT array_agg(token_id ORDER BY token_id) FROM llm_bpe_vocab"
        " WHERE model = 'pieces' AND flags && '{eos,stop}'",
    )
    assert [words[i] for i in ends] == ["</s>", "<|end|>"]
    stays_so(conn, engine, "pieces", tmp_path)


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    file = gguf_models.write(
        tmp_path / "m.gguf",
        more={
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": [f"t{i}" for i in range(gguf_models.VOCAB)],
            "tokenizer.ggml.merges": ["t 0"],
            "tokenizer.chat_template": "{{ messages }}\0",
        },
    )
    with pytest.raises(LLMSQLError, match=r"m\.gguf has tokenizer\.chat_template"):
        importing.read(file)


@pytest.mark.filterwarnings("ignore:invalid value")  # of the writer
def test_numbers_that_are_not_finite_are_refused(engine: Engine, conn: Connection, tmp_path: Path) -> None:
    """Neither numbers nor scales of blocks."""
    tensors = gguf_models.converted("gpt2", gguf_models.tensors_of("gpt2"))
    tensors["blk.0.ffn_up.weight"][3, 2] = np.nan
    for elements in ("F32", "F16", "Q8_0"):
        file = gguf_models.write(tmp_path / f"{elements}.gguf", "gpt2", tensors=tensors, elements=elements)
        found = importing.read(file)
        with (
            Session(engine) as session,
            pytest.raises(DBAPIError, match=r"h\.0\.mlp\.c_fc\.weight.*not finite"),
        ):
            importing.store(session.connection(), "bad", found)
    assert value(conn, "SELECT count(*) FROM llm_model_config WHERE model = 'bad'") == 0


def test_weights_alone_into_a_model_that_is_there(engine: Engine, conn: Connection, tmp_path: Path) -> None:
    file = gguf_models.write(tmp_path / "m.gguf", "gpt2", elements="F16")
    with Session(engine) as session, session.begin():
        session.execute(importing.hub._INSERT, _columns("there"))
        lm = LanguageModel(session, "there")
        wanted = gguf_models.tensors_of("gpt2")
        assert lm.import_weights(file) == sum(tensor.size for tensor in wanted.values())
    found = dict(conn.execute("SELECT name, data FROM llm_param WHERE model = 'there'").fetchall())
    assert np.array_equal(found["h.1.attn.c_attn.weight"], wanted["transformer.h.1.attn.c_attn.weight"])


def _columns(model: str) -> dict[str, Any]:
    return {
        "model": model, "arch": "gpt2", "n_layer": 2, "n_head": 4, "d_model": 32, "n_positions": 64,
        "vocab": 40, "d_ff": 64, "layer_norm_eps": 1e-5, "activation_function": "gelu_new", "tied": True,
        "settings": "{}",
    }  # fmt: skip
