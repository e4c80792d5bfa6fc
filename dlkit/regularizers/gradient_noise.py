"""Gradient noise: normal noise on each gradient, decreasing during training.

g ← g + N(0, σ²) with σ² = eta / (1 + step)^gamma. Neelakantan et al., "Adding gradient noise improves learning for very
deep networks", 2015, 1511.06807: gamma 0.55, eta 0.01, 0.3 or 1. The noise is the same on every rank.
"""

from __future__ import annotations

import torch
from torch import nn

from dlkit.regularizers import Regularizer

OFF = {"eta": 0.0}


def deviation(step: int, eta: float, gamma: float) -> float:
    """σ = √(eta / (1 + step)^gamma)."""
    return float((eta / (1 + step) ** gamma) ** 0.5)


class GradientNoise(Regularizer):
    def __init__(self, eta: float, gamma: float) -> None:
        self.eta, self.gamma = eta, gamma

    def on_gradients(self, model: nn.Module, step: int) -> None:
        sigma = deviation(step, self.eta, self.gamma)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.add_(torch.randn_like(parameter.grad), alpha=sigma)


def build(*, eta: float = 0.01, gamma: float = 0.55) -> Regularizer:
    return GradientNoise(eta, gamma)
