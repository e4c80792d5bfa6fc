"""Conformal sets: scores and thresholds against a loop by hand, coverage in the band that theory predicts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from dlkit.calibration import conformal
from dlkit.calibration.conformal import SCORES, Score

Floats = npt.NDArray[np.float64]


def softmax_data(count: int, seed: int, classes: int = 6) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Log probabilities of a noisy classifier, and targets."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) * 1.5
    logits[np.arange(count), targets] += 1.5
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), targets


def score_by_hand(probabilities: list[float], label: int, score: Score) -> float:
    if score == "lac":
        return 1 - probabilities[label]
    order = sorted(range(len(probabilities)), key=lambda index: (-probabilities[index], index))
    place = order.index(label)
    mass = sum(probabilities[index] for index in order[:place])
    return mass + (0.01 * max(place + 1 - 5, 0) if score == "raps" else 0)


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_those_of_a_loop_by_hand(score: Score) -> None:
    logs, _ = softmax_data(30, 0)
    found = conformal.scores(logs, score)
    for row, probabilities in zip(found.tolist(), np.exp(logs).tolist(), strict=True):
        expected = [score_by_hand(probabilities, label, score) for label in range(6)]
        assert row == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("count", "level"), [(9, 0.9), (10, 0.9), (99, 0.95), (19, 0.95), (1000, 0.999), (57, 0.5)])
def test_the_threshold_is_the_right_order_statistic_and_exists_from_the_stated_number_on(
    count: int, level: float
) -> None:
    values = np.random.default_rng(0).permutation(count).astype(float) + 1  # 1 … n
    assert conformal.threshold(values, level) == math.ceil((count + 1) * Fraction(str(level)))
    needed = conformal.samples_needed(level)
    assert conformal.rank(needed, level) <= needed and conformal.rank(needed - 1, level) > needed - 1


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_over_20_splits_coverage_lies_in_the_band_of_theory(score: Score, level: float) -> None:
    """Of n calibration and m test samples the coverage is beta-binomial: mean k / (n + 1) with k = ⌈(n + 1) level⌉."""
    calibration, test, coverages = 500, 1000, []
    for seed in range(20):
        logs, targets = softmax_data(calibration + test, seed)
        own = conformal.scores(logs, score)[np.arange(len(targets)), targets]
        limit = conformal.threshold(own[:calibration], level)
        members = conformal.prediction_sets(conformal.scores(logs[calibration:], score), np.array([limit]))
        coverages.append(members[np.arange(test), targets[calibration:]].mean())
    k, n = conformal.rank(calibration, level), calibration
    mean, beta = k / (n + 1), k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2))
    deviation = math.sqrt(beta + mean * (1 - mean) / test)
    assert abs(np.mean(coverages) - mean) < 4 * deviation / math.sqrt(20)
    assert all(abs(one - mean) < 4.5 * deviation for one in coverages)


def test_aps_and_raps_sets_are_never_empty_and_are_the_first_by_rank() -> None:
    logs, _ = softmax_data(200, 1)
    for score in ("aps", "raps"):
        members = conformal.prediction_sets(conformal.scores(logs, score), np.array([0.4]))
        assert members.any(axis=1).all()
        ranked = np.take_along_axis(members, np.argsort(-logs, axis=1), axis=1)
        assert (np.diff(ranked.astype(int), axis=1) <= 0).all()


def test_class_conditional_thresholds_cover_each_class() -> None:
    """A class that is harder than the others is not covered by one threshold, and is by its own."""
    logs, targets = softmax_data(8000, 2)
    logs[targets == 0] = np.roll(logs[targets == 0], 1, axis=1)  # a class whose probabilities are misplaced
    class_scores = conformal.scores(logs, "lac")
    own, half = class_scores[np.arange(8000), targets], 4000
    marginal = np.array([conformal.threshold(own[:half], 0.9)])
    separate = np.array([conformal.threshold(own[:half][targets[:half] == label], 0.9) for label in range(6)])
    hard = targets[half:] == 0
    covered = {
        name: conformal.prediction_sets(class_scores[half:], limits)[hard, 0].mean()
        for name, limits in (("marginal", marginal), ("separate", separate))
    }
    assert covered["marginal"] < 0.8 and abs(covered["separate"] - 0.9) < 0.05


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_those_of_torchcp(score: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchcp's scores with its random number u at 0: it subtracts (1 - u) p of the class itself."""
    oracle = pytest.importorskip("torchcp.classification.score")
    import torch

    probabilities = torch.from_numpy(np.exp(softmax_data(50, 3)[0]))
    function = {
        "lac": lambda: oracle.LAC(score_type="identity"),
        "aps": lambda: oracle.APS(score_type="identity", randomized=False),
        "raps": lambda: oracle.RAPS(score_type="identity", randomized=False, penalty=0.01, kreg=5),
    }[score]()
    found = conformal.scores(probabilities.log().numpy(), score)
    own = 0 if score == "lac" else probabilities.numpy()  # without randomization torchcp's mass includes the class
    assert found + own == pytest.approx(np.asarray(function(probabilities)), abs=1e-6)
