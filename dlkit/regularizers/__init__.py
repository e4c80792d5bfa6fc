"""Regularizers: a pure function with the mathematics, then a class of a few lines that puts it in its place.

A file defines `build(*, option=default, …) -> Regularizer`, and the literal OFF: options at which it does nothing, and
at which it is not built at all. All options that are numbers are 0 or more. A regularizer acts at one or more of five
places of a step, called in this order; what it does not override does nothing:

    on_model      once, before the optimizer is built
    on_batch      inputs and targets, before the forward pass
    penalty       a scalar added to the loss
    on_gradients  after backward and the sum over ranks, before clipping
    on_weights    after the optimizer's step

Randomness comes from torch's global stream, which the loop seeds by (seed, step, rank) before on_batch and the forward
pass, and by (seed, step) before on_gradients, where all ranks must do the same. So a regularizer has no generator; what
else it must remember for a resume stands in `state`.

Not on this shelf, each having one place already: label smoothing is `loss.label_smoothing`; dropout and drop_path are
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
    """The run that a regularizer is for."""

    spec: Spec
    samples: int  # of the training split
    steps_per_epoch: int
    epochs: int
    regularizers: Collection[str]  # the names of all that are on
    weights: Callable[[str], Mapping[str, Tensor]]  # by name, from what --weights takes, or "start": what it was given

    def image_size(self, name: str) -> tuple[int, int]:
        """Height and width.

        Raises:
            UsageError: the inputs are no images, for which alone the regularizer of that name is.
        """
        if not isinstance(self.spec, ImageSpec):
            raise UsageError(f"the regularizer {name} is for images, which this data set does not hold. Leave it out.")
        return self.spec.height, self.spec.width


class Regularizer:
    """The five places, all idle; then what a few need beside them."""

    sharpens: bool = False  # SAM: the step's gradient is taken twice, the second time inside `ascended`
    averaged: nn.Module | None = None  # from on_model on: weights that validation, eval and predict use instead

    def on_model(self, model: nn.Module, plan: Plan) -> None:
        """Change the model once, before training; its weights are those that training starts from."""

    def on_batch(self, batch: Batch) -> Batch:
        """Change what the network sees and is asked for; targets may become probabilities (N, K)."""
        return batch

    def penalty(self, model: nn.Module) -> Tensor | None:
        """A scalar to add to the loss."""
        return None

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Change the gradients in place; `step` counts from 0, here and below."""

    def on_weights(self, model: nn.Module, step: int) -> None:
        """Change the weights in place."""

    def ascended(self, model: nn.Module) -> AbstractContextManager[None]:
        """A block in which the model has other weights; its gradients are those of its own."""
        raise NotImplementedError

    def norm_batches(self, steps: int) -> int:
        """How many training batches give `averaged` its batch norm statistics after this many steps; 0: it has them."""
        return 0

    def metrics(self, model: nn.Module) -> dict[str, float]:
        """What a line of metrics.jsonl says of it."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint keeps, by name; a resume copies into them in place."""
        return {}


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    """The matrices and kernels that train: all but biases and the gains of norms."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1 and parameter.requires_grad]


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """Classes (N,) as probabilities (N, K); what already is probabilities stays."""
    return targets if targets.ndim == 2 else nn.functional.one_hot(targets, classes).float()
