"""Regularizers: a pure function with the mathematics, then a class of a few lines that puts it in its place.

A file defines `build(*, option=default, …) -> Regularizer`. A regularizer acts at one or more of five places of a step,
called in this order; what it does not override does nothing:

    on_model      once, before the optimizer is built
    on_batch      images and targets, before the forward pass
    penalty       a scalar added to the loss
    on_gradients  after backward and the sum over ranks, before clipping
    on_weights    after the optimizer's step

Randomness comes from torch's global stream, which the loop seeds by (seed, step, rank).
"""

from __future__ import annotations

from torch import Tensor, nn

from dlkit.data.batches import Batch


class Regularizer:
    """The five places, all idle."""

    def on_model(self, model: nn.Module) -> None:
        """Change the model once, before training."""

    def on_batch(self, batch: Batch) -> Batch:
        """Change what the network sees and is asked for."""
        return batch

    def penalty(self, model: nn.Module) -> Tensor | None:
        """A scalar to add to the loss."""
        return None

    def on_gradients(self, model: nn.Module) -> None:
        """Change the gradients in place."""

    def on_weights(self, model: nn.Module) -> None:
        """Change the weights in place."""
