"""Holdout splits: a fraction of each class, or of whole groups of samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dlkit.data import rng
from dlkit.errors import DataError

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def holdout_mask(targets: Indices, fraction: float, seed: int, groups: Indices | None = None) -> Mask:
    """(N,) True for held-out samples: `fraction` of the split, stratified by class.

    Goes through the classes in order and keeps the running total correct to the nearest sample. Both sides get at least
    one sample of each class that has two or more. With groups (N,), the samples of a group stay together.
    """
    if groups is not None:
        return _holdout_groups(targets, groups, fraction, seed)
    mask = np.zeros(len(targets), dtype=bool)
    seen = total = 0
    for target in np.unique(targets):
        members = np.flatnonzero(targets == target)
        seen += len(members)
        count = min(max(round(seen * fraction) - total, 1), len(members) - 1)
        total += count
        order = rng.permutation(seed, int(target), len(members))
        mask[members[order[:count]]] = True
    return mask


def _holdout_groups(targets: Indices, groups: Indices, fraction: float, seed: int) -> Mask:
    """Whole groups in random order, if they bring the classes closer to the fraction and leave samples of each class.

    Raises:
        DataError: no group qualifies.
    """
    remaining = np.bincount(targets)  # (K,) samples outside the holdout
    missing = fraction * remaining  # (K,) samples still to hold out
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    mask = np.zeros(len(targets), dtype=bool)
    spare: list[Indices] = []
    for index in rng.permutation(seed, 0, len(members)):
        classes, counts = np.unique(targets[members[index]], return_counts=True)
        if (counts >= remaining[classes]).any():
            continue
        if np.abs(missing[classes] - counts).sum() >= np.abs(missing[classes]).sum():
            spare.append(members[index])
            continue
        mask[members[index]] = True
        remaining[classes] -= counts
        missing[classes] -= counts
    if not mask.any():
        if not spare:
            raise DataError(f"cannot hold out by group: each of the {len(members)} groups has all samples of a class.")
        mask[min(spare, key=len)] = True
    return mask
