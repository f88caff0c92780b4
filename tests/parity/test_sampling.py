"""What top-k and top-p keep, and the shares of what is kept, against the warpers of transformers.

A token's share is an interval of the uniform number that is drawn. A draw in the middle of each interval,
computed from transformers' probabilities, must give that token: so exactly its set is kept, with its shares.
Of tokens with equal logits at the edge of the set those with the lowest ids are kept here; transformers keeps
all of them in top-k, and in top-p those that its sort puts last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from numpy.typing import NDArray
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llm_sql.kernels import penalize, sample

Logits = NDArray[np.float32]


def warped(logits: Logits, temperature: float, top_k: int, top_p: float) -> NDArray[np.float64]:
    """The probabilities that transformers draws from, its warpers in the order generate() applies them."""
    warpers = LogitsProcessorList()
    if temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(temperature))
    if top_k != 0:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    scores = warpers(torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits.astype(np.float64))[None])
    return scores[0].softmax(-1).numpy()


def check(logits: Logits, temperature: float, top_k: int, top_p: float) -> int:
    """Draws in the middle of every share; returns how many tokens are kept."""
    p = warped(logits, temperature, top_k, top_p)
    order = np.lexsort((np.arange(len(p)), -logits.astype(np.float64)))
    kept = [int(i) for i in order if p[i] > 0]
    edges = np.concatenate([[0.0], np.cumsum(p[kept])])
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    shares = list(zip(kept, edges[:-1], edges[1:], strict=True))
    # Of a large set the first and the last ones, and some between.
    for token, low, high in [*shares[:100], *shares[100:-100:97], *shares[100:][-100:]]:
        if high - low > 1e-12:
            assert sample(logits, uniform=float((low + high) / 2), **options) == token
    assert sample(logits, uniform=0.0, **options) == kept[0]
    if p[kept[-1]] > 1e-12:
        assert sample(logits, uniform=float(np.nextafter(1.0, 0.0)), **options) == kept[-1]
    return len(kept)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 400),
    st.sampled_from([0.3, 0.7, 1.0, 1.8]),
    st.sampled_from([0, 1, 2, 3, 7, 40, 399, 400, 1000]),
    st.sampled_from([1e-9, 0.05, 0.3, 0.5, 0.9, 0.95, 0.999, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_kept_sets_and_shares(vocab: int, temperature: float, top_k: int, top_p: float, seed: int) -> None:
    logits = (np.random.default_rng(seed).normal(size=vocab) * 2).astype(np.float32)
    if len(np.unique(logits)) == vocab:  # ties are another question
        check(logits, temperature, top_k, top_p)


@pytest.mark.parametrize(
    ("top_k", "top_p", "least"),
    [(50, 0.95, 5), (0, 0.9, 500), (0, 0.5, 20), (1000, 1.0, 1000), (40, 0.92, 5)],
)
def test_gpt2s_vocabulary(top_k: int, top_p: float, least: int) -> None:
    rng = np.random.default_rng(5)
    logits = rng.permutation(np.linspace(-3, 3, 50257).astype(np.float32) ** 3 / 2)
    assert least <= check(logits, 0.9, top_k, top_p) < 50257


def test_ties_inside_the_kept_set_are_all_kept() -> None:
    logits = np.array([1, 3, 3, 0, 3, 1, -2], np.float32)
    for top_k, top_p, kept in ((3, 1.0, 3), (0, 0.8, 3), (5, 1.0, 5), (5, 0.98, 5)):
        assert check(logits, 1.0, top_k, top_p) == kept


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_ties_at_the_edge_of_top_k(top_k: int) -> None:
    """Exactly top_k tokens, of equal ones those of the lowest ids; transformers keeps every equal one."""
    logits = np.array([1, 3, 1, 3, 1, 1, 3], np.float32)
    theirs = set(np.flatnonzero(warped(logits, 1.0, top_k, 1.0)).tolist())
    drawn = {sample(logits, uniform=u, top_k=top_k) for u in np.arange(0, 1, 1e-3)}
    assert drawn <= theirs
    assert drawn == set([1, 3, 6, 0, 2, 4, 5][:top_k])
    assert len(theirs) == {1: 3, 2: 3, 4: 7}[top_k]


@pytest.mark.parametrize("top_p", [0.1, 0.4, 0.7])
def test_ties_at_the_edge_of_top_p(top_p: float) -> None:
    """As many as transformers keeps, with the same probabilities; of equal ones those of the lowest ids."""
    logits = np.zeros(16, np.float32)
    theirs = warped(logits, 1.0, 0, top_p)
    drawn = [sample(logits, uniform=u, top_p=top_p) for u in (np.arange(4096) + 0.5) / 4096]
    ids, counts = np.unique(drawn, return_counts=True)
    assert ids.tolist() == list(range(np.count_nonzero(theirs)))
    np.testing.assert_allclose(counts / 4096, theirs[theirs > 0], atol=1 / 4096)


def test_the_token_that_reaches_top_p_exactly_is_the_last() -> None:
    """Probabilities 1/2, 1/4, 1/8, ...: all sums are exact, and a sum equal to top_p ends the set."""
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])).astype(np.float32)
    order = np.argsort(-warped(logits, 1.0, 0, 1.0), kind="stable")
    for top_p in (0.4, 0.6, 0.74, 0.76, 0.87, 0.88, 0.93):
        p = warped(logits, 1.0, 0, top_p)
        drawn = {sample(logits, uniform=u, top_p=top_p) for u in np.arange(0, 1, 1e-3)}
        assert drawn == set(order[: np.count_nonzero(p)].tolist()), top_p


def test_one_token_and_refused_logits() -> None:
    assert check(np.array([0.3], np.float32), 1.0, 50, 0.95) == 1
    assert check(np.array([-np.inf, 2.0, -np.inf, 1.0], np.float32), 1.0, 0, 1.0) == 2


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 300),
    st.lists(st.integers(0, 299), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.99, 1.2, 1.3, 5.0]),
    st.integers(0, 2**32 - 1),
)
def test_repetition_penalty(vocab: int, seen: list[int], penalty: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=vocab).astype(np.float32)
    logits[:: max(1, vocab // 3)] = 0.0
    ids = np.array([i % vocab for i in seen])
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.from_numpy(ids)[None], torch.from_numpy(logits)[None]
    )
    ours: Any = penalize(logits, ids, repetition=penalty)
    np.testing.assert_allclose(ours, theirs[0].numpy(), rtol=2e-7)
