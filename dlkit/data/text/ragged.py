"""Rows of different lengths, one behind the other in one array. numpy alone."""

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


def starts_of(lengths: npt.NDArray[np.integer] | list[int]) -> Ints:
    """Where each row begins, and the end of the last: (N,) → (N + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def taken(samples: SequenceSamples | TreeSamples, places: Ints) -> SequenceSamples | TreeSamples:
    """The sequences or trees at these places, in this order."""
    if isinstance(samples, TreeSamples):
        return _taken_trees(samples, places)
    lengths = samples.sizes[places]
    values = samples.values[ranges(samples.starts[places], lengths)]
    return SequenceSamples(values, starts_of(lengths), samples.targets[places], samples.lexicon)


def _taken_trees(samples: TreeSamples, places: Ints) -> TreeSamples:
    sizes = samples.sizes[places]
    nodes = ranges(samples.starts[places], sizes)
    return replace(
        samples,
        words=samples.words[nodes],
        parents=samples.parents[nodes],
        siblings=samples.siblings[nodes],
        heights=samples.heights[nodes],
        reading=samples.reading[nodes],
        labels=samples.labels[nodes],
        starts=starts_of(sizes),
        targets=samples.targets[places],
    )


def shortened(samples: SequenceSamples, longest: int | None) -> SequenceSamples:
    """The samples, each cut behind its first `longest` steps."""
    if longest is None or int(samples.sizes.max(initial=0)) <= longest:
        return samples
    kept = np.minimum(samples.sizes, longest)
    values = samples.values[ranges(samples.starts[:-1], kept)]
    return SequenceSamples(values, starts_of(kept), samples.targets, samples.lexicon)


def token_lookup(lexicon: tuple[str, ...], words: tuple[str, ...]) -> Ints:
    """The id in a spec's words of each word of a data set: 1 where the spec does not have it."""
    places = {word: place for place, word in enumerate(words, start=2)}
    return np.array([places.get(word, UNKNOWN) for word in lexicon], dtype=np.int64)
