"""L2: half the squared length of the weights, added to the loss.

penalty = strength · ½ Σ w². Krogh and Hertz, "A simple weight decay can improve generalization", NIPS 1991; with
strength 5e-4 in Krizhevsky et al. 2012. The gradient is strength · w: what `optimizer.weight_decay` adds for plain SGD,
but included in Adam's moments and in the loss. Biases and the gains of norms are not penalized.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlkit.regularizers import Regularizer, weights_of

OFF = {"strength": 0.0}


def half_squared_length(weights: Sequence[Tensor]) -> Tensor:
    """½ Σ w²."""
    return 0.5 * torch.stack([weight.square().sum() for weight in weights]).sum()


class L2(Regularizer):
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, model: nn.Module) -> Tensor | None:
        weights = weights_of(model)
        return self.strength * half_squared_length(weights) if weights else None


def build(*, strength: float = 5e-4) -> Regularizer:
    return L2(strength)
