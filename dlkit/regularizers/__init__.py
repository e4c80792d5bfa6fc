"""Regularizers: a pure function with the mathematics, then a short class that applies it.

A file defines `build(*, option=default, …) -> Regularizer`, and the literal OFF: options at which it does nothing, and
at which it is not built at all. All options that are numbers are 0 or more. A regularizer acts at one or more of five
points of a step, called in this order; methods that it does not override do nothing:

    on_model      once, before the optimizer is built
    on_batch      inputs and targets, before the forward pass
    penalty       a scalar added to the loss
    on_gradients  after backward and the sum over ranks, before clipping
    on_weights    after the optimizer's step

Randomness comes from torch's global stream, which the loop seeds by (seed, step, rank) before on_batch and the forward
pass, and by (seed, step) before on_gradients, where all ranks must do the same. So a regularizer has no generator;
other state for a resume is in `state`.

Implemented elsewhere: label smoothing is `loss.label_smoothing`; dropout and drop_path are
options of the models; weight decay is `optimizer.weight_decay` (decoupled with adamw); random erasing is
`data.augment.erasing`; the exponential average of the weights is `train.ema`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor, nn

from dlkit.data.batches import Batch
from dlkit.errors import UsageError
from dlkit.specs import ImageSpec, Spec


@dataclass(frozen=True)
class Plan:
    """The run of a regularizer."""

    spec: Spec
    samples: int  # of the training split
    steps_per_epoch: int
    epochs: int
    regularizers: Collection[str]  # the names of all active regularizers
    weights: Callable[[str], Mapping[str, Tensor]]  # by name, of a --weights source or "start"

    def image_size(self, name: str) -> tuple[int, int]:
        """Height and width.

        Raises:
            UsageError: the inputs are not images, which this regularizer requires.
        """
        if not isinstance(self.spec, ImageSpec):
            raise UsageError(f"the regularizer {name} is for images, but this data set has none. Remove it.")
        return self.spec.height, self.spec.width


class Regularizer:
    """The five points, without effect; then methods that only some need."""

    sharpens: bool = False  # SAM: the step's gradient is computed twice, the second time inside `ascended`
    averaged: nn.Module | None = None  # after on_model: weights that validation, eval and predict use instead

    def on_model(self, model: nn.Module, plan: Plan) -> None:
        """Change the model once, before training; its weights are the initial ones."""

    def on_batch(self, batch: Batch) -> Batch:
        """Change inputs and targets; targets may become probabilities (N, K)."""
        return batch

    def penalty(self, model: nn.Module) -> Tensor | None:
        """A scalar to add to the loss."""
        return None

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Change the gradients in place; `step` counts from 0, here and below."""

    def on_weights(self, model: nn.Module, step: int) -> None:
        """Change the weights in place."""

    def ascended(self, model: nn.Module) -> AbstractContextManager[None]:
        """A context in which the model has other weights, for the gradients of the original ones."""
        raise NotImplementedError

    def norm_batches(self, steps: int) -> int:
        """The number of training batches for the batch norm statistics of `averaged` after this many steps; 0: none."""
        return 0

    def metrics(self, model: nn.Module) -> dict[str, float]:
        """Its values for a line of metrics.jsonl."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Tensors for the checkpoint, by name; a resume copies into them in place."""
        return {}


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    """The trainable matrices and kernels: all but biases and the gains of norms."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1 and parameter.requires_grad]


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """Classes (N,) as probabilities (N, K); probabilities are unchanged."""
    return targets if targets.ndim == 2 else nn.functional.one_hot(targets, classes).float()
