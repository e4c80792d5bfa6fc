"""An input as the methods of explanation take it: an image's pixels, or the vectors of a text's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dlkit.data.text.tokenization import plain_word
from dlkit.data.text.treebank import Parsed
from dlkit.evaluation.predict import nodes_of
from dlkit.explanation import faithfulness
from dlkit.explanation.methods._words import Reader
from dlkit.explanation.records import Part, Word
from dlkit.inference.torch_classifier import TextClassifier
from dlkit.specs import UNKNOWN, Link

Shuffled = Callable[[int], list[nn.Module]]  # that many copies of the network with shuffled weights
SHUFFLES_OF_TEXT = 5  # of so few values as a text has words, one correlation says little


class View(Protocol):
    """One input of one network: what the methods are handed."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def inputs(self) -> Tensor:
        """(1, C, H, W)."""

    def others(self) -> list[tuple[nn.Module, Tensor]]:
        """The same for networks whose weights are shuffled."""

    def curves(self, target: int, map: Tensor) -> tuple[float, float]:
        """Deletion and insertion AUC of a map (H, W)."""

    def shown(self, explainer: Any, targets: Tensor, map: Tensor) -> dict[str, Any]:
        """What an Explanation holds of the input."""


@dataclass(frozen=True, eq=False)
class ImageView:
    model: nn.Module
    link: Link
    shuffled: Shuffled
    inputs: Tensor
    pixels: Any  # (C, H, W) uint8

    def others(self) -> list[tuple[nn.Module, Tensor]]:
        return [(model, self.inputs) for model in self.shuffled(1)]

    def curves(self, target: int, map: Tensor) -> tuple[float, float]:
        return faithfulness.deletion_and_insertion(self.model, self.inputs[0], target, map, self.link)

    def shown(self, explainer: Any, targets: Tensor, map: Tensor) -> dict[str, Any]:
        return {"image": self.pixels}


@dataclass(frozen=True, eq=False)
class TextView:
    shuffled: Shuffled
    classifier: TextClassifier
    text: Sequence[str] | Parsed
    model: Reader
    inputs: Tensor  # (1, D, 1, T)

    @classmethod
    def of(cls, shuffled: Shuffled, classifier: TextClassifier, text: Sequence[str] | Parsed) -> TextView:
        reader = Reader(classifier.module, lambda count: classifier.batch([text] * count))
        return cls(shuffled, classifier, text, reader, reader.vectors)

    def others(self) -> list[tuple[nn.Module, Tensor]]:
        readers = [
            Reader(network, lambda count: self.classifier.batch([self.text] * count))
            for network in self.shuffled(SHUFFLES_OF_TEXT)
        ]
        return [(reader, reader.vectors) for reader in readers]

    def curves(self, target: int, map: Tensor) -> tuple[float, float]:
        return faithfulness.of_words(self.model, target, map[0], self.classifier.link)

    def shown(self, explainer: Any, targets: Tensor, map: Tensor) -> dict[str, Any]:
        parts: tuple[Part, ...] = ()
        if isinstance(self.text, Parsed):
            words = [str(self.text.words[node]) for node in self.text.reading]
            plain = [plain_word(word, self.classifier.spec.tokens) for word in words]
            parts = self._parts(self.text, explainer, targets, map[0])
        else:
            words = plain = list(self.text)
        known = [place != UNKNOWN for place in self.classifier.vocabulary.places(plain)]
        rows = zip(words, map[0].tolist(), known, strict=False)  # what is beyond the longest is not read
        return {"words": tuple(Word(*row) for row in rows), "parts": parts}

    def _parts(self, tree: Parsed, explainer: Any, targets: Tensor, values: Tensor) -> tuple[Part, ...]:
        below = words_below(tree).to(values.device)
        of_parts = getattr(explainer, "of_parts", None)
        found = below.to(values) @ values if of_parts is None else of_parts(self.model, targets, below)
        nodes = nodes_of(tree, self.classifier.nodes([tree])[0], self.classifier.spec)
        places = {node: place for place, node in enumerate(tree.reading)}
        rows = enumerate(zip(nodes, found.tolist(), strict=True))
        return tuple(Part(node, value, places.get(number)) for number, (node, value) in rows)


def words_below(tree: Parsed) -> Tensor:
    """Which words stand below each node, in word order: (nodes, T) bool."""
    below = torch.zeros(len(tree.parents), len(tree.reading), dtype=torch.bool)
    below[tree.reading, torch.arange(len(tree.reading))] = True
    for node in range(len(tree.parents) - 1, 0, -1):  # a parent stands before its children
        below[tree.parents[node]] |= below[node]
    return below
