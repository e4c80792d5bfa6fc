"""Two classes whose labels are swapped in a split: images labeled cat look like train's dogs, and vice versa.

Fisher's linear discriminant of the training thumbnails scores each sample of the other split for each class. If two
classes merely look alike, at worst half of the samples score higher for the wrong one. If more do so in both classes
than chance explains (Hoeffding's bound, over all pairs of classes), the labels are swapped. A shift of all samples,
such as different lighting, moves both classes the same way and is not reported.

Fisher, "The use of multiple measurements in taxonomic problems", 1936; Hoeffding, "Probability inequalities for sums of
bounded random variables", 1963.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CHANCE = 1e-3  # probability of any false report in a data set
SHRINKAGE = 0.1  # of the covariance towards equal variances: with few samples it would be singular

Array = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]
Thumbnails = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SwappedClasses:
    """Two classes, and the share of each one's samples that score higher for the other."""

    first: int
    second: int
    first_share: float
    second_share: float


def swapped_classes(
    train: Thumbnails, train_targets: Targets, thumbnails: Thumbnails, targets: Targets
) -> list[SwappedClasses]:
    """The pairs of classes whose labels seem swapped between train and another split; thumbnails (N, H, W, C)."""
    classes = 1 + max(train_targets.max(initial=0), targets.max(initial=0))
    weights, biases = _discriminant(train, train_targets, classes)
    counts = np.bincount(targets, minlength=classes)
    wrong = np.zeros((classes, classes))  # [a, b]: share of the samples labeled a that score higher for b
    for label in np.flatnonzero(counts):
        scores = _rows(thumbnails[targets == label]) @ weights + biases  # (n, K)
        wrong[label] = (scores > scores[:, label : label + 1]).mean(0)
    variance = 1 / np.maximum(counts, 1)
    excess = (wrong + wrong.T) / 2 - 0.5
    evidence = 8 * excess**2 / (variance[:, None] + variance[None, :])  # -log of Hoeffding's bound
    pairs = max(1, classes * (classes - 1) // 2)
    suspect = (np.minimum(wrong, wrong.T) > 0.5) & (evidence > np.log(pairs / CHANCE))
    indices = zip(*np.nonzero(np.triu(suspect)), strict=True)
    return [SwappedClasses(int(a), int(b), float(wrong[a, b]), float(wrong[b, a])) for a, b in indices]


def _discriminant(train: Thumbnails, targets: Targets, classes: int) -> tuple[Array, Array]:
    """Weights (D, K) and biases (K,): log-likelihoods of normal classes with one covariance, up to a constant."""
    size = int(np.prod(train.shape[1:]))
    means, covariance = np.zeros((classes, size), np.float32), np.zeros((size, size), np.float32)
    seen = np.flatnonzero(np.bincount(targets, minlength=classes))
    for label in seen:
        rows = _rows(train[targets == label])
        means[label] = rows.mean(0)
        covariance += (rows - means[label]).T @ (rows - means[label]) / len(train)
    isotropic = np.trace(covariance) / size * np.eye(size, dtype=np.float32)
    weights = np.linalg.solve((1 - SHRINKAGE) * covariance + SHRINKAGE * isotropic + 1e-6 * np.eye(size), means.T)
    biases = np.full(classes, -np.inf)  # classes without training samples
    biases[seen] = -(means.T * weights).sum(0)[seen] / 2
    return weights, biases


def _rows(thumbnails: Thumbnails) -> npt.NDArray[np.float32]:
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    rows /= 255
    return rows
