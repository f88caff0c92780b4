"""tokenizer.json of every kind of byte-level BPE, trained here: ids and texts equal those of tokenizers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from sqlalchemy import text as sql
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.bpe_files import PATTERNS
from llm_sql.errors import LLMSQLError
from llm_sql.kernels import bpe_pieces
from llm_sql.tokenizer import read_bpe

from ..reference import bpe as reference

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import (  # noqa: E402
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

EXAMPLES = int(os.environ.get("LLM_SQL_TEST_EXAMPLES", "300"))
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WITH_REGEX = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "smollm": {},
    "llama3": {"bos": "<|begin_of_text|>", "ignore_merges": True},
    "qwen2": {"nfc": True},
    "o200k": {},
    "tekken": {"bos": "<s>", "ignore_merges": True},
    "gpt_neox": {"nfc": True, "spaces": True},
}
TEXTS = [
    "It's what WE'VE got: don't, I'LL, you'Re, THEY'D, x's and 'ſ 'S\n\n  indented\tcode  { }  \r\n\r\nend  ",
    "In 2024, 1234567 rows; ½ or ² or Ⅷ or ٣ — 3.14e-10/7 https://a.b/c?d=e&f#g",
    "Größe naïve café cafe\u0301 ÅÅ \u212b ﬁ ſt ǆ ǅ İi Iı ß ẞ",
    "日本語の文章です。中文和标点，한국어 한글 ไทย हिन्दी देवनागरी العربية עברית Ελληνικά Кириллица",
    "👩‍👩‍👧‍👦 🇩🇪 👍🏽",
    " \u0301\u0327 a\u0327\u0301 \u1100\u1161\u11a8 \u200b\u200d\u2060 \u00a0\u3000\u2003 \u0085",
    "def f(x):\n    return x  # HTTPServer XMLHttp iPhone McDonald's\n\n\n\t\t\treturn\n",
    "<|im_start|>user\nhi<|im_end|>\n<|begin_of_text|><s> <keep> x<keep>y [é] [e\u0301]",
    *(piece * 40 for piece in (" ", "\n", "a", "1", "ab", "!", " \n")),
]


def pre_tokenizer(name: str) -> Any:
    if name in ("gpt2", "gpt_neox"):
        return WITH_REGEX
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), WITH_REGEX])
    split = pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")
    return pre_tokenizers.Sequence([split, BYTE_LEVEL])


def train(
    name: str, nfc: bool = False, ignore_merges: bool = False, bos: str = "", spaces: bool = False
) -> Any:
    """A tokenizer of a few hundred tokens, of the texts."""
    theirs = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    theirs.pre_tokenizer = pre_tokenizer(name)
    theirs.decoder = decoders.ByteLevel()
    if nfc:
        theirs.normalizer = normalizers.NFC()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *([bos] if bos else [])]
    theirs.train_from_iterator(
        TEXTS * 2,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    theirs.add_tokens(
        [AddedToken("<keep>", single_word=True), AddedToken("[e\u0301]", normalized=True, rstrip=True)]
    )
    if spaces:
        theirs.add_tokens([" " * n for n in range(24, 1, -1)])
    if bos:
        theirs.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single=f"{bos} $A", special_tokens=[(bos, theirs.token_to_id(bos))]
                ),
            ]
        )
    return theirs


def write(directory: Path, theirs: Any, **config: Any) -> Path:
    theirs.save(str(directory / "tokenizer.json"))
    given = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(given))
    return directory


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_ids_of_tokenizers(session: Session, tmp_path: Path, name: str) -> None:
    theirs = train(name, **KINDS[name])
    model = LanguageModel.create(session, "m", n_layer=1, n_head=1, d_model=8, n_positions=64, vocab=700)
    model.load_tokenizer(write(tmp_path, theirs))
    ours = read_bpe(session, "m")
    plain = tokenizers.Tokenizer.from_str(theirs.to_str())
    plain.encode_special_tokens = True
    bos = KINDS[name].get("bos")

    def check(text: str) -> None:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, special=True).tolist() == ids, ascii(text)
        assert ours.encode(text).tolist() == plain.encode(text, add_special_tokens=False).ids, ascii(text)
        # Theirs takes the characters of an added token for bytes, which the next line has none of.
        ids = [id_ for id_ in ids if id_ != theirs.token_to_id("[e\u0301]")]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), ascii(text)

    for text in (*TEXTS, *reference.HARD, *reference.random_strings(1, 2000)):
        check(text)
    pieces = strategies.sampled_from(
        [*"\n\r\t '’sStTrReElLvVmMdD01a½éſ中\u0301", *TEXTS[0].split(), "<keep>", "[é]"]
    )
    texts = strategies.one_of(strategies.text(), strategies.lists(pieces, max_size=20).map("".join))
    settings(max_examples=EXAMPLES, deadline=None, database=None)(given(texts)(check))()
    for text in TEXTS:
        arguments = {"text": text}
        row = session.execute(
            sql(
                "SELECT llm_encode(:text, 'm'), llm_encode(:text, 'm', special => true),"
                " llm_encode_sequence(:text, 'm')"
            ),
            arguments,
        ).one()
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert row == (plain.encode(text, add_special_tokens=False).ids, ids, theirs.encode(text).ids)
    prefix = [theirs.token_to_id(bos)] if bos else []
    assert session.scalar(sql("SELECT llm_prefix_tokens('m')")) == prefix
    chosen = session.scalar(sql("SELECT settings FROM llm_tokenizer WHERE model = 'm'"))
    assert chosen["pre_tokenizer"] == ("gpt2" if name == "gpt_neox" else name)


def test_every_character_is_cut_as_tokenizers_cut_it() -> None:
    digits = pre_tokenizers.Digits(individual_digits=True)
    # Of the planes without characters one in 61: they are of one class.
    assigned = [*range(1, 0xD800), *range(0xE000, 0x32000), *range(0xE0000, 0xE0200)]
    codes = sorted({*assigned, *range(0x32000, 0x110000, 61)})
    for name, pattern in (PATTERNS | {"smollm": PATTERNS["gpt2"]}).items():
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        theirs = pre_tokenizers.Sequence([digits, split]) if name == "smollm" else split
        for start in range(0, len(codes), 512):
            text = "".join(f"{chr(c)}b1{chr(c)} x{chr(c)}{chr(c)}A" for c in codes[start : start + 512])
            found = [piece.decode() for piece in bpe_pieces(text, name)]
            assert found == [piece for piece, _ in theirs.pre_tokenize_str(text)], (name, hex(codes[start]))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, []),
        ({"add_bos_token": True, "bos_token": "<|im_start|>"}, ["<|im_start|>"]),
        ({"add_bos_token": True, "add_eos_token": True}, ["<|endoftext|>"]),
        ({"add_bos_token": False, "bos_token": "<|im_start|>"}, []),
    ],
)
def test_tokens_around_a_text_that_the_configuration_asks_for(
    session: Session, tmp_path: Path, config: dict[str, Any], expected: list[str]
) -> None:
    """As transformers has it, in which a post-processor overrules the configuration. OPT has none."""
    theirs = train("gpt2")
    model = LanguageModel.create(session, "m", n_layer=1, n_head=1, d_model=8, n_positions=64, vocab=700)
    write(tmp_path, theirs, **config | {"tokenizer_class": "GPT2Tokenizer"})
    transformers = pytest.importorskip("transformers")
    for alone in (False, True):
        ids = [theirs.token_to_id(token) for token in expected] if alone else []
        model.load_tokenizer(tmp_path)
        assert session.scalar(sql("SELECT llm_prefix_tokens('m')")) == ids
        reads = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
        assert session.scalar(sql("SELECT llm_encode_sequence('a b', 'm')")) == reads("a b")["input_ids"]
        theirs.model.save(str(tmp_path))
        (tmp_path / "tokenizer.json").unlink(missing_ok=True)


def test_what_is_cut_otherwise_is_refused_by_name(session: Session, tmp_path: Path) -> None:
    theirs = train("gpt2")
    model = LanguageModel.create(session, "m", n_layer=1, n_head=1, d_model=8, n_positions=64, vocab=700)
    split = pre_tokenizers.Split(Regex(r"\w+"), "isolated")
    for steps, message in (
        (pre_tokenizers.Sequence([split, BYTE_LEVEL]), r"pre_tokenizer's pattern = .*w\+"),
        (pre_tokenizers.Sequence([pre_tokenizers.Digits(), WITH_REGEX]), "individual_digits = False"),
        (pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), WITH_REGEX]), "Whitespace"),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), "add_prefix_space"),
    ):
        theirs.pre_tokenizer = steps
        with pytest.raises(LLMSQLError, match=message):
            model.load_tokenizer(write(tmp_path, theirs))
