"""A text model in the form of an image model: its inputs are the vectors of the words, which have a gradient.

The dimensions of a vector are the channels, and the words are the columns of a single row: (N, D, 1, T). So methods for
images explain text as well, and a map has a value for each word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.data.text.padding import Sequences
from dlkit.data.text.tree_batches import Trees
from dlkit.explanation.methods._gradients import batch_size

MakeBatch = Callable[[int], Sequences | Trees]  # a batch with that many copies of the text


class WordVectorModel(nn.Module):
    """forward: vectors (N, D, 1, T) -> logits (N, K), for N copies of a text with these word vectors.

    `vectors` (1, D, 1, T) are the network's own, the output of its module `embedding`.
    """

    def __init__(self, network: nn.Module, make_batch: MakeBatch) -> None:
        super().__init__()
        self.network = network
        self._make_batch, self._batches = make_batch, dict[int, Sequences | Trees]()
        text = self._copies(1)
        ids = text.values[0] if isinstance(text, Sequences) else text.tokens[text.leaves[0]]  # (T,)
        with torch.no_grad():
            self.vectors: Tensor = network.get_submodule("embedding")(ids).T[None, :, None]

    def forward(self, vectors: Tensor) -> Tensor:
        return self._logits(self._copies(len(vectors)), vectors[:, :, 0].transpose(1, 2))

    @torch.no_grad()
    def masked_logits(self, mask: Tensor) -> Tensor:
        """The logits with only some of the words: mask (S, T) bool, True for the words that stay -> (S, K).

        The other words are removed; in a tree, whose shape they hold, their vectors are set to 0, as for padding. A
        sequence without any word is a single vector of zeros.
        """
        return torch.cat([self._masked_logits(part) for part in torch.split(mask, batch_size(self.vectors))])

    def _masked_logits(self, mask: Tensor) -> Tensor:
        inputs = self._copies(len(mask))
        words = self.vectors[0, :, 0].T * mask[:, :, None]  # (S, T, D)
        if isinstance(inputs, Sequences):
            order = (~mask).long().argsort(dim=1, stable=True)  # the remaining words first
            words = words.gather(1, order[:, :, None].expand_as(words))
            inputs = Sequences(inputs.values, mask.sum(1).clamp(min=1).cpu())
        return self._logits(inputs, words)

    def _copies(self, count: int) -> Sequences | Trees:
        if count not in self._batches:
            self._batches[count] = self._make_batch(count)
        return self._batches[count]

    def _logits(self, inputs: Sequences | Trees, words: Tensor) -> Tensor:  # words (N, T, D) -> (N, K)
        def replace_output(module: nn.Module, ids: Any, output: Tensor) -> Tensor:
            if isinstance(inputs, Sequences):
                return words
            return torch.zeros_like(output).index_copy(0, inputs.leaves.flatten(), words.flatten(0, 1))

        hook = self.network.get_submodule("embedding").register_forward_hook(replace_output)
        try:
            logits: Tensor = self.network(inputs)
        finally:
            hook.remove()
        return logits
