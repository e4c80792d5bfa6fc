"""Max-norm: after each step the weights of each unit or filter are scaled to a maximum length.

w ← w · min(1, limit / ‖w‖) for each row of a matrix and each kernel. Srebro and Shraibman, "Rank, trace-norm and
max-norm", COLT 2005; with dropout, with limits of 3 to 4, in Srivastava et al. 2014. A limit of 0 is none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.regularizers import Regularizer, weights_of

OFF = {"limit": 0.0}


def scales(weight: Tensor, limit: float) -> Tensor:
    """The factor that limits each row to that length: (out, in, …) → (out, 1, …), 1 if it is short enough."""
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
    return (limit / lengths).clamp(max=1.0)  # a row of zeros: infinity, so 1


class MaxNorm(Regularizer):
    def __init__(self, limit: float) -> None:
        self.limit = limit

    @torch.no_grad()
    def on_weights(self, model: nn.Module, step: int) -> None:
        for weight in weights_of(model):
            weight.mul_(scales(weight, self.limit))


def build(*, limit: float = 3.0) -> Regularizer:
    return MaxNorm(limit)
