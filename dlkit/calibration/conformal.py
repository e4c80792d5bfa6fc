"""Prediction sets with guaranteed coverage, by split conformal prediction.

A score s(x, y) is small where class y fits input x. With q the ⌈(n + 1)(1 - α)⌉-th smallest score of n samples,
{y: s(x, y) ≤ q} holds the true class of a new sample of the same kind with a probability of at least 1 - α, whatever
the network (Vovk, Gammerman and Shafer 2005); without ties, of at most 1 - α + 1 / (n + 1).

    lac    1 - p_y                               smallest sets on average (Sadinle, Lei and Wasserman 2019); may be
    empty aps    Σ_{k before y} p_k                    adapts to the difficulty of the input (Romano, Sesia and Candès
    2020) raps   aps + λ (rank of y - k_free)_+        shorter sets (Angelopoulos, Bates, Malik and Jordan 2021)

aps and raps are the papers' scores without randomization (u = 0): the mass of the classes that rank before y. So the
best class is always in the set, the set of an input does not change, and coverage is above 1 - α where the accuracy is.
Class-conditional: a threshold for each class, from the scores of its own samples, so that the coverage of each class is
guaranteed (Vovk 2012).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Score = Literal["lac", "aps", "raps"]
SCORES: tuple[Score, ...] = ("lac", "aps", "raps")
PENALTY, FREE_RANKS = 0.01, 5  # λ and k_free of raps, as its authors' for ImageNet


def scores(log_probabilities: Floats, score: Score) -> Floats:
    """The score of every class: (N, K) → (N, K)."""
    p = np.exp(log_probabilities)
    if score == "lac":
        distances: Floats = 1 - p
        return distances
    p = p / p.sum(axis=1, keepdims=True)  # K independent sigmoids need not sum to 1
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked  # (N, K) by rank
    before[:, 0] = 0.0
    if score == "raps":
        before = before + PENALTY * np.maximum(np.arange(1, p.shape[1] + 1) - FREE_RANKS, 0)
    found: Floats = np.empty_like(p)
    np.put_along_axis(found, order, before, axis=1)
    return found


def rank(count: int, level: float) -> int:
    """⌈(n + 1) · level⌉, in exact arithmetic: the rank of the threshold among n scores."""
    return math.ceil((count + 1) * Fraction(str(level)))


def samples_needed(level: float) -> int:
    """The least number of calibration samples with which a threshold at this level exists: rank(n) ≤ n."""
    share = Fraction(str(level))
    return math.ceil(share / (1 - share))


def threshold(values: Floats, level: float) -> float:
    """The rank(n, level)-th smallest of n values; a new value is at most that with a probability of `level` or more."""
    place = rank(len(values), level)
    assert place <= len(values), "too few values: samples_needed"
    return float(np.sort(values)[place - 1])


def prediction_sets(class_scores: Floats, thresholds: Floats) -> npt.NDArray[np.bool_]:
    """Which classes are in the set of each input: (N, K), (1,) or (K,) → (N, K)."""
    found: npt.NDArray[np.bool_] = class_scores <= thresholds
    return found
