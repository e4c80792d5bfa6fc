"""Text as the ids that a network reads: indices into a vocabulary, padded to one batch. numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dlkit.data.splits import SequenceSamples, TreeSamples
from dlkit.data.text.treebank import ParsedTree
from dlkit.specs import PADDING, UNKNOWN

Ids = npt.NDArray[np.int64]
Text = Sequence[str] | ParsedTree  # the words of a sequence, or a tree
AnyText = TypeVar("AnyText", bound=Text)

MAX_STEPS = 1 << 17  # words of a batch, including padding, or nodes


class Vocabulary:
    """The ids of a spec's words, fixed after training."""

    def __init__(self, words: Sequence[str]) -> None:
        self._ids = {word: index for index, word in enumerate(words, start=UNKNOWN + 1)}

    def encode(self, words: Iterable[str]) -> list[int]:
        """The id of each word; UNKNOWN for a word outside the vocabulary."""
        return [self._ids.get(word, UNKNOWN) for word in words]

    def encode_batch(self, texts: Sequence[Sequence[str]], longest: int | None) -> tuple[Ids, Ids]:
        """ids (N, T), padded at the end, and lengths (N,); truncates each text to `longest` words."""
        rows = [self.encode(words[:longest]) for words in texts]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        ids = np.full((len(rows), int(lengths.max())), PADDING, dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        return ids, lengths


def split_batches(texts: Sequence[AnyText]) -> Iterator[list[AnyText]]:
    """Split the texts, in order, into batches of at most MAX_STEPS steps each."""
    batch: list[AnyText] = []
    longest = 0
    for text in texts:
        longest = max(longest, size(text))
        if batch and longest * (len(batch) + 1) > MAX_STEPS:
            yield batch
            batch, longest = [], size(text)
        batch.append(text)
    yield batch


def size(text: Text) -> int:
    """The number of words of a sequence or of nodes of a tree."""
    return len(text.parents) if isinstance(text, ParsedTree) else len(text)


def decode_samples(samples: SequenceSamples | TreeSamples, indices: Sequence[int] | Ids) -> list[Text]:
    """The samples at these indices as texts; the nodes of trees have no labels."""
    if isinstance(samples, TreeSamples):
        return [_tree(samples, index) for index in indices]
    starts = samples.starts.tolist()
    return [[samples.vocabulary[word] for word in samples.values[starts[i] : starts[i + 1]]] for i in indices]


def _tree(samples: TreeSamples, index: int) -> ParsedTree:
    nodes = slice(int(samples.starts[index]), int(samples.starts[index + 1]))
    words = samples.words[nodes].tolist()
    return ParsedTree(
        labels=[None] * len(words),
        words=[None if word < 0 else samples.vocabulary[word] for word in words],
        parents=samples.parents[nodes].tolist(),
        reading=[node for node in samples.reading[nodes].tolist() if node >= 0],
    )
