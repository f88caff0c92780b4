"""Tokenizers of exported directories: importing one gives the same rows, exporting that the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.bpe_files import PATTERNS
from llm_sql.errors import LLMSQLError

from ..reference import bpe as reference
from ..reference import layouts, wordpiece

VOCAB = reference.GOLDEN / "bpe_vocab.json"
MERGES = reference.GOLDEN / "bpe_merges.txt"
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
ROWS = (
    "SELECT token_id, token, bytes, score, flags FROM llm_bpe_vocab WHERE model = :model ORDER BY token_id",
    "SELECT rank, left_token, right_token, pair FROM llm_bpe_merges WHERE model = :model ORDER BY rank",
    "SELECT kind, settings, chat_template FROM llm_tokenizer WHERE model = :model",
)
TEXTS = [*layouts.TEXTS, *reference.HARD, *reference.random_strings(3, 100)]
ADDED = [
    layouts.token("<|x|>", 512, special=True, lstrip=True, rstrip=True),
    layouts.token("xyz", 513, single_word=True),
    layouts.token("  ", 514, normalized=True),
    layouts.token("<|im_end|>", 515, special=True),
]


def create(session: Session, model: str = "m") -> LanguageModel:
    return LanguageModel.create(session, model, n_layer=1, n_head=1, d_model=8, n_positions=64, vocab=600)


def sent(model: LanguageModel, folder: Path) -> dict[str, bytes]:
    """The files of its tokenizer as it is exported."""
    model.export_weights(folder)
    return {name: (folder / name).read_bytes() for name in FILES}


def rows(session: Session, model: str) -> list[Any]:
    return [session.execute(sql(query), {"model": model}).all() for query in ROWS]


def tokens(session: Session, model: str, special: bool) -> list[list[int]]:
    query = sql(
        "SELECT array_agg(to_jsonb(llm_encode(t, :model, special => :special)) ORDER BY i)"
        " FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY u (t, i)"
    )
    texts = [text for text in TEXTS if "\0" not in text]
    found = session.execute(query, {"model": model, "special": special, "texts": texts}).scalar_one()
    return list(found)


def there_and_back(session: Session, model: LanguageModel, folder: Path) -> LanguageModel:
    """Exported, imported under another name, and exported again."""
    first = sent(model, folder / "first")
    LanguageModel.import_model(session, "back", folder / "first")
    back = LanguageModel(session, "back")
    assert sent(back, folder / "second") == first
    for special in (False, True):
        assert tokens(session, "back", special) == tokens(session, model.model, special)
    ends = "SELECT llm_end_tokens(:model), llm_begin_token(:model)"
    assert session.execute(sql(ends), {"model": "back"}).one() == (
        session.execute(sql(ends), {"model": model.model}).one()
    )
    return back


def byte_level(name: str, nfc: bool, ignore_merges: bool) -> dict[str, Any]:
    """The golden tokenizer, with a token in front, cut as `name` says."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    first: Any = {"type": "Split", "pattern": {"Regex": PATTERNS.get(name)}, "behavior": "Isolated"}
    if name == "smollm":
        first = {"type": "Digits", "individual_digits": True}
    steps = [level | {"use_regex": True}]
    if name != "gpt2":
        steps = [first, level | {"use_regex": name == "smollm"}]
    contents = layouts.tokenizer_json(*ADDED)
    contents["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    contents["normalizer"] = {"type": "NFC"} if nfc else None
    contents["model"]["ignore_merges"] = ignore_merges
    contents["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|x|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<|x|>": {"id": "<|x|>", "ids": [512], "tokens": ["<|x|>"]}},
    }
    return contents


