"""Gaussian prior: MAP estimation, with a normal prior of the weights around zero or around other trained weights.

log p(w) = strength · Σ log N(w; mean, std²) joins the mean loss of n training samples as −log p(w) / n, less its
constant, so that with cross entropy the sum is −log p(w | data) / n: at strength 1 the most probable weights.
MacKay, "A practical Bayesian framework for backpropagation networks", Neural Computation 4, 1992. Around zero it is
L2 with strength 1 / (n · std²). Around the initial weights (mean: start) it is L2-SP (Li, Grandvalet
and Davoine, "Explicit inductive bias for transfer learning with convolutional networks", ICML 2018, 1802.01483), where
new weights, such as a new head, have a prior around zero with `new_std` (0: the same). mean may also name a run or
a file. Each line of metrics.jsonl has train/log_prior, including the constant. Biases and gains of norms have no prior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dlkit.errors import ModelFileError, UsageError
from dlkit.regularizers import Plan, Regularizer

OFF = {"strength": 0.0}


def half_squared_distance(weight: Tensor, mean: Tensor, std: float) -> Tensor:
    """½ Σ ((w − mean) / std)²: −log N(w; mean, std²) less its constant."""
    return 0.5 * ((weight - mean) / std).square().sum()


def log_normal_constant(count: int, std: float) -> float:
    """log N(w; mean, std²) of `count` numbers at the mean: −count · ½ log(2π std²)."""
    return -0.5 * count * math.log(2 * math.pi * std**2)


class GaussianPrior(Regularizer):
    def __init__(self, strength: float, mean: str, std: float, new_std: float) -> None:
        self.strength, self.mean, self.std, self.new_std = strength, mean, std, new_std or std
        self.samples = 0
        self.means: dict[str, Tensor] = {}  # of the weights that have one; the others have a prior around zero

    def on_model(self, model: nn.Module, plan: Plan) -> None:
        self.samples = plan.samples
        if self.mean != "zero":
            self.means = means_for(model, plan.weights(self.mean), self.mean)

    def penalty(self, model: nn.Module) -> Tensor | None:
        distances = [half_squared_distance(weight, mean, std) for weight, mean, std in self._weights(model)]
        return self.strength / self.samples * torch.stack(distances).sum() if distances else None

    @torch.no_grad()
    def metrics(self, model: nn.Module) -> dict[str, float]:
        logs = [
            log_normal_constant(weight.numel(), std) - float(half_squared_distance(weight, mean, std))
            for weight, mean, std in self._weights(model)
        ]
        return {"train/log_prior": self.strength * sum(logs)}

    def state(self) -> dict[str, Tensor]:
        return self.means

    def _weights(self, model: nn.Module) -> list[tuple[Tensor, Tensor, float]]:
        """Each weight that trains, its mean and its standard deviation."""
        zero = torch.zeros((), device=next(model.parameters()).device)
        return [
            (weight, self.means.get(name, zero), self.std if name in self.means or not self.means else self.new_std)
            for name, weight in model.named_parameters()
            if weight.ndim > 1 and weight.requires_grad
        ]


def means_for(model: nn.Module, found: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The given weights that the model has in the same shape.

    Raises:
        ModelFileError: none fits.
    """
    means = {
        name: torch.empty_like(weight).copy_(found[name])
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and name in found and found[name].shape == weight.shape
    }
    if not means:
        raise ModelFileError(f"gaussian_prior.mean {source}: none of its {len(found)} tensors fits this network.")
    return means


def build(*, strength: float = 1.0, mean: str = "zero", std: float = 0.1, new_std: float = 0.0) -> Regularizer:
    if std <= 0:
        raise UsageError(f"recipe.regularizers.gaussian_prior.std is {std:g}; it takes a number above 0, such as 0.1.")
    return GaussianPrior(strength, mean, std, new_std)
