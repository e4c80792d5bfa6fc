"""L1: the sum of the weights' absolute values, added to the loss; it drives weights to zero.

penalty = strength · Σ |w|. Tibshirani, "Regression shrinkage and selection via the lasso", J. R. Stat. Soc. B 58(1),
1996. At w = 0 the gradient is 0. Biases and the gains of norms are not penalized.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlkit.regularizers import Regularizer, weights_of

OFF = {"strength": 0.0}


def sum_of_magnitudes(weights: Sequence[Tensor]) -> Tensor:
    """Σ |w|."""
    return torch.stack([weight.abs().sum() for weight in weights]).sum()


class L1(Regularizer):
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, model: nn.Module) -> Tensor | None:
        weights = weights_of(model)
        return self.strength * sum_of_magnitudes(weights) if weights else None


def build(*, strength: float = 1e-5) -> Regularizer:
    return L1(strength)
