"""Selective classification: its bound is exact, and the error rate it promises is kept as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dlkit import statistics
from dlkit.calibration import selective


@pytest.mark.parametrize(("errors", "total"), [(0, 10), (3, 50), (17, 400), (50, 50), (999, 12000)])
@pytest.mark.parametrize("alpha", [0.05, 0.0025])
def test_the_upper_bound_is_scipys(errors: int, total: int, alpha: float) -> None:
    beta = pytest.importorskip("scipy.stats").beta
    expected = 1.0 if errors == total else beta.ppf(1 - alpha, errors + 1, total - errors)
    assert statistics.clopper_pearson_upper(errors, total, alpha) == pytest.approx(expected, abs=1e-9)


def test_the_bound_of_no_errors_is_its_closed_form_and_the_stated_number_of_samples_suffices() -> None:
    assert statistics.clopper_pearson_upper(0, 30, 0.05) == pytest.approx(1 - 0.05 ** (1 / 30), abs=1e-9)
    for max_error, delta in ((0.02, 0.05), (0.1, 0.2)):
        needed = selective.samples_needed(max_error, delta)
        for count, passes in ((needed, True), (needed - 1, False)):
            points = selective.operating_points(np.full(count, 0.9), np.zeros(count, bool), delta)
            assert (selective.widest(points, max_error) is not None) == passes


def simulated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and errors whose rate is 0.4 (1 - confidence)."""
    generator = np.random.default_rng(seed)
    confidences = generator.uniform(0, 1, count)
    return confidences, generator.uniform(0, 1, count) < 0.4 * (1 - confidences)


def test_the_error_rate_of_the_accepted_exceeds_the_limit_no_more_often_than_stated() -> None:
    """The true rate above a threshold t is 0.2 (1 - t)."""
    exceeded, accepted = 0, []
    for seed in range(300):
        points = selective.operating_points(*simulated(3000, seed), 0.1)
        best = selective.widest(points, 0.1)
        assert best is not None and best.bound <= 0.1
        accepted.append(best.accepted)
        exceeded += 0.2 * (1 - max(best.threshold, 0)) > 0.1
    assert exceeded <= 300 * 0.1 + 3 * math.sqrt(300 * 0.1 * 0.9)
    assert 0.25 < np.mean(accepted) < 0.5  # with certainty about the rates it would be 0.5


def test_operating_points_count_the_samples_above_their_threshold() -> None:
    confidences, wrong = simulated(200, 0)
    confidences = confidences.round(1)  # with ties
    for point in selective.operating_points(confidences, wrong, 0.05):
        above = confidences > point.threshold
        assert point.accepted == above.mean() and point.error == pytest.approx(wrong[above].mean())
        assert point.bound >= point.error


def test_the_risk_coverage_curve_is_that_of_a_loop() -> None:
    confidences, wrong = simulated(40, 1)
    coverage, risk = selective.risk_coverage(confidences, wrong)
    order = sorted(range(40), key=lambda index: -confidences[index])
    for count in range(1, 41):
        assert coverage[count - 1] == count / 40
        assert risk[count - 1] == pytest.approx(sum(wrong[index] for index in order[:count]) / count)
