"""The sampler's kept sets and its draws against plain NumPy; penalties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import penalize, sample

from ..reference import ops as reference
from .tolerance import normal, odd_shapes, seeds


def drawn(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """Each token that a fine grid of uniforms draws, with its share."""
    grid = (np.arange(4000) + 0.5) / 4000
    tokens = [sample(logits, uniform=u, temperature=temperature, top_k=top_k, top_p=top_p) for u in grid]
    ids, counts = np.unique(tokens, return_counts=True)
    return {int(i): count / 4000 for i, count in zip(ids, counts, strict=True)}


@odd_shapes
@given(
    st.integers(1, 60),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.sampled_from([0, 1, 2, 5, 40, 100]),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]),
    st.booleans(),
    seeds,
)
def test_kept_set_and_shares(
    vocab: int, temperature: float, top_k: int, top_p: float, ties: bool, seed: int
) -> None:
    logits = normal(seed, vocab, scale=2)
    if ties:
        logits = np.round(logits)
    ids, probabilities = reference.kept_tokens(logits, temperature, top_k, top_p)
    shares = drawn(logits, temperature, top_k, top_p)
    wanted = dict(zip(ids.tolist(), probabilities.tolist(), strict=True))
    assert set(shares) <= set(wanted)
    for token, probability in wanted.items():
        assert shares.get(token, 0.0) == pytest.approx(probability, abs=1.5 / 4000), token


@odd_shapes
@given(st.integers(1, 3000), st.integers(0, 50), st.sampled_from([0.2, 0.95, 1.0]), seeds)
def test_draw_is_the_inverse_of_the_cumulative_distribution(
    vocab: int, top_k: int, top_p: float, seed: int
) -> None:
    logits = normal(seed, vocab, scale=3)
    ids, probabilities = reference.kept_tokens(logits, 0.8, top_k, top_p)
    cumulative = np.cumsum(probabilities)
    for u in np.random.default_rng(seed).random(20):
        if np.abs(cumulative - u).min() > 1e-9:  # beside an edge rounding decides
            want = ids[int(np.searchsorted(cumulative, u, side="right"))]
            assert sample(logits, uniform=float(u), temperature=0.8, top_k=top_k, top_p=top_p) == want


@odd_shapes
@given(st.integers(1, 200), seeds)
def test_greedy_takes_the_lowest_of_the_largest(vocab: int, seed: int) -> None:
    logits = np.round(normal(seed, vocab))
    assert sample(logits, uniform=0.7, temperature=0) == int(np.argmax(logits))
    assert sample(logits, uniform=0.7, temperature=1.0, top_k=1) == int(np.argmax(logits))
    assert sample(logits, uniform=0.7, temperature=1.0, top_p=0.0) == int(np.argmax(logits))


def test_ties_at_the_edge_of_top_k_keep_the_lowest_ids() -> None:
    logits = np.array([1.0, 2.0, 1.0, 1.0, 2.0], np.float32)
    assert set(drawn(logits, 1.0, 3, 1.0)) == {0, 1, 4}
    assert set(drawn(np.array([0.0, -0.0, 0.0], np.float32), 1.0, 2, 1.0)) == {0, 1}


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05])).astype(np.float32)
    assert set(drawn(logits, 1.0, 0, 0.4)) == {0}
    assert set(drawn(logits, 1.0, 0, 0.6)) == {0, 1}
    assert set(drawn(logits, 1.0, 0, 0.9)) == {0, 1, 2}
    # top-p acts within top-k: 0.5 / 0.8 of what is left
    assert set(drawn(logits, 1.0, 2, 0.62)) == {0}


def test_logits_that_are_not_finite_are_never_drawn() -> None:
    logits = np.array([-np.inf, 1.0, np.nan, 0.0, np.inf], np.float32)
    assert set(drawn(logits, 1.0, 0, 1.0)) == {1, 3}
    assert sample(logits, uniform=0.0, temperature=0) == 1
    for nothing in (np.full(3, np.nan, np.float32), np.full(3, -np.inf, np.float32)):
        for temperature in (0.0, 1.0):
            with pytest.raises(ValueError, match="finite"):
                sample(nothing, uniform=0.5, temperature=temperature)


def test_extreme_temperatures() -> None:
    logits = np.array([3e38, -3e38, 0, 3e38], np.float32)
    assert set(drawn(logits, 1e-30, 0, 1.0)) == {0, 3}
    assert set(drawn(logits, 1e300, 0, 1.0)) == {0, 1, 2, 3}
    assert sample(logits, uniform=1 - 2**-53, temperature=1.0) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"uniform": 1.0}, "uniform"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(np.zeros(4, np.float32), **({"uniform": 0.5} | arguments))


# -- penalties


@odd_shapes
@given(
    st.integers(1, 100),
    st.lists(st.integers(0, 99), max_size=40),
    st.sampled_from([1.0, 1.3, 0.5]),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([0.0, 0.25, -0.5]),
    seeds,
)
def test_penalties(
    vocab: int, seen: list[int], repetition: float, presence: float, frequency: float, seed: int
) -> None:
    logits = normal(seed, vocab)
    ids = np.array([i % vocab for i in seen], np.int64)
    got = penalize(logits, ids, repetition=repetition, presence=presence, frequency=frequency)
    want = logits.astype(np.float64)
    for token, count in zip(*np.unique(ids, return_counts=True), strict=True):
        x = want[token]
        x = x / repetition if x > 0 else x * repetition
        want[token] = x - presence - frequency * count
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_penalties_over_a_large_vocabulary() -> None:
    logits = np.ones(50257, np.float32)
    seen = np.array([50256, 0, 16384, 16383, 50256, 32768])
    got = penalize(logits, seen, repetition=2.0, frequency=1.0)
    want = logits.copy()
    want[[0, 16383, 16384, 32768]] = -0.5
    want[50256] = -1.5
    np.testing.assert_array_equal(got, want)


def test_penalties_refuse_ids_outside() -> None:
    with pytest.raises(ValueError, match="outside"):
        penalize(np.zeros(4, np.float32), [4], repetition=2.0)
    with pytest.raises(ValueError, match="positive"):
        penalize(np.zeros(4, np.float32), [1], repetition=0.0)
