"""Sharpness-aware minimization: the gradient at the worst point near the weights, which favors flat minima.

g₂ = ∇ loss(w + ρ g / ‖g‖) with g = ∇ loss(w); the optimizer then steps from w by g₂. Foret, Kleiner, Mobahi and
Neyshabur, "Sharpness-aware minimization for efficiently improving generalization", ICLR 2021, 2010.01412: ρ 0.05.
A step costs two forward and backward passes, both with the same dropout masks. Differs from the paper: g is of the
whole batch, over all ranks, so that their number does not change the result; and batch norm's running statistics are
those of the first pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dlkit.regularizers import Regularizer

OFF = {"rho": 0.0}


def ascent(gradients: Sequence[Tensor], rho: float) -> list[Tensor]:
    """ρ g / ‖g‖, where the loss rises most within ρ; zero if g is not finite, which the loop then reports."""
    norm = float(torch.nn.utils.get_total_norm(gradients))
    scale = rho / (norm + 1e-12) if math.isfinite(norm) else 0.0
    return [gradient * scale if scale else torch.zeros_like(gradient) for gradient in gradients]


class SAM(Regularizer):
    sharpens = True

    def __init__(self, rho: float) -> None:
        self.rho = rho

    @contextmanager
    def ascended(self, model: nn.Module) -> Iterator[None]:
        """Weights at w + ρ g / ‖g‖, buffers free to change; after the block both are restored bit for bit."""
        moving = [(weight, weight.grad) for weight in model.parameters() if weight.grad is not None]
        changed = [*(weight for weight, _ in moving), *model.buffers()]
        before = [tensor.detach().clone() for tensor in changed]
        steps = ascent([gradient for _, gradient in moving], self.rho)
        with torch.no_grad():
            for (weight, _), step in zip(moving, steps, strict=True):
                weight.add_(step)
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, kept in zip(changed, before, strict=True):
                    tensor.copy_(kept)


def build(*, rho: float = 0.05) -> Regularizer:
    return SAM(rho)
