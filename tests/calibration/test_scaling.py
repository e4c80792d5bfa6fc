"""Temperature and vector scaling: the maximum of the likelihood, which repairs a network that is made overconfident."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dlkit import metrics
from dlkit.calibration import scaling
from dlkit.errors import DataError


def overconfident(factor: float, count: int = 4000, seed: int = 0, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits whose probabilities are exact, times a factor."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return factor * logits, targets


def ece(outputs: Tensor, targets: Tensor) -> float:
    confidences, predicted = outputs.softmax(dim=1).max(dim=1)
    return metrics.expected_calibration_error(metrics.calibration_bins(confidences, predicted == targets))


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_factor_and_the_calibration_error(factor: float) -> None:
    outputs, targets = overconfident(factor)
    found = scaling.fit_temperature(outputs, targets, "softmax")
    assert found == pytest.approx(factor, rel=0.06)
    fresh, truth = overconfident(factor, seed=1)
    assert ece(fresh / found, truth) < 0.025
    if factor != 1:
        assert ece(fresh / found, truth) <= 0.5 * ece(fresh, truth)
    assert (fresh.argmax(dim=1) == (fresh / found).argmax(dim=1)).all()


def test_the_temperature_is_where_the_likelihood_of_a_grid_is_best() -> None:
    for link in ("softmax", "sigmoid"):
        outputs, targets = overconfident(2.5, 500)
        found = scaling.fit_temperature(outputs, targets, link)  # type: ignore[arg-type]
        grid = [math.exp(step / 100) * found for step in range(-50, 51)]
        values = [float(scaling.likelihood(outputs / t, targets, link)) for t in grid]  # type: ignore[arg-type]
        assert min(range(101), key=values.__getitem__) == 50


def test_temperature_is_the_logistic_regression_of_scikit_learn() -> None:
    """With two classes 1 / T is the slope of a logistic regression on the margin, without an intercept or penalty."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    outputs, targets = overconfident(3.0, 600, classes=2)
    margin = (outputs[:, 1] - outputs[:, 0]).numpy()[:, None]
    oracle = linear_model.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    slope = float(oracle.fit(margin, targets.numpy()).coef_[0, 0])
    assert 1 / scaling.fit_temperature(outputs, targets, "softmax") == pytest.approx(slope, rel=1e-4)


def test_vector_scaling_undoes_scale_and_bias_of_each_class() -> None:
    outputs, targets = overconfident(1.0, 20000)
    scale, bias = torch.tensor([1.0, 2.0, 3.0, 1.5, 0.7]), torch.tensor([0.0, 1.0, -1.0, 0.5, -0.5])
    distorted = outputs * scale + bias
    w, b = scaling.fit_vector(distorted, targets, "softmax", "abcde")
    restored = distorted * torch.tensor(w) + torch.tensor(b)
    assert torch.allclose(restored.softmax(dim=1), outputs.softmax(dim=1), atol=0.05)
    assert sum(b) == pytest.approx(0, abs=1e-9)
    best = float(scaling.likelihood(restored, targets, "softmax"))
    assert best <= float(scaling.likelihood(outputs, targets, "softmax")) + 1e-9


def test_what_cannot_be_calibrated_is_refused_with_the_reason() -> None:
    outputs, targets = overconfident(1.0, 200)
    certain = torch.nn.functional.one_hot(targets, 5).double()
    with pytest.raises(DataError, match="none of the 200 validation samples is classified wrongly"):
        scaling.fit_temperature(certain, targets, "softmax")
    with pytest.raises(DataError, match="no better than chance"):
        scaling.fit_temperature(-outputs, targets, "softmax")
    few = targets.clone()
    few[few == 3] = 2
    with pytest.raises(DataError, match="every class; there is none of 'd'"):
        scaling.fit_vector(outputs, few, "softmax", "abcde")


def test_the_interval_of_the_calibration_error_holds_the_true_one() -> None:
    """The true error of logits times 2.5 is measured with many samples; 100 samples of 300 each hold it."""
    outputs, targets = overconfident(2.5, 200_000)
    truth, held = ece(outputs, targets), 0
    for part in range(100):
        rows = slice(300 * part, 300 * part + 300)
        confidences, predicted = outputs[rows].softmax(dim=1).max(dim=1)
        bins = metrics.calibration_bins(confidences, predicted == targets[rows])
        low, high = metrics.calibration_error_interval(bins)
        assert low <= metrics.expected_calibration_error(bins) <= high
        held += low <= truth <= high
    assert held >= 90
