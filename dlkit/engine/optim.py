"""Optimizers from the recipe: torch's, in their fused forms where they exist, with decay kept off biases and norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dlkit import recipe

# Devices on which torch has a fused kernel of each; elsewhere its default (foreach) is used.
FUSED = {
    "sgd": {"cpu", "cuda", "mps"},
    "adam": {"cpu", "cuda", "mps"},
    "adamw": {"cpu", "cuda", "mps"},
    "adagrad": {"cpu"},
    "rmsprop": set[str](),
}


def build(model: nn.Module, settings: recipe.Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over a model's parameters that train.

    Vectors and scalars (biases, the gains of norms) are not decayed, unless `decay_all`: the usual practice since
    He et al. 2019 (1812.01187).
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    alike = settings.decay_all or settings.weight_decay == 0  # then one group does: fewer calls a step
    decayed = [parameter for parameter in parameters if alike or parameter.ndim > 1]
    others = [parameter for parameter in parameters if not alike and parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = True if device.type in FUSED[settings.name] else None
    match settings.name:
        case "sgd":
            return torch.optim.SGD(
                groups, settings.lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=fused
            )
        case "adam":
            return torch.optim.Adam(groups, settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)
        case "adagrad":
            return torch.optim.Adagrad(groups, settings.lr, eps=settings.eps, fused=fused)
        case "rmsprop":
            return torch.optim.RMSprop(groups, settings.lr, momentum=settings.momentum, eps=settings.eps)
