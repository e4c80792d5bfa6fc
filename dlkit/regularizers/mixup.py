"""Mixup: each image is blended with another of its batch, and their targets likewise.

x ← λ x + (1 − λ) x′ and y ← λ y + (1 − λ) y′ with λ ~ Beta(alpha, alpha), one λ per batch, x′ a permutation of x.
Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018, 1710.09412. With cutmix
as well, each batch uses one of the two with equal probability, as in timm. Training accuracy counts the likelier class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlkit.data.batches import Batch
from dlkit.regularizers import Plan, Regularizer, one_hot

OFF = {"alpha": 0.0}


def blend(values: Tensor, others: Tensor, share: float) -> Tensor:
    """share · values + (1 − share) · others: (N, …), (N, …) → (N, …)."""
    return torch.lerp(others, values, share)


class Mixup(Regularizer):
    def __init__(self, alpha: float) -> None:
        self.share = torch.distributions.Beta(torch.tensor(float(alpha)), torch.tensor(float(alpha)))
        self.classes = 0

    def on_model(self, model: object, plan: Plan) -> None:
        plan.image_size("mixup")
        self.classes = len(plan.spec.classes)

    def on_batch(self, batch: Batch) -> Batch:
        if batch.targets.ndim == 2:  # cutmix is used for this batch
            return batch
        share = float(self.share.sample())
        order = torch.randperm(len(batch)).to(batch.targets.device)
        targets = one_hot(batch.targets, self.classes)
        inputs = blend(batch.inputs, batch.inputs[order], share)
        return Batch(inputs, blend(targets, targets[order], share), batch.indices, batch.total)


def build(*, alpha: float = 0.2) -> Regularizer:
    return Mixup(alpha)
