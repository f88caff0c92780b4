"""Loading a data set from files and queries: equal to encoding the whole, resumable, split without leaks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Engine

from llm_sql import LanguageModel, corpus, sources
from llm_sql.corpus import FileSource, LoadOptions, LoadProgress, QuerySource, find_files, load
from llm_sql.errors import LLMSQLError, UsageError

Row = tuple[list[int], list[int]]


def rows_of(engine: Engine, split: str) -> list[Row]:
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            f"SELECT tokens, target FROM llm_dataset WHERE split = '{split}' ORDER BY id"
        )
        return [(list(tokens), list(target)) for tokens, target in found]


def cut(stream: list[int], block: int, stride: int) -> list[Row]:
    """The rule of llm_fill_dataset, over the whole stream at once."""
    return [
        (stream[s : s + block][: len(stream) - s - 1], stream[s + 1 : s + block + 1])
        for s in range(0, len(stream) - 1, stride)
        if s == 0 or s - stride + block + 1 < len(stream)
    ]


def text_of(n: int, seed: int) -> str:
    words = ["the", "cat", "dog", "sat", "ran", "a", "end"]
    return " ".join(np.random.default_rng(seed).choice(words, n))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE_BYTES", 100)
    monkeypatch.setattr(corpus, "COMMIT_TOKENS", 150)


@pytest.mark.parametrize(("block", "stride"), [(8, 8), (8, 3), (32, 31)])
def test_files_are_cut_like_their_streams(
    tiny: LanguageModel, engine: Engine, tmp_path: Path, small_pieces: None, block: int, stride: int
) -> None:
    texts = [text_of(200, 1), text_of(1, 2), text_of(90, 3)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    seen: list[LoadProgress] = []
    files = find_files([str(tmp_path / "*.txt")])
    done = load(
        engine,
        "tiny",
        FileSource(files),
        LoadOptions(block_size=block, stride=stride, validation=0.2),
        progress=lambda p: seen.append(LoadProgress(**vars(p))),
    )
    end = tiny.encode("")
    assert end == []
    [bos] = {tokens[0] for tokens, _ in rows_of(engine, "train")[:1]}
    streams: dict[str, list[int]] = {"train": [], "validation": []}
    for text in texts:
        border = sources.CUT.search(text.encode(), int(len(text) * 0.8))
        at = border.end() if border else len(text)
        assert at >= int(len(text) * 0.8)
        for split, part in (("train", text[:at]), ("validation", text[at:])):
            if part:
                streams[split] += [bos, *tiny.encode(part)]
    for split, stream in streams.items():
        train = {tuple(tokens) for tokens, _ in rows_of(engine, "train")}
        expected = cut([*stream, bos], block, stride)
        if split == "validation":
            expected = [row for row in expected if tuple(row[0]) not in train]
        assert rows_of(engine, split) == expected
    assert done.train_rows == len(rows_of(engine, "train"))
    assert done.validation_rows == len(rows_of(engine, "validation"))
    fractions = [p.fraction for p in seen]
    assert len(seen) > 3
    assert fractions == sorted(fractions)  # type: ignore[type-var]
    assert fractions[-1] == 1.0


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_load_that_was_cut_off_goes_on(
    tiny: LanguageModel, engine: Engine, tmp_path: Path, small_pieces: None, lines: bool, at: int
) -> None:
    (tmp_path / "a.txt").write_text(
        "\n".join(text_of(12, seed) for seed in range(40)).replace("\n", " \n"[lines])
    )
    (tmp_path / "b.txt").write_text(text_of(150, 99))
    source = FileSource(find_files([str(tmp_path / "*.txt")]), lines=lines)
    options = LoadOptions(block_size=16, stride=12)
    load(engine, "tiny", source, options)
    expected = rows_of(engine, "train"), rows_of(engine, "validation")
    assert all(expected)
    calls = itertools.count(1)

    def cut_off(_: LoadProgress) -> None:
        if next(calls) == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(engine, "tiny", source, options, restart=True, progress=cut_off)
    part = rows_of(engine, "train")
    assert 0 < len(part) < len(expected[0])
    resumed: list[float] = []
    load(engine, "tiny", source, options, progress=lambda p: resumed.append(p.fraction or 0))
    assert (rows_of(engine, "train"), rows_of(engine, "validation")) == expected
    # Other options are another load.
    load(engine, "tiny", source, LoadOptions(block_size=8, stride=8))
    assert len(rows_of(engine, "train")[0][0]) == 8


def test_lines_and_queries_hold_out_whole_documents(
    tiny: LanguageModel, engine: Engine, tmp_path: Path
) -> None:
    documents = sorted({text_of(6, seed) for seed in range(60)})
    (tmp_path / "a.txt").write_text("\n".join([*documents, "", *documents[:10]]))
    options = LoadOptions(block_size=32, stride=32, validation=0.3)
    load(engine, "tiny", FileSource([tmp_path / "a.txt"], lines=True), options)
    halves = []
    for split in ("train", "validation"):
        stream = [row[0] for row in rows_of(engine, split)]
        halves.append({tiny.decode(document) for document in split_at_bos(stream)} - {""})
    assert halves[0] | halves[1] == set(documents)
    assert not halves[0] & halves[1]
    assert 5 < len(halves[1]) < 35
    query = "SELECT unnest(ARRAY[" + ", ".join(f"'{document}'" for document in documents) + "])"
    load(engine, "tiny", QuerySource(engine, query + ";"), options)
    stream = [row[0] for row in rows_of(engine, "validation")]
    assert {tiny.decode(document) for document in split_at_bos(stream)} - {""} == halves[1]


def split_at_bos(rows: list[list[int]]) -> list[list[int]]:
    bos = rows[0][0]
    tokens = [token for row in rows for token in row]
    return [list(group) for is_bos, group in itertools.groupby(tokens, lambda t: t == bos) if not is_bos]


def test_at_least_one_of_few_documents_is_held_out(tiny: LanguageModel, engine: Engine) -> None:
    for documents in (["the cat", "a dog"], ["the cat", "a dog", "the end", "a cat"]):
        query = f"SELECT unnest(ARRAY{documents})"
        done = load(
            engine, "tiny", QuerySource(engine, query), LoadOptions(block_size=16, stride=16, validation=0.01)
        )
        assert done.validation_rows >= 1
        assert done.train_rows >= 1
    done = load(
        engine, "tiny", QuerySource(engine, "SELECT 'the cat'"), LoadOptions(block_size=16, stride=16)
    )
    assert (done.train_rows, done.validation_rows) == (1, 0)


@pytest.mark.parametrize("piece", [1, 7, 64, 10000])
def test_pieces_make_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(sources, "PIECE_BYTES", piece)
    texts = [
        "",
        "x",
        "no-space-at-all" * 20,
        "a b  c\n\n d\u00a0 e\u3000 f é ü \U0001f600 ok " * 9,
        "中文 字\n" * 50,
    ]
    for text in texts:
        (tmp_path / "t.txt").write_text(text)
        for validation in (0.0, 0.5):
            pieces = list(FileSource([tmp_path / "t.txt"]).pieces(None, validation))
            assert "".join(p.text for p in pieces) == text
            assert [p.held_out for p in pieces] == sorted(p.held_out for p in pieces)  # type: ignore[type-var]
            for left, right in itertools.pairwise(pieces):
                assert not left.text[-1].isspace()
                assert right.text[0] in " \n"
            for i, p in enumerate(pieces):
                rest = FileSource([tmp_path / "t.txt"]).pieces(p.position, validation)
                assert list(rest) == pieces[i + 1 :]


def test_refusals(tiny: LanguageModel, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file matches"):
        find_files([str(tmp_path / "*.txt")])
    (tmp_path / "a.txt").write_bytes(b"the \xff cat")
    options = LoadOptions(block_size=8, stride=8, validation=0)
    with pytest.raises(UsageError, match="byte 4"):
        load(engine, "tiny", FileSource([tmp_path / "a.txt"]), options)
    (tmp_path / "a.txt").write_text("the @ cat")
    with pytest.raises(LLMSQLError, match="'@'"):
        load(engine, "tiny", FileSource([tmp_path / "a.txt"]), options)
    (tmp_path / "a.txt").write_text("")
    before = rows_of(engine, "train")
    with pytest.raises(LLMSQLError, match="no text"):
        load(engine, "tiny", FileSource([tmp_path / "a.txt"]), options)
    assert rows_of(engine, "train") == before


def test_rows_in_copys_binary_format(conn: psycopg.Connection[Any]) -> None:
    rows = np.arange(12, dtype=np.int32).reshape(2, 6) - 3
    with conn.cursor() as cursor, cursor.copy(corpus.COPY) as copy:
        copy.write(corpus.COPY_HEADER + corpus.binary_rows("modèle", "train", rows) + corpus.COPY_TRAILER)
    found = conn.execute("SELECT model, split, tokens, target FROM llm_dataset ORDER BY id").fetchall()
    assert found == [("modèle", "train", r[:-1].tolist(), r[1:].tolist()) for r in rows]
