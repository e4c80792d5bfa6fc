"""Class-balanced sampling: `data.sampler: balanced`.

A draw is `sample + N · repetition` for N samples: draw mod N is the sample, and the augmentation is a function of the
draw, so that repetitions of a sample in an epoch are augmented differently. An epoch has N draws, as without the
sampler. Each class present has N / K of them, rounded up or down. The samples of a class occur equally often; the
remainder is a new random subset in each epoch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dlkit.data import rng

Indices = npt.NDArray[np.int64]

TAG = 0xBA1A  # separates these permutations from others of the same seed


def balanced(targets: Indices, seed: int, epoch: int) -> Indices:
    """The draws of an epoch (from 0): classes of the samples (N,) → draws (N,)."""
    count, seed = len(targets), rng.fold(seed, TAG)
    order = rng.permutation(seed, epoch, count)
    order = order[np.argsort(targets[order], kind="stable")]  # by class, each in random order
    _, starts, sizes = np.unique(targets[order], return_index=True, return_counts=True)
    quotas = np.full(len(sizes), count // len(sizes))
    quotas[rng.permutation(seed, epoch, len(sizes))[: count % len(sizes)]] += 1
    rows = zip(starts.tolist(), sizes.tolist(), quotas.tolist(), strict=True)
    draws = np.concatenate([_cycle(order[start : start + size], quota, count) for start, size, quota in rows])
    return draws[rng.permutation(rng.fold(seed, TAG), epoch, count)]


def _cycle(samples: Indices, quota: int, count: int) -> Indices:
    """The samples of a class, repeated in order, as `quota` draws."""
    repetitions, positions = np.divmod(np.arange(quota, dtype=np.int64), len(samples))
    draws: Indices = samples[positions] + count * repetitions
    return draws
