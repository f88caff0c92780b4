"""Philox, uniforms, normals and permutations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sql.kernels import Engine, permutation, philox, site, uniform

from ..reference import ops as reference
from .large import Cases
from .tolerance import odd_shapes

SAME_BITS: Cases = {"normal": lambda e: e.normal(100_003, mean=0.125, std=0.01953125, seed=1, stream=2)}

words = st.integers(0, 2**32 - 1)

# Random123's known-answer vectors for philox4x32-10 (kat_vectors): counter, key, result.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
def test_philox_known_answers(counter: list[int], key: list[int], want: list[int]) -> None:
    assert philox(counter, key).tolist() == want
    assert reference.philox(counter, key) == want


@odd_shapes
@given(st.lists(words, min_size=4, max_size=4), st.lists(words, min_size=2, max_size=2))
def test_philox_against_python(counter: list[int], key: list[int]) -> None:
    assert philox(counter, key).tolist() == reference.philox(counter, key)


def test_philox_refuses_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="expected 4 and 2"):
        philox([0] * 3, [0] * 2)


def test_uniform_is_uniform_and_keyed() -> None:
    draws = np.array([uniform(1, 2, i) for i in range(20_000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, 50, (0, 1))
    chi_square = ((counts - 400) ** 2 / 400).sum()
    assert chi_square < 49 + 5 * np.sqrt(2 * 49)
    assert uniform(1, 2, 3) == draws[3]
    assert len({uniform(1, 2, 3), uniform(2, 2, 3), uniform(1, 3, 3), uniform(1 + 2**32, 2, 3)}) == 4


def test_normal_has_its_moments(engine: Engine) -> None:
    n = 400_000
    z = engine.normal(n, mean=0.5, std=2.0, seed=3, stream=4).astype(np.float64)
    standard = (z - 0.5) / 2
    assert abs(standard.mean()) < 5 / np.sqrt(n)
    assert abs(standard.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((standard**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((standard**4).mean() - 3) < 5 * np.sqrt(96 / n)
    assert abs((standard[1:] * standard[:-1]).mean()) < 5 / np.sqrt(n)
    # the tails are there: P(|z| > 4) = 6.33e-5
    assert 5 < (np.abs(standard) > 4).sum() < 60


def test_normal_elements_do_not_depend_on_the_length(engine: Engine) -> None:
    whole = engine.normal(10_001, seed=1, stream=1)
    for n in (0, 1, 2, 777, 4097):
        np.testing.assert_array_equal(engine.normal(n, seed=1, stream=1), whole[:n])
    assert not np.array_equal(engine.normal(100, seed=2, stream=1), whole[:100])
    assert not np.array_equal(engine.normal(100, seed=1, stream=2), whole[:100])
    np.testing.assert_array_equal(engine.normal((73, 137), seed=1, stream=1).ravel(), whole)


@odd_shapes
@given(st.integers(0, 500), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_permutation_is_one(n: int, seed: int, epoch: int) -> None:
    got = permutation(n, seed, epoch)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(np.sort(got), np.arange(n))
    np.testing.assert_array_equal(got, permutation(n, seed, epoch))


def test_permutations_are_spread_evenly() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        key = tuple(permutation(3, 1, epoch).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert max(abs(count - 1000) for count in counts.values()) < 5 * np.sqrt(1000)


def test_permutation_refuses_a_negative_size() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        permutation(-1, 0, 0)


def test_sites_are_distinct_and_stable() -> None:
    names = [f"h.{i}.{part}" for i in range(100) for part in ("attn", "mlp", "resid")]
    assert len({site(name) for name in names}) == len(names)
    assert site("embd") == site("embd")
    assert 0 <= site("") < 2**64
