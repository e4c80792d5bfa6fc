"""An input in the form that explanation methods take: the pixels of an image, or the word vectors of a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dlkit.data.text.tokenization import unescape_word
from dlkit.data.text.treebank import ParsedTree
from dlkit.evaluation.predict import nodes_of
from dlkit.explanation import faithfulness
from dlkit.explanation.methods._word_vectors import WordVectorModel
from dlkit.explanation.records import NodeAttribution, WordAttribution
from dlkit.inference.torch_classifier import TextClassifier
from dlkit.specs import UNKNOWN, Link

Shuffle = Callable[[int], list[nn.Module]]  # that many copies of the network with shuffled weights
TEXT_SHUFFLES = 5  # a text has few words, so a single correlation is too noisy


class View(Protocol):
    """One input of one model."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def inputs(self) -> Tensor:
        """(1, C, H, W)."""

    def shuffled(self) -> list[tuple[nn.Module, Tensor]]:
        """Copies of the model with shuffled weights, and their inputs."""

    def deletion_and_insertion(self, target: int, map: Tensor) -> tuple[float, float]:
        """Deletion and insertion AUC of a map (H, W)."""

    def record_fields(self, explainer: Any, targets: Tensor, map: Tensor) -> dict[str, Any]:
        """The fields of an Explanation that hold the input."""


@dataclass(frozen=True, eq=False)
class ImageView:
    model: nn.Module
    link: Link
    shuffle: Shuffle
    inputs: Tensor
    pixels: Any  # (C, H, W) uint8

    def shuffled(self) -> list[tuple[nn.Module, Tensor]]:
        return [(model, self.inputs) for model in self.shuffle(1)]

    def deletion_and_insertion(self, target: int, map: Tensor) -> tuple[float, float]:
        return faithfulness.deletion_and_insertion(self.model, self.inputs[0], target, map, self.link)

    def record_fields(self, explainer: Any, targets: Tensor, map: Tensor) -> dict[str, Any]:
        return {"image": self.pixels}


@dataclass(frozen=True, eq=False)
class TextView:
    shuffle: Shuffle
    classifier: TextClassifier
    text: Sequence[str] | ParsedTree
    model: WordVectorModel
    inputs: Tensor  # (1, D, 1, T)

    @classmethod
    def create(cls, shuffle: Shuffle, classifier: TextClassifier, text: Sequence[str] | ParsedTree) -> TextView:
        model = WordVectorModel(classifier.module, lambda count: classifier.batch([text] * count))
        return cls(shuffle, classifier, text, model, model.vectors)

    def shuffled(self) -> list[tuple[nn.Module, Tensor]]:
        models = [
            WordVectorModel(network, lambda count: self.classifier.batch([self.text] * count))
            for network in self.shuffle(TEXT_SHUFFLES)
        ]
        return [(model, model.vectors) for model in models]

    def deletion_and_insertion(self, target: int, map: Tensor) -> tuple[float, float]:
        return faithfulness.word_deletion_and_insertion(self.model, target, map[0], self.classifier.link)

    def record_fields(self, explainer: Any, targets: Tensor, map: Tensor) -> dict[str, Any]:
        nodes: tuple[NodeAttribution, ...] = ()
        if isinstance(self.text, ParsedTree):
            words = [str(self.text.words[node]) for node in self.text.reading]
            plain = [unescape_word(word, self.classifier.spec.tokens) for word in words]
            nodes = self._nodes(self.text, explainer, targets, map[0])
        else:
            words = plain = list(self.text)
        known = [index != UNKNOWN for index in self.classifier.vocabulary.encode(plain)]
        rows = zip(words, map[0].tolist(), known, strict=False)  # words beyond the longest sequence have no value
        return {"words": tuple(WordAttribution(*row) for row in rows), "nodes": nodes}

    def _nodes(self, tree: ParsedTree, explainer: Any, targets: Tensor, values: Tensor) -> tuple[NodeAttribution, ...]:
        below = words_below(tree).to(values.device)
        attribute_groups = getattr(explainer, "attribute_groups", None)
        sums = below.to(values) @ values if attribute_groups is None else attribute_groups(self.model, targets, below)
        nodes = nodes_of(tree, self.classifier.nodes([tree])[0], self.classifier.spec)
        word_index = {node: index for index, node in enumerate(tree.reading)}
        rows = enumerate(zip(nodes, sums.tolist(), strict=True))
        return tuple(NodeAttribution(node, value, word_index.get(number)) for number, (node, value) in rows)


def words_below(tree: ParsedTree) -> Tensor:
    """The words below each node, in word order: (nodes, T) bool."""
    below = torch.zeros(len(tree.parents), len(tree.reading), dtype=torch.bool)
    below[tree.reading, torch.arange(len(tree.reading))] = True
    for node in range(len(tree.parents) - 1, 0, -1):  # a parent precedes its children
        below[tree.parents[node]] |= below[node]
    return below
