"""llm_beam_search against a search in Python over llm_logits, without any cache; forked caches; arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..reference.ops import softmax
from ..support.small_models import make_names, train
from ..support.tensors import value

Connection = psycopg.Connection[Any]


@pytest.fixture
def names(conn: Connection) -> Connection:
    make_names(conn, n_positions=16)
    train(conn, "names", 60, lr_max=0.01, batch_size=8, dropout_p=0.0)
    return conn


def log_probabilities(conn: Connection, tokens: list[int]) -> np.ndarray[Any, Any]:
    logits = np.asarray(value(conn, "SELECT llm_logits(%s::int[], 'names')", (tokens,))[-1], dtype=np.float64)
    return np.log(softmax(logits))


def search(
    conn: Connection, prompt: str, width: int, n: int, end: int, penalty: float, early: bool
) -> list[tuple[float, list[int]]]:
    """Beam search as transformers does it, plainly: every beam's every token, sorted."""
    start = value(conn, "SELECT llm_encode(%s, 'names')", (prompt,))
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for step in range(1, n + 1):
        candidates = sorted(
            (
                (score + float(log_prob), [*ids, token])
                for score, ids in beams
                for token, log_prob in enumerate(log_probabilities(conn, start + ids))
            ),
            key=lambda c: (-c[0], c[1]),
        )[: 2 * width]
        ended = [(s / step**penalty, ids) for s, ids in candidates[:width] if step == n or ids[-1] == end]
        finished = sorted(finished + ended, key=lambda c: (-c[0], c[1]))[:width]
        beams = [c for c in candidates if c[1][-1] != end][:width]
        full = len(finished) == width
        if full and (early or beams[0][0] / step**penalty <= finished[-1][0]):
            break
    return finished


def beams(conn: Connection, prompt: str, width: int, n: int, **options: Any) -> list[tuple[Any, ...]]:
    named = "".join(f", {name} => %({name})s" for name in options)
    return conn.execute(
        "SELECT rank, score, text, token_ids"
        f" FROM llm_beam_search(%(prompt)s, %(width)s, %(n)s, 'names'{named})",
        {"prompt": prompt, "width": width, "n": n} | options,
    ).fetchall()


@pytest.mark.parametrize(
    ("prompt", "width", "n", "penalty", "early"),
    [("a", 3, 6, 1.0, False), ("em", 4, 8, 0.0, False), ("l", 2, 10, 2.0, True), ("so", 1, 6, 1.0, False)],
)
def test_as_a_search_without_cache(
    names: Connection, prompt: str, width: int, n: int, penalty: float, early: bool
) -> None:
    end = value(names, "SELECT llm_end_token('names')")
    expected = search(names, prompt, width, n, end, penalty, early)
    found = beams(names, prompt, width, n, length_penalty=penalty, early_stopping=early)
    assert [row[0] for row in found] == list(range(1, width + 1))
    assert [row[3] for row in found] == [ids for _, ids in expected]
    np.testing.assert_allclose([row[1] for row in found], [score for score, _ in expected], rtol=1e-5)
    for row in found:
        without_end = [token for token in row[3] if token != end]
        assert row[2] == value(names, "SELECT llm_decode(%s::int[], 'names')", (without_end,))


def test_one_beam_that_never_ends_is_the_greedy_text(names: Connection) -> None:
    """Beyond the context, so that the cache of a beam begins anew like any other's."""
    names.execute("UPDATE llm_bpe_vocab SET token_id = 999 WHERE model = 'names' AND token = '<|bos|>'")
    names.execute(
        "INSERT INTO llm_bpe_vocab SELECT model, vocab - 1, '?', '?' FROM llm_model_config"
        " WHERE model = 'names'"
    )
    [(_, _, text, _)] = beams(names, "a", 1, 40)
    assert text == value(names, "SELECT llm_generate('a', 40, 0, model => 'names')")


def test_scores_descend_and_wider_is_not_worse(names: Connection) -> None:
    best = []
    for width in (1, 4, 16):
        scores = [row[1] for row in beams(names, "ch", width, 8, length_penalty=0.0)]
        assert scores == sorted(scores, reverse=True)
        best.append(scores[0])
    assert best[2] >= best[1] >= best[0]


def test_the_same_bits_each_time_and_nothing_is_left_open(names: Connection) -> None:
    first = beams(names, "mi", 3, 12)
    with names.transaction():
        assert beams(names, "mi", 3, 12) == first
        for handle in range(1, 200):
            with pytest.raises(errors.UndefinedObject), names.transaction():
                names.execute("SELECT pg_llm_gen_length(%s)", (handle,))


def test_a_fork_goes_its_own_way(names: Connection) -> None:
    with names.transaction():
        value(names, "SELECT llm_pin('names')")
        one = value(names, "SELECT pg_llm_gen_open('names', ARRAY[1, 2, 3], 16)")
        step = "SELECT llm_generation_logits(%s, 'names', 16)::bytea"
        value(names, step, (one,))
        two = value(names, "SELECT pg_llm_gen_fork(%s)", (one,))
        names.execute("SELECT pg_llm_gen_push(%s, 4), pg_llm_gen_push(%s, 5)", (one, two))
        for handle, token in ((one, 4), (two, 5)):
            assert value(names, "SELECT pg_llm_gen_length(%s)", (handle,)) == 3
            cached = value(names, step, (handle,))
            fresh = value(
                names, "SELECT llm_forward('names', %s, last_only => true)::bytea", ([1, 2, 3, token],)
            )
            assert cached == fresh
        names.execute("SELECT pg_llm_gen_close(%s)", (one,))
        assert value(names, "SELECT pg_llm_gen_tokens(%s)", (two,)) == [1, 2, 3, 5]


def test_the_likeliest_tokens(conn: Connection) -> None:
    logits = "'[[9,9,9,9],[1,3,NaN,3]]'::tensor"
    row = conn.execute(f"SELECT * FROM pg_llm_top_tokens({logits}, 2)").fetchone()
    assert row is not None
    assert row[0] == [1, 3]
    total = np.exp([1.0, 3.0, 3.0]).sum()
    np.testing.assert_allclose(row[1], [3 - np.log(total)] * 2, rtol=1e-14)
    row = conn.execute(f"SELECT * FROM pg_llm_top_tokens({logits}, 100)").fetchone()
    assert row is not None
    assert row[0] == [1, 3, 0]
    with pytest.raises(errors.InvalidParameterValue):
        conn.execute(f"SELECT pg_llm_top_tokens({logits}, 0)")
    with pytest.raises(errors.NumericValueOutOfRange):
        conn.execute("SELECT pg_llm_top_tokens('[NaN]'::tensor, 1)")


def test_arguments(names: Connection) -> None:
    for arguments in (
        "0",
        "NULL",
        "3, 0",
        "3, length_penalty => 'NaN'",
        "3, length_penalty => NULL",
        "3, early_stopping => NULL",
    ):
        with pytest.raises(errors.InvalidParameterValue):
            names.execute(f"SELECT llm_beam_search('a', {arguments})")
    with pytest.raises(errors.UndefinedObject):
        names.execute("SELECT llm_beam_search('a', model => 'nobody')")
    assert names.execute("SELECT llm_beam_search(NULL)").fetchall() == []
    with names.transaction():
        names.execute("SET TRANSACTION READ ONLY")
        assert len(beams(names, "a", 2, 4)) == 2
