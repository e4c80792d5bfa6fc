"""A network of text as one of images: what it reads are the vectors of a text's words, which have a gradient.

A vector's numbers are the channels, the words stand beside each other in one row: (N, D, 1, T). So methods that know
nothing of text explain it, and a map has a value for each word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.data.text.padding import Sequences
from dlkit.data.text.tree_batches import Trees
from dlkit.explanation.methods._gradients import chunk

Batch = Callable[[int], Sequences | Trees]  # a number → so many copies of the text


class Reader(nn.Module):
    """forward: vectors (N, D, 1, T) -> logits (N, K), of N copies of a text whose words have these vectors.

    `vectors` (1, D, 1, T) are the network's own, which its module `embedding` gives.
    """

    def __init__(self, network: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.network = network
        self._batch, self._batches = batch, dict[int, Sequences | Trees]()
        text = self._copies(1)
        ids = text.values[0] if isinstance(text, Sequences) else text.tokens[text.leaves[0]]  # (T,)
        with torch.no_grad():
            self.vectors: Tensor = network.get_submodule("embedding")(ids).T[None, :, None]

    def forward(self, vectors: Tensor) -> Tensor:
        return self._read(self._copies(len(vectors)), vectors[:, :, 0].transpose(1, 2))

    @torch.no_grad()
    def kept(self, keep: Tensor) -> Tensor:
        """The logits where only some words are there: keep (S, T) bool -> (S, K).

        The others are left out; of a tree, whose form they hold, their vectors are 0, as padding's is. A sequence that
        no word is left of is one vector of zeros.
        """
        parts = torch.split(keep, chunk(self.vectors))
        return torch.cat([self._kept(part) for part in parts])

    def _kept(self, keep: Tensor) -> Tensor:
        inputs = self._copies(len(keep))
        words = self.vectors[0, :, 0].T * keep[:, :, None]  # (S, T, D)
        if isinstance(inputs, Sequences):
            order = (~keep).long().argsort(dim=1, stable=True)  # those that are kept first
            words = words.gather(1, order[:, :, None].expand_as(words))
            inputs = Sequences(inputs.values, keep.sum(1).clamp(min=1).cpu())
        return self._read(inputs, words)

    def _copies(self, count: int) -> Sequences | Trees:
        if count not in self._batches:
            self._batches[count] = self._batch(count)
        return self._batches[count]

    def _read(self, inputs: Sequences | Trees, words: Tensor) -> Tensor:  # words (N, T, D) -> (N, K)
        def given(module: nn.Module, ids: Any, found: Tensor) -> Tensor:
            if isinstance(inputs, Sequences):
                return words
            return torch.zeros_like(found).index_copy(0, inputs.leaves.flatten(), words.flatten(0, 1))

        hook = self.network.get_submodule("embedding").register_forward_hook(given)
        try:
            logits: Tensor = self.network(inputs)
        finally:
            hook.remove()
        return logits
