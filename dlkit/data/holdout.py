"""Which samples a split takes out of another: a share of each class, or whole groups where samples belong together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dlkit.data import rng
from dlkit.errors import DataError

Indices = npt.NDArray[np.int64]
Chosen = npt.NDArray[np.bool_]


def holdout_mask(targets: Indices, fraction: float, seed: int, groups: Indices | None = None) -> Chosen:
    """Which samples are held out: the fraction of the whole, spread evenly over the classes.

    The classes are cut one after another, each so that the total so far is right to the nearest sample. Of a class of
    two or more both sides get at least one. With groups (N,), those of one group stay together.
    """
    if groups is not None:
        return _held_out_groups(targets, groups, fraction, seed)
    chosen = np.zeros(len(targets), dtype=bool)
    seen = taken = 0
    for target in np.unique(targets):
        places = np.flatnonzero(targets == target)
        seen += len(places)
        count = min(max(round(seen * fraction) - taken, 1), len(places) - 1)
        taken += count
        order = rng.permutation(seed, int(target), len(places))
        chosen[places[order[:count]]] = True
    return chosen


def _held_out_groups(targets: Indices, groups: Indices, fraction: float, seed: int) -> Chosen:
    """Whole groups, taken by lot where they bring the classes nearer to their share and leave some of each behind.

    Raises:
        DataError: no group can go.
    """
    kept = np.bincount(targets)  # (K,) so far
    wanted = fraction * kept  # (K,) still
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    chosen = np.zeros(len(targets), dtype=bool)
    spare: list[Indices] = []
    for place in rng.permutation(seed, 0, len(members)):
        classes, counts = np.unique(targets[members[place]], return_counts=True)
        if (counts >= kept[classes]).any():
            continue
        if np.abs(wanted[classes] - counts).sum() >= np.abs(wanted[classes]).sum():
            spare.append(members[place])
            continue
        chosen[members[place]] = True
        kept[classes] -= counts
        wanted[classes] -= counts
    if not chosen.any():
        if not spare:
            raise DataError(f"no part can be held out by group: each of the {len(members)} groups has all of a class.")
        chosen[min(spare, key=len)] = True
    return chosen
