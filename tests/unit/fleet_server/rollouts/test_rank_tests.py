"""The rank tests against brute force over all arrangements, and against published tables."""

import math
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.rollouts import rank_tests

VALUES = st.integers(-4, 4).map(float)


def midranks(values: list[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.lists(VALUES, min_size=1, max_size=5))
def test_rank_sum_counts_every_arrangement(new: list[float], old: list[float]) -> None:
    ranks = midranks(new + old)
    observed = sum(ranks[: len(new)])
    every = [sum(chosen) for chosen in combinations(ranks, len(new))]
    assert rank_tests.rank_sum(new, old) == pytest.approx(
        sum(value >= observed - 1e-9 for value in every) / len(every)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=8))
def test_signed_rank_counts_every_choice_of_signs(differences: list[float]) -> None:
    kept = [value for value in differences if value]
    ranks = midranks([abs(value) for value in kept])
    observed = sum(rank for rank, value in zip(ranks, kept, strict=True) if value > 0)
    every = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in product((False, True), repeat=len(kept))
    ]
    expected = sum(value >= observed - 1e-9 for value in every) / len(every) if kept else 1.0
    assert rank_tests.signed_rank(differences) == pytest.approx(expected)


def test_published_critical_values() -> None:
    # Mann and Whitney (1947), table I: n = m = 4, P(U <= 1) = .029; Wilcoxon: n = 10, T = 10: .0420
    assert rank_tests.rank_sum([5, 6, 7, 3.5], [1, 2, 3, 4]) == pytest.approx(2 / 70)
    differences = [*(float(n) for n in range(5, 11)), -1.0, -2.0, -3.0, -4.0]
    assert rank_tests.signed_rank(differences) == pytest.approx(0.0420, abs=5e-5)


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0])
def test_large_samples_agree_with_the_exact_distribution(
    shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = [math.sin(n) + shift for n in range(12)]
    old = [math.sin(n + 0.5) for n in range(30, 42)]
    paired = [a - b for a, b in zip(new, old, strict=True)]
    exact = rank_tests.rank_sum(new, old), rank_tests.signed_rank(paired)
    monkeypatch.setattr(rank_tests, "_EXACT_PAIRS", 0)
    approximate = rank_tests.rank_sum(new, old), rank_tests.signed_rank(paired)
    assert approximate == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize(
    ("failures", "of", "share", "expected"),
    [(0, 10, 0.1, 1.0), (1, 10, 0.1, 1 - 0.9**10), (10, 10, 0.5, 2**-10), (3, 5, 0.0, 0.0)],
)
def test_binomial_tail(failures: int, of: int, share: float, expected: float) -> None:
    assert rank_tests.binomial_tail(failures, of, share) == pytest.approx(expected)


def test_binomial_tail_of_a_large_fleet() -> None:
    assert rank_tests.binomial_tail(5000, 100_000, 0.05) == pytest.approx(0.5, abs=0.01)
    assert rank_tests.binomial_tail(6000, 100_000, 0.05) < 1e-30
