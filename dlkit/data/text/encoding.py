"""Text as the ids that a network reads: the words' places in a vocabulary, padded to one batch. numpy alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dlkit.data.splits import SequenceSamples, TreeSamples
from dlkit.data.text.treebank import Parsed
from dlkit.specs import PADDING, UNKNOWN

Ids = npt.NDArray[np.int64]
Text = Sequence[str] | Parsed  # the words of a sequence, or a tree
One = TypeVar("One", bound=Text)

MOST_STEPS = 1 << 17  # words, padding included, or nodes that are computed at once


class Vocabulary:
    """The ids of a spec's words; a Lexicon that is not added to."""

    def __init__(self, words: Sequence[str]) -> None:
        self._ids = {word: place for place, word in enumerate(words, start=UNKNOWN + 1)}

    def places(self, words: Iterable[str]) -> list[int]:
        """The id of each word, the unknown word's where it has none."""
        return [self._ids.get(word, UNKNOWN) for word in words]

    def padded(self, texts: Sequence[Sequence[str]], longest: int | None) -> tuple[Ids, Ids]:
        """ids (N, T), padded behind, and lengths (N,); of each text the first `longest` words."""
        rows = [self.places(words[:longest]) for words in texts]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        ids = np.full((len(rows), int(lengths.max())), PADDING, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        return ids, lengths


def parts(texts: Sequence[One]) -> Iterator[list[One]]:
    """The texts in order, so many at a time that they fit in memory."""
    part: list[One] = []
    longest = 0
    for text in texts:
        longest = max(longest, size(text))
        if part and longest * (len(part) + 1) > MOST_STEPS:
            yield part
            part, longest = [], size(text)
        part.append(text)
    yield part


def size(text: Text) -> int:
    """Words of a sequence, nodes of a tree."""
    return len(text.parents) if isinstance(text, Parsed) else len(text)


def texts_of(samples: SequenceSamples | TreeSamples, places: Sequence[int] | Ids) -> list[Text]:
    """The samples at these places as texts; a tree's nodes keep no labels."""
    if isinstance(samples, TreeSamples):
        return [_tree(samples, place) for place in places]
    ends = samples.starts.tolist()
    return [[samples.lexicon[word] for word in samples.values[ends[place] : ends[place + 1]]] for place in places]


def _tree(samples: TreeSamples, place: int) -> Parsed:
    nodes = slice(int(samples.starts[place]), int(samples.starts[place + 1]))
    words = samples.words[nodes].tolist()
    return Parsed(
        labels=[None] * len(words),
        words=[None if word < 0 else samples.lexicon[word] for word in words],
        parents=samples.parents[nodes].tolist(),
        reading=[node for node in samples.reading[nodes].tolist() if node >= 0],
    )
