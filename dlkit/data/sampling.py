"""The draws of an epoch in which every class is equally frequent: `data.sampler: balanced`.

A draw is `sample + N · repetition`, N being the number of samples: draw mod N is the sample, and its augmentation is a
function of the draw, so that a sample that comes several times in an epoch is augmented anew each time. An epoch has N
draws, as without the sampler. Each class present has N / K of them, rounded up or down. The samples of a class come
equally often, or once more for some that are chosen anew in each epoch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dlkit.data import rng

Indices = npt.NDArray[np.int64]

TAG = 0xBA1A  # so that no other permutation of the same seed is drawn


def balanced(targets: Indices, seed: int, epoch: int) -> Indices:
    """The draws of an epoch (from 0) over samples with these classes: (N,) → (N,)."""
    count, seed = len(targets), rng.fold(seed, TAG)
    order = rng.permutation(seed, epoch, count)
    order = order[np.argsort(targets[order], kind="stable")]  # by class, each in random order
    _, starts, sizes = np.unique(targets[order], return_index=True, return_counts=True)
    quotas = np.full(len(sizes), count // len(sizes))
    quotas[rng.permutation(seed, epoch, len(sizes))[: count % len(sizes)]] += 1
    rows = zip(starts.tolist(), sizes.tolist(), quotas.tolist(), strict=True)
    draws = np.concatenate([_cycled(order[start : start + size], quota, count) for start, size, quota in rows])
    return draws[rng.permutation(rng.fold(seed, TAG), epoch, count)]


def _cycled(samples: Indices, quota: int, count: int) -> Indices:
    """The samples of a class again and again, `quota` draws in all."""
    repetitions, places = np.divmod(np.arange(quota, dtype=np.int64), len(samples))
    drawn: Indices = samples[places] + count * repetitions
    return drawn
