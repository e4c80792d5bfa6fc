"""Metrics against loops by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlkit import metrics, statistics


@st.composite
def answers(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits (N, K) with many ties, and targets (N,)."""
    n, k = draw(st.integers(1, 12)), draw(st.integers(2, 7))
    level = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0])
    rows = draw(st.lists(st.lists(level, min_size=k, max_size=k), min_size=n, max_size=n))
    targets = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return torch.tensor(rows), torch.tensor(targets)


def by_hand_ranking(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


@given(answers(), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_topk_and_ranking_agree_with_a_stable_sort(pair: tuple[Tensor, Tensor], k: int) -> None:
    logits, targets = pair
    rankings = [by_hand_ranking(row)[:k] for row in logits.tolist()]
    assert metrics.ranked(logits, k).tolist() == rankings
    correct = [target in ranking for target, ranking in zip(targets.tolist(), rankings, strict=True)]
    assert metrics.topk_correct(logits, targets, k).tolist() == correct


def test_tie_goes_to_the_first_class_and_nan_is_never_right() -> None:
    logits = torch.tensor(
        [[1.0, 1.0, 1.0], [math.nan, 0.0, 0.0], [math.nan, math.nan, math.nan], [0.0, math.nan, -1.0]]
    )
    assert metrics.topk_correct(logits, torch.tensor([0, 0, 1, 0]), 1).tolist() == [True, False, False, True]
    assert metrics.topk_correct(logits[:1], torch.tensor([1]), 1).tolist() == [False]
    assert metrics.ranked(logits, 1)[:, 0].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (5, 10), (1, 1), (9_905, 10_000), (0, 1)])
def test_wilson_bounds_solve_the_score_equation(correct: int, total: int) -> None:
    found = statistics.wilson(correct, total)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for bound in (found.low, found.high):  # |p - bound| = z · sqrt(bound (1 - bound) / n) defines the interval
        error = abs(found.value - bound) - statistics.Z95 * math.sqrt(bound * (1 - bound) / total)
        assert error == pytest.approx(0, abs=1e-12) or bound == found.value


def test_wilson_reproduces_a_published_interval_and_knows_nothing_of_nothing() -> None:
    found = statistics.wilson(81, 263)  # Newcombe, Statistics in Medicine 17 (1998), table I: 0.2553 to 0.3662
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    nothing = statistics.wilson(0, 0)
    assert math.isnan(nothing.value) and (nothing.low, nothing.high) == (0.0, 1.0)


@given(answers())
@settings(max_examples=60, deadline=None)
def test_confusion_and_class_scores_agree_with_loops(pair: tuple[Tensor, Tensor]) -> None:
    logits, targets = pair
    k = logits.shape[1]
    predicted = metrics.ranked(logits, 1)[:, 0]
    pairs = list(zip(targets.tolist(), predicted.tolist(), strict=True))
    confusion = metrics.confusion_matrix(targets, predicted, k)
    assert confusion.tolist() == [[pairs.count((t, p)) for p in range(k)] for t in range(k)]

    scores = metrics.class_scores(confusion.numpy())
    rows = [by_hand_scores(pairs, index) for index in range(k)]
    found = zip(scores.precision, scores.recall, scores.f1, scores.support, strict=True)
    assert np.array(list(found)) == pytest.approx(np.array(rows))


@given(answers())
@settings(max_examples=60, deadline=None)
def test_means_over_classes_are_those_of_scikit_learn(pair: tuple[Tensor, Tensor]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, targets = pair
    predicted = metrics.ranked(logits, 1)[:, 0]
    scores = metrics.class_scores(metrics.confusion_matrix(targets, predicted, logits.shape[1]).numpy())
    for average, means in (("macro", metrics.macro_means(scores)), ("weighted", metrics.weighted_means(scores))):
        expected = sklearn.precision_recall_fscore_support(targets, predicted, average=average, zero_division=0)
        assert (means.precision, means.recall, means.f1) == pytest.approx(expected[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a predicted class without targets
        expected = sklearn.balanced_accuracy_score(targets, predicted)
    assert metrics.balanced_accuracy(scores) == pytest.approx(expected)


def by_hand_scores(pairs: list[tuple[int, int]], index: int) -> tuple[float, float, float, int]:
    hits = pairs.count((index, index))
    support = sum(target == index for target, _ in pairs)
    guesses = sum(predicted == index for _, predicted in pairs)
    precision, recall = hits / guesses if guesses else 0.0, hits / support if support else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return precision, recall, f1, support


def test_macro_means_count_a_class_that_is_only_predicted_and_skip_one_that_never_occurs() -> None:
    """scikit-learn's definition: the classes are those of the targets and the predictions."""
    absent = metrics.class_scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert metrics.macro_means(absent).recall == pytest.approx((3 / 4 + 1) / 2)
    predicted = metrics.class_scores(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]))
    assert metrics.macro_means(predicted).recall == pytest.approx((3 / 4 + 1) / 3)
    assert metrics.balanced_accuracy(predicted) == pytest.approx((3 / 4 + 1) / 2)
    assert predicted.support.tolist() == [4, 4, 0]


@given(answers())
@settings(max_examples=60, deadline=None)
def test_loss_and_brier_agree_with_loops(pair: tuple[Tensor, Tensor]) -> None:
    logits, targets = pair
    losses, briers = [], []
    for row, target in zip(logits.double().tolist(), targets.tolist(), strict=True):
        probabilities = [math.exp(value) / sum(map(math.exp, row)) for value in row]
        losses.append(-math.log(probabilities[target]))
        briers.append(sum((p - (index == target)) ** 2 for index, p in enumerate(probabilities)))
    log_probabilities = logits.double().log_softmax(dim=1)
    assert metrics.cross_entropies(log_probabilities, targets).tolist() == pytest.approx(losses)
    assert metrics.brier_scores(log_probabilities.exp(), targets).tolist() == pytest.approx(briers)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 39))
@settings(max_examples=80, deadline=None)
def test_calibration_error_agrees_with_a_loop_and_does_not_depend_on_batches(
    samples: list[tuple[float, bool]], cut: int
) -> None:
    confidences = torch.tensor([confidence for confidence, _ in samples], dtype=torch.float64)
    correct = torch.tensor([hit for _, hit in samples])
    expected = 0.0
    for m in range(1, 16):
        inside = [s for s in samples if (m - 1) / 15 * 15 < s[0] * 15 <= m or (m == 1 and s[0] == 0)]
        if inside:
            accuracy = sum(hit for _, hit in inside) / len(inside)
            confidence = sum(value for value, _ in inside) / len(inside)
            expected += len(inside) / len(samples) * abs(accuracy - confidence)
    whole = metrics.calibration_bins(confidences, correct)
    parts = sum(metrics.calibration_bins(c, h) for c, h in zip(confidences.split(cut), correct.split(cut), strict=True))
    assert metrics.expected_calibration_error(whole) == pytest.approx(expected, abs=1e-12)
    assert torch.allclose(whole, torch.as_tensor(parts), rtol=0, atol=1e-12)


def test_calibration_of_a_sure_and_right_classifier_is_perfect() -> None:
    bins = metrics.calibration_bins(torch.ones(8), torch.ones(8, dtype=torch.bool))
    assert metrics.expected_calibration_error(bins) == 0
    assert bins[0].tolist() == [0.0] * 14 + [8.0]
