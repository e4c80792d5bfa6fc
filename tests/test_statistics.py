"""Intervals and tests against scipy, the papers' tables, and brute force."""

from __future__ import annotations

import math
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import optimize, stats

from dlkit import statistics


def test_students_t_is_scipys() -> None:
    for freedom in (1, 1.5, 2, 4.7, 9, 30, 120, 1000):
        assert statistics.student_t95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
        for t in (0.0, 0.1, 1.0, 2.5, 12.0, 60.0):
            assert statistics.t_test(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9, abs=1e-14)


def test_paired_and_welchs_tests_and_intervals_are_scipys() -> None:
    generator = np.random.default_rng(0)
    for sizes in ((2, 2), (3, 5), (10, 4)):
        first, second = (generator.normal(0.5, spread, size) for spread, size in zip((1, 3), sizes, strict=True))
        found, oracle = (
            statistics.welch(first.tolist(), second.tolist()),
            stats.ttest_ind(second, first, equal_var=False),
        )
        assert (found.p_value, found.low, found.high) == pytest.approx((oracle.pvalue, *oracle.confidence_interval()))
        found, oracle = statistics.student(first.tolist()), stats.ttest_1samp(first, 0)
        assert (found.p_value, found.low, found.high) == pytest.approx((oracle.pvalue, *oracle.confidence_interval()))


def test_values_that_agree_leave_the_rounding_of_a_count() -> None:
    """Two seeds of 0.9 over 100 images: each may lie anywhere within half an image of it."""
    for found in (statistics.student([0.0, 0.0], 0.01), statistics.welch([0.9, 0.9], [0.9, 0.9], 0.01)):
        assert found.low < 0 < found.high and found.high == -found.low and found.p_value == 1
    assert statistics.student([0.0, 0.0], 0.01).high == pytest.approx(12.7062 * 0.01 / math.sqrt(6) / math.sqrt(2))
    assert statistics.welch([0.9, 0.9], [0.9, 0.9], 0.01).high == pytest.approx(4.30265 * 0.01 / math.sqrt(12))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (0, 6), (3, 3), (2, 9), (10, 0), (40, 71), (700, 900)])
def test_mcnemars_mid_p_is_the_binomial_sum_less_half_its_last_term(b: int, c: int) -> None:
    n, k = b + c, min(b, c)
    tail = sum((Fraction(comb(n, i), 2**n) for i in range(k)), Fraction(comb(n, k), 2 ** (n + 1)))
    assert statistics.mcnemar(b, c) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-9)
    assert statistics.mcnemar(b, c) == statistics.mcnemar(c, b)


def test_mcnemars_p_does_not_overflow_if_thousands_differ() -> None:
    assert statistics.mcnemar(5000, 5000) == 1.0 and 0 <= statistics.mcnemar(3000, 5000) < 1e-90


def score_by_brute_force(b: int, c: int, n: int, difference: float) -> float:
    """Tango's statistic with the nuisance probability found by maximizing the likelihood."""

    def loss(q: float) -> float:
        cells = ((b, q + difference), (c, q), (n - b - c, 1 - 2 * q - difference))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    ends = (max(0.0, -difference), (1 - difference) / 2)
    q = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-13}).x
    return (b - c - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (30, 10, 100), (9, 22, 400), (1, 9, 2000)])
def test_bounds_of_the_matched_difference_solve_the_score_equation(b: int, c: int, n: int) -> None:
    found = statistics.matched_difference(b, c, n)
    for bound, z in ((found.low, statistics.Z95), (found.high, -statistics.Z95)):
        assert score_by_brute_force(b, c, n, bound) == pytest.approx(z, abs=1e-3)
    assert found.value == (b - c) / n and found.low < found.value < found.high


def test_an_interval_excludes_0_if_and_only_if_p_is_below_5_percent() -> None:
    for n in (10, 60, 1000):
        for b in range(0, min(n, 40)):
            for c in range(0, min(n - b, 40)):
                found = statistics.matched_difference(b, c, n)
                assert (found.low > 0 or found.high < 0) == (found.p_value < 0.05), (b, c, n)
                assert -1 <= found.low <= found.value <= found.high <= 1
    agreeing = statistics.matched_difference(0, 0, 100)
    assert agreeing.value == 0 and agreeing.low == pytest.approx(-agreeing.high) and 0 < agreeing.high < 0.05


def test_holms_values_are_those_of_the_step_down_procedure() -> None:
    values = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert statistics.holm(values) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0] and statistics.holm([]) == []


def test_the_expected_maximum_is_that_of_normal_draws() -> None:
    assert statistics.expected_maximum(1) == pytest.approx(0, abs=1e-6)
    assert statistics.expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-6)
    assert statistics.expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-6)
    draws = np.random.default_rng(0).standard_normal((20_000, 50)).max(axis=1)
    assert statistics.expected_maximum(50) == pytest.approx(draws.mean(), abs=0.01)
