"""Stateless random numbers: the same (seed, epoch, sample) gives the same numbers anywhere, in any order.

Each number is a hash of its key (SplitMix64's finalizer: Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014). Thus the data do not depend on the number of workers, the batch size or resumes in mid-epoch.

Numbers are drawn in the type of their use: rounding float64 to float32 would turn one in 2^25 into 1.0, out of range.
In either type, draw · n < n for every draw below 1 and every integer n that the type represents exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import count

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, SplitMix64's increment


def uniform(seed: int, epoch: int, indices: npt.NDArray[np.int64], name: str) -> npt.NDArray[np.float32]:
    """One float32 in [0, 1) per sample index; `name` is the purpose, so that two uses never share a number."""
    start = np.uint64(fold(seed, epoch, zlib.crc32(name.encode())))
    words = _mix(start ^ _mix(indices.astype(np.uint64)))
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)  # 24 bits, the precision of float32


def permutation(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits `size` samples."""
    return np.random.Generator(np.random.Philox(key=fold(seed, epoch, size))).permutation(size)


def numbers(seed: int, epoch: int, index: int) -> Iterator[float]:
    """An endless stream of numbers in [0, 1) for one sample and epoch; a numpy generator starts five times slower."""
    start = fold(seed, epoch, index)
    for index in count():
        yield (fold(start, index) >> 11) * 2.0**-53


def fold(*numbers: int) -> int:
    """Hash integers, in order, into one of 64 bits."""
    word = 0
    for number in numbers:
        word = ((word ^ number) & MASK) + GOLDEN & MASK  # _mix below, in Python integers: every step calls this
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
        word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
        word ^= word >> 31
    return word


def _mix(words: Words) -> Words:
    words = words + np.uint64(GOLDEN)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
