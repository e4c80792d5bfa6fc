"""Rows of different lengths, concatenated in one array. numpy only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dlkit.data.splits import SequenceSamples, TreeSamples
from dlkit.specs import UNKNOWN

Ints = npt.NDArray[np.int64]


def ranges(starts: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> Ints:
    """starts[0], starts[0] + 1, … (lengths[0] of them), then starts[1], … in one array."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def row_starts(lengths: npt.NDArray[np.integer] | list[int]) -> Ints:
    """The start of each row, and the end of the last: (N,) → (N + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def take_rows(samples: SequenceSamples | TreeSamples, indices: Ints) -> SequenceSamples | TreeSamples:
    """The sequences or trees at these indices, in this order."""
    if isinstance(samples, TreeSamples):
        return _take_trees(samples, indices)
    lengths = samples.sizes[indices]
    values = samples.values[ranges(samples.starts[indices], lengths)]
    return SequenceSamples(values, row_starts(lengths), samples.targets[indices], samples.vocabulary)


def _take_trees(samples: TreeSamples, indices: Ints) -> TreeSamples:
    sizes = samples.sizes[indices]
    nodes = ranges(samples.starts[indices], sizes)
    return replace(
        samples,
        words=samples.words[nodes],
        parents=samples.parents[nodes],
        siblings=samples.siblings[nodes],
        heights=samples.heights[nodes],
        reading=samples.reading[nodes],
        labels=samples.labels[nodes],
        starts=row_starts(sizes),
        targets=samples.targets[indices],
    )


def truncate(samples: SequenceSamples, longest: int | None) -> SequenceSamples:
    """Truncate each sample to its first `longest` steps."""
    if longest is None or int(samples.sizes.max(initial=0)) <= longest:
        return samples
    lengths = np.minimum(samples.sizes, longest)
    values = samples.values[ranges(samples.starts[:-1], lengths)]
    return SequenceSamples(values, row_starts(lengths), samples.targets, samples.vocabulary)


def token_lookup(vocabulary: tuple[str, ...], words: tuple[str, ...]) -> Ints:
    """The id of each word of a data set's vocabulary among a spec's `words`; UNKNOWN for words outside it."""
    ids = {word: index for index, word in enumerate(words, start=UNKNOWN + 1)}
    return np.array([ids.get(word, UNKNOWN) for word in vocabulary], dtype=np.int64)
