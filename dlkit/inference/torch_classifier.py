"""A network as a classifier of prepared images, or of the words and trees that dlkit.data.inputs reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import nn

from dlkit.data.batches import normalize
from dlkit.data.link import log_probabilities
from dlkit.data.text import tree_batches
from dlkit.data.text.corpus import tree_samples
from dlkit.data.text.encoding import Text, Vocabulary, size, split_batches
from dlkit.data.text.padding import Sequences
from dlkit.data.text.treebank import ParsedTree
from dlkit.inference.classifier import Classifier, LogProbabilities, NetworkOutput, Outputs, Pixels
from dlkit.specs import ImageSpec, Link, SequenceSpec, Spec, TreeSpec


def torch_classifier(module: nn.Module, device: torch.device, spec: Spec, link: Link = "softmax") -> Classifier:
    """The classifier of a network, which is in eval mode on that device."""
    if isinstance(spec, ImageSpec):
        return ImageClassifier(module, device, spec, link)
    return TextClassifier(module, device, spec, link)


@dataclass(frozen=True, eq=False)
class ImageClassifier:
    module: nn.Module
    device: torch.device
    spec: ImageSpec
    link: Link

    def __call__(self, pixels: Pixels) -> LogProbabilities:
        return self.answer(pixels).log_probabilities

    def answer(self, pixels: Pixels) -> NetworkOutput:
        with torch.inference_mode():
            inputs = normalize(torch.from_numpy(pixels).to(self.device), self.spec)
            outputs: Outputs = self.module(inputs).cpu().double().numpy()
        return NetworkOutput(outputs, log_probabilities(outputs, self.link))


class TextClassifier:
    """Classifies sequences of words or trees."""

    def __init__(
        self, module: nn.Module, device: torch.device, spec: SequenceSpec | TreeSpec, link: Link = "softmax"
    ) -> None:
        self.module, self.device, self.spec, self.link = module, device, spec, link
        self.vocabulary = Vocabulary(spec.words)
        self.same = np.arange(spec.vocabulary or 0)

    def __call__(self, texts: Sequence[Text]) -> LogProbabilities:
        """The log probabilities of each text: (N, K)."""
        return self.answer(texts).log_probabilities

    def answer(self, texts: Sequence[Text]) -> NetworkOutput:
        outputs = np.concatenate([self._outputs(part, "roots") for part in split_batches(texts)])
        return NetworkOutput(outputs, log_probabilities(outputs, self.link))

    def nodes(self, texts: Sequence[Text]) -> list[LogProbabilities]:
        """The log probabilities of each tree's nodes, (nodes, K), in written order."""
        node_log_probabilities: list[LogProbabilities] = []
        for part in split_batches(texts):
            ends = list(accumulate(size(text) for text in part))
            node_log_probabilities += np.split(log_probabilities(self._outputs(part, "all"), self.link), ends[:-1])
        return node_log_probabilities

    def batch(self, texts: Sequence[Text], nodes: str = "roots") -> Sequences | tree_batches.Trees:
        """The network's input for these texts; its outputs are for the "roots" or "all" nodes of trees."""
        if isinstance(self.spec, SequenceSpec):
            words = [text for text in texts if not isinstance(text, ParsedTree)]
            ids, lengths = self.vocabulary.encode_batch(words, self.spec.longest)
            return Sequences(torch.from_numpy(ids), torch.from_numpy(lengths)).to(self.device)
        parsed = [text for text in texts if isinstance(text, ParsedTree)]
        unlabeled = [[-1] * len(tree.parents) for tree in parsed]
        samples = tree_samples(parsed, unlabeled, self.vocabulary, self.spec.tokens)
        return tree_batches.collate_trees(samples, np.arange(len(parsed)), self.same, nodes)[0].to(self.device)

    def _outputs(self, texts: list[Text], nodes: str) -> Outputs:
        with torch.inference_mode():
            outputs: Outputs = self.module(self.batch(texts, nodes)).cpu().double().numpy()
        return outputs
