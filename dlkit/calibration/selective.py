"""When to abstain, so that the error rate of the answers that are given is bounded: selective classification.

An answer is accepted if its probability is above a threshold. For each of COVERAGES, fixed in advance, the threshold
is the probability that so many of n samples exceed. The errors among those are binomial, given the threshold, so that
their rate has an exact upper bound (Clopper and Pearson 1934) at the level δ / |COVERAGES|; all bounds hold together
with a probability of at least 1 - δ. The largest coverage whose bound is at most the greatest error allowed is taken.

Geifman and El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017. Differs from the paper: the
coverages are fixed, and not searched by bisection, so that the union bound is over a set that does not depend on the
data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlkit import statistics

COVERAGES = tuple(percent / 100 for percent in range(5, 101, 5))


@dataclass(frozen=True)
class Operating:
    """A threshold, the share of calibration samples that exceed it, their error rate and its upper bound."""

    threshold: float
    accepted: float
    error: float
    bound: float


def operating_points(
    confidences: npt.NDArray[np.float64], wrong: npt.NDArray[np.bool_], delta: float
) -> list[Operating]:
    """One for each of COVERAGES that leaves an answer: (N,), (N,)."""
    order = np.argsort(-confidences, kind="stable")
    confidences, wrong = confidences[order], wrong[order]
    found, total = [], len(order)
    for coverage in COVERAGES:
        place = math.floor(coverage * total + 1e-9)
        threshold = float(confidences[place]) if place < total else -1.0  # below every probability: accept all
        count = int((confidences > threshold).sum())
        if count:
            errors = int(wrong[:count].sum())
            bound = statistics.clopper_pearson_upper(errors, count, delta / len(COVERAGES))
            found.append(Operating(threshold, count / total, errors / count, bound))
    return found


def widest(points: list[Operating], max_error: float) -> Operating | None:
    """The operating point that accepts most among those whose bound is at most `max_error`."""
    good = [point for point in points if point.bound <= max_error]
    return max(good, key=lambda point: point.accepted) if good else None


def samples_needed(max_error: float, delta: float) -> int:
    """The least number of samples with which a network without an error can be accepted at all."""
    return math.ceil(math.log(delta / len(COVERAGES)) / math.log1p(-max_error))


def risk_coverage(
    confidences: npt.NDArray[np.float64], wrong: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The share accepted and its error rate, from the most confident answer to all: (N,), (N,) → (N,), (N,)."""
    order = np.argsort(-confidences, kind="stable")
    counts = np.arange(1, len(order) + 1)
    return counts / len(order), np.cumsum(wrong[order]) / counts
