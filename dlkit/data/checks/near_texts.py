"""Texts that are nearly the same: most of their pairs of neighboring words are shared.

MinHash finds candidates without comparing all pairs, and the exact Jaccard similarity decides.
Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from dlkit.data.splits import SequenceSamples
from dlkit.data.text.ragged import row_starts

SIMILAR = 0.7  # Jaccard similarity of the sets of word pairs
SHORTEST = 6  # words; of fewer, similar texts say little
BANDS, ROWS = 16, 3  # a pair of similarity 0.7 is a candidate with probability 1 - (1 - 0.7³)¹⁶ = 0.999

Hashes = npt.NDArray[np.uint64]


def near_pairs(parts: Sequence[SequenceSamples]) -> list[tuple[int, int, float]]:
    """(first, second, similarity) of near duplicates, each second once; indices run over all parts.

    Of equal texts only the first is compared.
    """
    texts = [part.values[part.starts[i] : part.starts[i + 1]] for part in parts for i in range(len(part))]
    distinct = {words.tobytes(): index for index, words in reversed(list(enumerate(texts))) if len(words) >= SHORTEST}
    usable = sorted(distinct.values())
    shingles = [np.unique(_word_pairs(texts[index])) for index in usable]
    nearest: dict[int, tuple[int, float]] = {}
    for first, second in _candidates(shingles):
        if second in nearest:
            continue
        shared = len(np.intersect1d(shingles[first], shingles[second], assume_unique=True))
        similarity = shared / (len(shingles[first]) + len(shingles[second]) - shared)
        if similarity >= SIMILAR:
            nearest[second] = (first, similarity)
    return [(usable[first], usable[second], share) for second, (first, share) in sorted(nearest.items())]


def _word_pairs(words: npt.NDArray[np.int32]) -> Hashes:
    pairs = words[:-1].astype(np.uint64) << np.uint64(32) | words[1:].astype(np.uint64)
    return _mix(pairs)


def _mix(values: Hashes) -> Hashes:
    """splitmix64's finalizer: a permutation of 64-bit numbers."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def _candidates(shingles: Sequence[Hashes]) -> Iterator[tuple[int, int]]:
    """Pairs of texts with one band of their MinHash signatures in common: each text with the first that has it."""
    if not shingles:
        return
    starts = row_starts([len(row) for row in shingles])[:-1]
    values, seeds = np.concatenate(shingles), np.arange(1, BANDS * ROWS + 1, dtype=np.uint64)
    for band in np.split(_mix(seeds), BANDS):
        key = np.zeros(len(shingles), np.uint64)
        for seed in band:
            key = _mix(key ^ np.minimum.reduceat(_mix(values ^ seed), starts))
        order = np.argsort(key, kind="stable")
        new = np.concatenate([[True], np.diff(key[order]) != 0])
        firsts = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
        yield from zip(firsts[~new].tolist(), order[~new].tolist(), strict=True)
