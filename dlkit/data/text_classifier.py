"""What answers text: words or trees, as dlkit.data.inputs reads them, become a batch for a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dlkit.data import sequences, trees
from dlkit.data.parses import Parsed
from dlkit.data.ragged import shortened, starts_of
from dlkit.data.samples import SequenceSamples
from dlkit.data.text import tree_samples
from dlkit.specs import UNKNOWN, SequenceSpec, TreeSpec

LogProbabilities = npt.NDArray[np.float64]
Text = Sequence[str] | Parsed  # the words of a sequence, or a tree

MOST_STEPS = 1 << 17  # words, padding included, or nodes that are computed at once


class TextClassifier:
    """A network in eval mode, on that device."""

    def __init__(self, module: nn.Module, device: torch.device, spec: SequenceSpec | TreeSpec) -> None:
        self.module, self.device, self.spec = module, device, spec
        self.ids = {word: place for place, word in enumerate(spec.words, start=2)}
        self.same = np.arange(spec.vocabulary or 0)

    def __call__(self, texts: Sequence[Text]) -> LogProbabilities:
        """The log probabilities of each text: (N, K)."""
        return np.concatenate([self._answers(part, "roots")[0] for part in self._parts(texts)])

    def nodes(self, texts: Sequence[Text]) -> list[LogProbabilities]:
        """Those of each node of each tree, (nodes, K), in the order in which it is written."""
        found: list[LogProbabilities] = []
        for part in self._parts(texts):
            answers, ends = self._answers(part, "all")
            found += np.split(answers, ends[:-1])
        return found

    def places(self, words: Iterable[str]) -> list[int]:
        """The ids of words; a Lexicon that is not added to."""
        return [self.ids.get(word, UNKNOWN) for word in words]

    def _parts(self, texts: Sequence[Text]) -> Iterator[list[Text]]:
        """The texts in order, so many at a time that they fit in memory."""
        part: list[Text] = []
        for found in texts:
            longest = max(_size(text) for text in [*part, found])
            if part and longest * (len(part) + 1) > MOST_STEPS:
                yield part
                part = []
            part.append(found)
        yield part

    def _answers(self, texts: list[Text], asked: str) -> tuple[LogProbabilities, list[int]]:
        inputs = self._sequences(texts) if isinstance(self.spec, SequenceSpec) else self._trees(texts, asked)
        with torch.inference_mode():
            logits: torch.Tensor = self.module(inputs.to(self.device))
            answers: LogProbabilities = logits.cpu().double().log_softmax(dim=1).numpy()
        return answers, list(accumulate(_size(text) for text in texts))

    def _sequences(self, texts: list[Text]) -> sequences.Sequences:
        assert isinstance(self.spec, SequenceSpec)
        examples = [text for text in texts if not isinstance(text, Parsed)]
        values = np.array([place for words in examples for place in self.places(words)], dtype=np.int32)
        starts = starts_of([len(words) for words in examples])
        samples = SequenceSamples(values, starts, np.zeros(len(examples), np.int64), self.spec.words)
        return sequences.gathered(shortened(samples, self.spec.longest), np.arange(len(examples)), self.same)

    def _trees(self, texts: list[Text], asked: str) -> trees.Trees:
        parsed = [text for text in texts if isinstance(text, Parsed)]
        samples = tree_samples(parsed, [[-1] * len(tree.parents) for tree in parsed], self, self.spec.tokens)
        return trees.gathered(samples, np.arange(len(parsed)), self.same, asked)[0]


def _size(text: Text) -> int:
    return len(text.parents) if isinstance(text, Parsed) else len(text)
