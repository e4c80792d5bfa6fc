"""Losses: logits (N, K) and targets in, one number a sample out, so that a batch may be computed in parts."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from dlkit.config import schema
from dlkit.metrics import cross_entropies
from dlkit.specs import Link

Loss = Callable[[Tensor, Tensor], Tensor]


def build(settings: schema.Loss) -> Loss:
    """The loss of a recipe: (N, K) logits, targets (N,) class indices or (N, K) probabilities → (N,)."""
    if settings.name == "cross_entropy":
        return lambda logits, targets: F.cross_entropy(
            logits, targets, reduction="none", label_smoothing=settings.label_smoothing
        )
    return mean_squared_error if settings.name == "mse" else binary_cross_entropy


def evaluation_losses(outputs: Tensor, log_probabilities: Tensor, targets: Tensor, link: Link) -> Tensor:
    """The loss that goes with a link, without label smoothing: (N, K) twice, (N,) → (N,)."""
    if link == "softmax":
        return cross_entropies(log_probabilities, targets)
    return (mean_squared_error if link == "clip" else binary_cross_entropy)(outputs, targets)


def mean_squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over classes of (output − target)², the target being 1 for the right class and 0 for the others."""
    return (logits - _probabilities(targets, logits)).square().mean(dim=1)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over classes of K independent yes-or-no cross entropies."""
    return F.binary_cross_entropy_with_logits(logits, _probabilities(targets, logits), reduction="none").mean(dim=1)


def _probabilities(targets: Tensor, logits: Tensor) -> Tensor:
    return targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1]).to(logits.dtype)
