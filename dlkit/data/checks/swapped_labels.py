"""Two classes whose labels are exchanged in a split: what is called cat there looks like train's dogs, and vice versa.

Fisher's linear discriminant of the training thumbnails scores each sample of the other split for each class. Of two
classes that only look alike half of the samples, at worst, lean to the wrong one. Where more do so on both sides than
chance explains (Hoeffding's bound, over all pairs of classes), the labels say the contrary of the pictures. A shift of
all samples, such as other light, moves both sides the same way and is not mistaken for it.

Fisher, "The use of multiple measurements in taxonomic problems", 1936; Hoeffding, "Probability inequalities for sums of
bounded random variables", 1963.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CHANCE = 1e-3  # of any pair at all being named where none is exchanged
SHRINKAGE = 0.1  # of the covariance towards equal variances: with few samples it could not be inverted

Array = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]
Thumbnails = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Exchange:
    """Two classes, and the share of each one's samples that look more like the other."""

    first: int
    second: int
    first_share: float
    second_share: float


def exchanges(known: Thumbnails, known_targets: Targets, asked: Thumbnails, asked_targets: Targets) -> list[Exchange]:
    """The pairs of classes whose labels seem exchanged between two splits of thumbnails (N, H, W, C)."""
    classes = 1 + max(known_targets.max(initial=0), asked_targets.max(initial=0))
    weights, biases = _discriminant(known, known_targets, classes)
    counts = np.bincount(asked_targets, minlength=classes)
    wrong = np.zeros((classes, classes))  # [a, b]: of those called a, the share that leans to b
    for own in np.flatnonzero(counts):
        scores = _rows(asked[asked_targets == own]) @ weights + biases  # (n, K)
        wrong[own] = (scores > scores[:, own : own + 1]).mean(0)
    few = 1 / np.maximum(counts, 1)
    excess = (wrong + wrong.T) / 2 - 0.5
    evidence = 8 * excess**2 / (few[:, None] + few[None, :])  # -log of what chance would allow
    pairs = max(1, classes * (classes - 1) // 2)
    suspect = (np.minimum(wrong, wrong.T) > 0.5) & (evidence > np.log(pairs / CHANCE))
    found = zip(*np.nonzero(np.triu(suspect)), strict=True)
    return [Exchange(int(a), int(b), float(wrong[a, b]), float(wrong[b, a])) for a, b in found]


def _discriminant(known: Thumbnails, targets: Targets, classes: int) -> tuple[Array, Array]:
    """Weights (D, K) and biases (K,): log-likelihoods under normal classes of one covariance, less what they share."""
    size = int(np.prod(known.shape[1:]))
    means, covariance = np.zeros((classes, size), np.float32), np.zeros((size, size), np.float32)
    seen = np.flatnonzero(np.bincount(targets, minlength=classes))
    for own in seen:
        rows = _rows(known[targets == own])
        means[own] = rows.mean(0)
        covariance += (rows - means[own]).T @ (rows - means[own]) / len(known)
    even = np.trace(covariance) / size * np.eye(size, dtype=np.float32)
    weights = np.linalg.solve((1 - SHRINKAGE) * covariance + SHRINKAGE * even + 1e-6 * np.eye(size), means.T)
    biases = np.full(classes, -np.inf)  # a class that was never seen is never likely
    biases[seen] = -(means.T * weights).sum(0)[seen] / 2
    return weights, biases


def _rows(thumbnails: Thumbnails) -> npt.NDArray[np.float32]:
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    rows /= 255
    return rows