@pytest.mark.parametrize(
    ("name", "nfc", "ignore_merges"),
    [
        ("gpt2", False, False),
        ("gpt2", True, False),
        ("smollm", False, False),
        ("llama3", False, True),
        ("qwen2", True, False),
        ("o200k", False, False),
        ("tekken", False, True),
    ],
)
def test_every_kind_of_byte_level_bpe(
    session: Session, tmp_path: Path, name: str, nfc: bool, ignore_merges: bool
) -> None:
    given = {
        "tokenizer.json": byte_level(name, nfc, ignore_merges),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|x|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
        "generation_config.json": {"eos_token_id": [515, 511], "bos_token_id": 512},
        "chat_template.jinja": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    model = create(session)
    model.load_tokenizer(layouts.write(tmp_path, given))
    there_and_back(session, model, tmp_path)
    assert rows(session, "back") == rows(session, "m")
    [(_, chosen, template)] = rows(session, "back")[2]
    assert (chosen["pre_tokenizer"], chosen["prefix"]) == (name, [512])
    assert template == given["chat_template.jinja"]
    found = json.loads((tmp_path / "second" / "generation_config.json").read_text())
    assert found == {"bos_token_id": 512, "eos_token_id": [511, 515]}
    config = json.loads((tmp_path / "second" / "tokenizer_config.json").read_text())
    named = {"bos_token": "<|x|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    assert {name: config[name] for name in named} == named


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_layout_of_a_directory(session: Session, tmp_path: Path, name: str) -> None:
    model = create(session)
    model.load_tokenizer(layouts.write(tmp_path, layouts.LAYOUTS[name]))
    there_and_back(session, model, tmp_path)
    assert rows(session, "back") == rows(session, "m")


@pytest.mark.parametrize(
    "ids",
    [
        {"eos_token_id": [513, 511]},
        {"eos_token_id": 13, "bos_token_id": 64},
        {"eos_token_id": 512, "bos_token_id": 513},
    ],
)
def test_what_begins_and_ends_a_text(session: Session, tmp_path: Path, ids: dict[str, Any]) -> None:
    """Also by ordinary tokens, which no file names then: it would make them special."""
    layout = layouts.LAYOUTS["a pair"] | {"added_tokens.json": {"<|bos|>": 512, "<|im_end|>": 513}}
    model = create(session)
    model.load_tokenizer(layouts.write(tmp_path, layout | {"generation_config.json": ids}))
    there_and_back(session, model, tmp_path)
    assert rows(session, "back") == rows(session, "m")


def sentencepiece() -> tuple[dict[str, int], list[list[str]]]:
    characters = ["\u2581", *"abcdehilnorstuxyz!", "é", "日"]
    merges = [["h", "e"], ["t", "he"], ["\u2581", "the"], ["a", "t"], ["\u2581", "c"], ["\u2581c", "at"]]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *characters]
    tokens += [left + right for left, right in merges]
    return {token: i for i, token in enumerate(tokens)}, merges


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("prefix_space", ["prepend", "always", "first", "never"])
def test_every_form_of_sentencepiece(
    session: Session, tmp_path: Path, prefix_space: str, split: bool
) -> None:
    vocab, merges = sentencepiece()
    settings = {
        "prefix_space": prefix_space,
        "split": split,
        "strip": prefix_space != "never",
        "prefix": [1],
        "suffix": [2] if split else [],
    }
    added = [
        {"id": i, "content": content, "flags": sorted(["added", "special", role])}
        for i, (content, role) in enumerate({"<unk>": "unk", "<s>": "bos", "</s>": "eos"}.items())
    ]
    added += [{"id": len(vocab), "content": "<|x|>", "flags": ["added", "normalized"]}]
    model = create(session)
    session.execute(
        sql("SELECT llm_load_sentencepiece('m', :vocab, :merges, :settings, :added)"),
        {
            name: json.dumps(value)
            for name, value in (
                ("vocab", vocab),
                ("merges", merges),
                ("settings", settings),
                ("added", added),
            )
        },
    )
    if prefix_space == "prepend" and split:
        with pytest.raises(LLMSQLError, match=r"prefix_space prepend with split, which tokenizer\.json"):
            sent(model, tmp_path / "first")
        return
    there_and_back(session, model, tmp_path)
    assert rows(session, "back") == rows(session, "m")


def test_wordpiece_of_a_decoder(session: Session, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in wordpiece.read_vocab()))
    model = LanguageModel.create(
        session, "m", n_layer=1, n_head=1, d_model=8, n_positions=8, vocab=len(wordpiece.read_vocab())
    )
    model.load_tokenizer(tmp_path / "vocab.txt")
    there_and_back(session, model, tmp_path)
    assert rows(session, "back") == rows(session, "m")


def test_tokens_that_say_nothing_of_themselves(session: Session, tmp_path: Path) -> None:
    model = create(session)
    model.load_tokenizer(VOCAB, MERGES)
    there_and_back(session, model, tmp_path)
    flags = "SELECT flags FROM llm_bpe_vocab WHERE model = 'back' AND token_id = 511"
    assert {"added", "special", "bos", "eos"} <= set(session.scalar(sql(flags)))


def test_a_tokenizer_that_was_trained_here(session: Session, tmp_path: Path) -> None:
    model = create(session)
    session.execute(sql("SELECT llm_train_bpe('m', :query, 300)"), {"query": "VALUES ('the cat the cat')"})
    there_and_back(session, model, tmp_path)


def test_characters_are_left_out(session: Session, tmp_path: Path) -> None:
    session.execute(sql("SELECT llm_build_char_tokenizer('m', 'VALUES (''abc'')')"))
    model = LanguageModel.create(session, "m", n_layer=1, n_head=1, d_model=8, n_positions=8, vocab=4)
    model.export_weights(tmp_path / "sent")
    assert {path.name for path in (tmp_path / "sent").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }


def test_ids_that_no_file_can_give(session: Session, tmp_path: Path) -> None:
    model = create(session)
    model.load_tokenizer(VOCAB, MERGES)
    added = json.dumps([{"id": 580, "content": "<y>", "flags": ["added"]}])
    session.execute(sql("SELECT llm_add_tokens('m', :added)"), {"added": added})
    with pytest.raises(LLMSQLError, match="the added token '<y>' with the id 580 in place of 512"):
        model.export_weights(tmp_path / "sent")
    assert list(tmp_path.iterdir()) == []
