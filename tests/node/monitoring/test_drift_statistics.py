"""The statistics against known values, and what must hold for all of them."""

from __future__ import annotations

from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.monitoring.drift_statistics import Agreement, correlation, quantile, shift, shift_of_mix, wilson

COUNTS = st.dictionaries(st.floats(0, 1), st.integers(1, 50), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("hits", "tries", "low", "high"),
    # R: binom::binom.wilson(8, 10), (0, 10), (263, 400)
    [(8, 10, 0.4901625, 0.9433178), (0, 10, 0.0, 0.2775328), (263, 400, 0.6097, 0.7023), (0, 0, 0.0, 1.0)],
)
def test_wilson(hits: int, tries: int, low: float, high: float) -> None:
    assert wilson(hits, tries) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_share_and_keeps_within_bounds(hits: int, more: int) -> None:
    tries = hits + more
    low, high = wilson(hits, tries)
    assert 0 <= low <= hits / tries + 1e-12
    assert hits / tries - 1e-12 <= high <= 1


@given(COUNTS, st.floats(0.01, 1))
def test_a_quantile_leaves_the_share_below_it(counts: dict[float, int], share: float) -> None:
    found = quantile(counts, share)
    assert found is not None
    below = sum(count for value, count in counts.items() if value <= found)
    under = sum(count for value, count in counts.items() if value < found)
    assert under < share * sum(counts.values()) <= below + 1e-9
    assert quantile({}, share) is None


def test_the_same_distribution_is_stable_and_another_is_not() -> None:
    random = np.random.default_rng(7)

    def sample(mean: float, size: int) -> dict[float, int]:
        values, counts = np.unique(np.round(random.normal(mean, 1, size), 3), return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    reference = sample(0, 4000)
    same, slight, other = (shift(reference, sample(mean, 2000)) for mean in (0, 0.35, 1))
    assert same is not None
    assert slight is not None
    assert other is not None
    assert (same.status, slight.status, other.status) == ("stable", "moving", "drifted")
    assert same.index < 0.01 < slight.index < other.index
    # The index of a whole standard deviation is near its population value: (mean shift)² for normal distributions.
    assert other.index == pytest.approx(1, abs=0.25)


def test_a_small_week_is_not_called_drifted_by_chance() -> None:
    random = np.random.default_rng(11)
    reference = dict.fromkeys(np.linspace(0, 1, 400).tolist(), 10)
    words = []
    for _ in range(200):
        values, counts = np.unique(random.choice(list(reference), 25), return_counts=True)
        moved = shift(reference, dict(zip(values.tolist(), counts.tolist(), strict=True)))
        assert moved is not None
        words.append(moved.status)
    assert words.count("moving") + words.count("drifted") < 20
    assert "too few" in words


def test_too_little_is_not_compared() -> None:
    assert shift({0.1: 9}, {0.1: 100}) is None
    assert shift({0.1: 100}, {0.1: 9}) is None
    assert shift_of_mix({"PA": 100}, {"PA": 3}) is None


def test_scores_that_are_all_the_same_have_one_bin() -> None:
    same = shift({0.5: 100}, {0.5: 30})
    assert same is not None
    assert same.index == 0
    assert same.status == "stable"


def test_a_new_manufacturer_is_seen() -> None:
    moved = shift_of_mix({"ACME": 500, "Globex": 500}, {"ACME": 100, "Initech": 100})
    assert moved is not None
    assert moved.status == "drifted"
    stable = shift_of_mix({"ACME": 500, "Globex": 500}, {"ACME": 104, "Globex": 96})
    assert stable is not None
    assert stable.status == "stable"


def test_kappa() -> None:
    # Cohen (1960) as told in most textbooks: 20, 5, 10, 15 of 50 gives 0.4.
    table = Agreement(20, 5, 10, 15)
    assert table.kappa == pytest.approx(0.4)
    assert table.observed == pytest.approx(0.7)
    assert table.interval == pytest.approx((0.4 - 1.96 * 0.12961, 0.4 + 1.96 * 0.12961), abs=1e-3)


@pytest.mark.parametrize("table", [Agreement(0, 0, 0, 0), Agreement(7, 0, 0, 0), Agreement(0, 0, 0, 7)])
def test_kappa_of_predicts_who_never_differ_in_anything_says_nothing(table: Agreement) -> None:
    assert table.kappa is None
    assert table.interval is None


def test_rank_correlation() -> None:
    assert correlation([(1, 1), (2, 4), (3, 9), (4, 16)]) == pytest.approx(1)
    assert correlation([(1, 16), (2, 9), (3, 4), (4, 1)]) == pytest.approx(-1)
    # Ties: scipy.stats.spearmanr([1, 2, 2, 3], [1, 3, 2, 4]) is 0.948683
    assert correlation([(1, 1), (2, 3), (2, 2), (3, 4)]) == pytest.approx(0.948683, abs=1e-6)
    assert correlation([(1, 1), (2, 2)]) is None
    assert correlation([(1, 1), (1, 2), (1, 3)]) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=40))
def test_rank_correlation_is_symmetric_and_bounded(pairs: list[tuple[float, float]]) -> None:
    one, other = correlation(pairs), correlation([(y, x) for x, y in pairs])
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert isclose(one, other, abs_tol=1e-9)
        assert -1 - 1e-9 <= one <= 1 + 1e-9
