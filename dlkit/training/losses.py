"""Losses: logits (N, K) and targets in, one number a sample out, so that a batch may be computed in parts.

Against class imbalance a loss may have weights for its classes, focus on what is wrong, or shift the logits:

    class weights     balanced n / (K n_k); sqrt ∝ n_k^-1/2; effective ∝ (1 - β) / (1 - β^n_k), the "effective number of
                      samples" of Cui et al., CVPR 2019. All are scaled so that their mean over the training samples is
                      1: the size of a step stays what it is without them.
    focal loss        -(1 - p_y)^γ ln p_y (Lin et al., ICCV 2017).
    logit adjustment  cross entropy of z_k + τ ln π_k, π_k being the share of class k in training (Menon et al.,
                      "Long-tail learning via logit adjustment", ICLR 2021); predictions use z alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlkit.config import schema
from dlkit.errors import UsageError
from dlkit.metrics import cross_entropies
from dlkit.registry import did_you_mean
from dlkit.specs import Link

Loss = Callable[[Tensor, Tensor], Tensor]
LEAST = 1e-8  # of 1 - p in the focal loss: a power of 0 has no gradient


@dataclass(frozen=True)
class ClassCounts:
    """The classes and how many training samples each has."""

    names: Sequence[str]
    counts: Tensor  # (K,) int64


def build(settings: schema.Loss, classes: ClassCounts | None = None) -> Loss:
    """The loss of a recipe: (N, K) logits, targets (N,) class indices or (N, K) probabilities → (N,).

    `classes` are needed by class weights and logit adjustment.
    """
    weights = class_weights(settings, classes)
    if settings.name != "cross_entropy":
        plain = mean_squared_error if settings.name == "mse" else binary_cross_entropy
        return plain if weights is None else _weighted(plain, weights)
    loss = _cross_entropy(settings, weights)
    return _adjusted(loss, settings.logit_adjustment, classes) if settings.logit_adjustment else loss


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


def focal(
    logits: Tensor, targets: Tensor, gamma: float, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """-Σ_k w_k y_k (1 - p_k)^γ ln p_k: (N, K), (N,) or (N, K) → (N,)."""
    logs = logits.log_softmax(dim=1)  # (N, K)
    terms = (-logs.expm1()).clamp(min=LEAST).pow(gamma) * -logs
    wanted = _probabilities(targets, logits) * (1 - smoothing) + smoothing / logits.shape[1]
    return (wanted * (terms if weights is None else terms * weights)).sum(dim=1)


def class_weights(settings: schema.Loss, classes: ClassCounts | None) -> Tensor | None:
    """The weight of each class, (K,) float32; 0 for a class without training samples.

    Raises:
        UsageError: the weights of a file are not of these classes.
    """
    kind = settings.class_weights
    if kind is None:
        return None
    assert classes is not None
    if not isinstance(kind, str):
        return torch.tensor(_of_file(kind, classes.names), dtype=torch.float32)
    counts = classes.counts.double()
    if kind == "balanced":
        weights = 1 / counts
    elif kind == "sqrt":
        weights = counts.rsqrt()
    else:
        weights = 1 / (1 - settings.effective_beta**counts)
    weights = weights.where(counts > 0, 0.0)
    return (weights * (counts.sum() / (weights * counts).sum())).float()


def _of_file(weights: Mapping[str, float], names: Sequence[str]) -> list[float]:
    for name in weights:
        if name not in names:
            raise UsageError(
                f"recipe.loss.class_weights has no class {name!r} in the data. {did_you_mean(name, names)}"
            )
    missing = [name for name in names if name not in weights]
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        count = len(missing)
        raise UsageError(f"recipe.loss.class_weights has no weight for {count} of the classes: {shown}. Add them.")
    return [weights[name] for name in names]


def _cross_entropy(settings: schema.Loss, weights: Tensor | None) -> Loss:
    smoothing, gamma = settings.label_smoothing, settings.focal_gamma

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        own = None if weights is None else weights.to(logits.device)
        if gamma:
            return focal(logits, targets, gamma, smoothing, own)
        return F.cross_entropy(logits, targets, own, reduction="none", label_smoothing=smoothing)

    return loss


def _weighted(loss: Loss, weights: Tensor) -> Loss:
    """Each sample's loss times the weight of its class; of mixed targets the mean weight."""

    def weighted(logits: Tensor, targets: Tensor) -> Tensor:
        return loss(logits, targets) * (_probabilities(targets, logits) @ weights.to(logits.device))

    return weighted


def _adjusted(loss: Loss, strength: float, classes: ClassCounts | None) -> Loss:
    """The loss of logits + τ ln π; a class without training samples counts as one with half a sample."""
    assert classes is not None
    counts = classes.counts.double().clamp(min=0.5)
    shift = (strength * (counts / counts.sum()).log()).float()
    return lambda logits, targets: loss(logits + shift.to(logits.device), targets)


def _probabilities(targets: Tensor, logits: Tensor) -> Tensor:
    return targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1]).to(logits.dtype)
