"""Orthogonality: each layer's weights are pulled towards orthonormal rows.

penalty = strength · Σ ‖W Wᵀ − I‖²_F over layers, W being (out, in · kernel), or Wᵀ W if W has more rows than columns.
"Soft orthogonality" in Bansal, Chen and Wang, "Can we gain more from orthogonality regularizations in training deep
CNNs?", NeurIPS 2018, 1810.09102.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.regularizers import Regularizer, weights_of

OFF = {"strength": 0.0}


def distance_from_orthonormal(weight: Tensor) -> Tensor:
    """‖W Wᵀ − I‖²_F of the smaller of the two Gram matrices: (out, in, …) → ()."""
    matrix = weight.flatten(1)  # (out, in · kernel)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return (wide @ wide.T - torch.eye(len(wide), dtype=wide.dtype, device=wide.device)).square().sum()


class Orthogonal(Regularizer):
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, model: nn.Module) -> Tensor | None:
        distances = [distance_from_orthonormal(weight) for weight in weights_of(model)]
        return self.strength * torch.stack(distances).sum() if distances else None


def build(*, strength: float = 1e-4) -> Regularizer:
    return Orthogonal(strength)
