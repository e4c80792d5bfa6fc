"""How good a classifier is: pure functions of logits, targets and counts.

Everything here is exact: counts are integers, means are summed in float64, and nothing depends on how the samples were
batched. Shapes: N samples, K classes. A tie between classes goes to the one that stands first; NaN ranks last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CALIBRATION_BINS = 15  # Guo et al. 2017
DRAWS = 2000


@dataclass(frozen=True)
class Scores:
    """precision, recall and F1 of each class, (K,) float64, with its number of targets and predictions, (K,) int64."""

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    support: npt.NDArray[np.int64]  # targets
    predicted: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Means:
    """One precision, recall and F1 for all classes."""

    precision: float
    recall: float
    f1: float


def ranked(scores: Tensor, k: int) -> Tensor:
    """The k highest-ranking classes of each row, best first: (N, K) → (N, k) int64."""
    if scores.is_floating_point():
        scores = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    return scores.argsort(dim=1, descending=True, stable=True)[:, :k]


def topk_correct(logits: Tensor, targets: Tensor, k: int) -> Tensor:
    """Whether the target is among the k highest-ranking classes: (N, K), (N,) → (N,) bool."""
    target_logits = logits.gather(1, targets[:, None])  # (N, 1)
    positions = torch.arange(logits.shape[1], device=logits.device)
    ties_ahead = (logits == target_logits) & (positions < targets[:, None])  # (N, K)
    ahead = ((logits > target_logits) | ties_ahead).sum(dim=1)  # (N,)
    return (ahead < k) & ~target_logits[:, 0].isnan()


def confusion_matrix(targets: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How often each true class (row) was taken for each class (column): (N,), (N,) → (K, K) int64."""
    return torch.bincount(targets * classes + predicted, minlength=classes**2).view(classes, classes)


def class_scores(confusion: npt.NDArray[np.int64]) -> Scores:
    """Precision, recall and F1 of each class from a confusion matrix (K, K); 0 where nothing is to be divided by."""
    hits = confusion.diagonal().astype(np.float64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return Scores(
        precision=_divide(hits, predicted),
        recall=_divide(hits, support),
        f1=_divide(2 * hits, support + predicted),
        support=support,
        predicted=predicted,
    )


def macro_means(scores: Scores) -> Means:
    """The unweighted mean over every class in the targets or the predictions, as in scikit-learn."""
    return _means(scores, (scores.support + scores.predicted > 0).astype(np.float64))


def balanced_accuracy(scores: Scores) -> float:
    """The mean recall over the classes in the targets, as scikit-learn's balanced_accuracy_score."""
    return _means(scores, (scores.support > 0).astype(np.float64)).recall


def weighted_means(scores: Scores) -> Means:
    """The mean over classes, each weighted by how often it occurs."""
    return _means(scores, scores.support.astype(np.float64))


def cross_entropies(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) in nats: (N, K), (N,) → (N,)."""
    return -log_probabilities.gather(1, targets[:, None])[:, 0]


def mean_of_passes(log_probabilities: Tensor) -> Tensor:
    """ln p̄, p̄ being the mean of T passes' probabilities: (T, N, K) → (N, K)."""
    return log_probabilities.logsumexp(dim=0) - math.log(len(log_probabilities))


def entropies(log_probabilities: Tensor, independent: bool = False) -> Tensor:
    """H[p] = -Σ_k p_k ln p_k in nats, or the sum of K independent classes' binary entropies: (…, K) → (…)."""
    p = log_probabilities.exp()
    entropy: Tensor = torch.special.entr(p).sum(dim=-1)
    return entropy + torch.special.entr(1 - p).sum(dim=-1) if independent else entropy


def predictive_entropies(log_probabilities: Tensor, independent: bool = False) -> Tensor:
    """H[p̄], all that the passes leave uncertain, in nats: (T, N, K) → (N,)."""
    return entropies(mean_of_passes(log_probabilities), independent)


def mutual_informations(log_probabilities: Tensor, independent: bool = False) -> Tensor:
    """H[p̄] - 1/T Σ_t H[p_t], what the passes disagree about, in nats: (T, N, K) → (N,).

    From 0, all say the same, to ln K. Houlsby et al. 2011 (BALD); Gal 2016, equation 3.9.
    """
    predictive = predictive_entropies(log_probabilities, independent)
    return (predictive - entropies(log_probabilities, independent).mean(dim=0)).clamp(min=0)


def auroc(scores: Tensor, positive: Tensor) -> float:
    """How probable it is that a positive scores above a negative, ties counting half: (N,), (N,) bool → [0, 1].

    The area under the receiver operating characteristic (Hanley and McNeil 1982); NaN where one of the two is missing.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return math.nan
    _, places, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0) - (counts - 1) / 2  # of each distinct score, the mean of those that tie
    return float((ranks.double()[places][positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def brier_scores(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Σ_k (p_k - [k is the target])², from 0 to 2 (Brier 1950): (N, K), (N,) → (N,)."""
    hits = torch.nn.functional.one_hot(targets, probabilities.shape[1])
    return (probabilities - hits).square().sum(dim=1)


def calibration_bins(confidences: Tensor, correct: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """Samples, confidence and hits, summed by bin of confidence: (N,), (N,) bool → (3, bins) float64.

    Bin m holds confidences in ((m - 1) / bins, m / bins]; the sums of several batches add up.
    """
    confidences = confidences.double()
    index = (confidences * bins).ceil().long().clamp(1, bins) - 1  # (N,)
    rows = torch.stack([torch.ones_like(confidences), confidences, correct.double()])  # (3, N)
    return rows.new_zeros(3, bins).index_add_(1, index, rows)


def expected_calibration_error(bins: Tensor) -> float:
    """Σ_m |B_m| / n · |accuracy(B_m) - confidence(B_m)| from calibration_bins' sums (Guo et al. 2017, equation 3)."""
    samples, confidence, hits = bins
    return float((hits - confidence).abs().sum() / samples.sum())


def calibration_error_interval(bins: Tensor) -> tuple[float, float]:
    """A 95 % interval of the expected calibration error from calibration_bins' sums.

    Given the confidences, the hits of a bin are binomial: their rates are drawn DRAWS times from Beta(hits + 1/2,
    misses + 1/2). As chance alone raises the error, the lower end is moved by as far as the draws exceed the error.
    """
    samples, confidence, hits = bins[:, bins[0] > 0].numpy()
    generator = np.random.Generator(np.random.Philox(key=0))
    accuracy = generator.beta(hits + 0.5, samples - hits + 0.5, (DRAWS, len(samples)))
    errors = np.abs(accuracy - confidence / samples) @ (samples / samples.sum())
    value, (low, high) = expected_calibration_error(bins), np.quantile(errors, (0.025, 0.975)).tolist()
    return max(0.0, min(low, 2 * value - high)), max(value, high)


def _divide(above: npt.NDArray[np.float64], below: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _means(scores: Scores, weights: npt.NDArray[np.float64]) -> Means:
    shares = weights / weights.sum() if weights.any() else weights
    return Means(float(shares @ scores.precision), float(shares @ scores.recall), float(shares @ scores.f1))
