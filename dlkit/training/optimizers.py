"""Optimizers from the recipe: torch's, in their fused forms where they exist, with decay kept off biases and norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dlkit.config import schema
from dlkit.layers.order import layers

# Devices on which torch has a fused kernel of each; elsewhere its default (foreach) is used.
FUSED = {
    "sgd": {"cpu", "cuda", "mps"},
    "adam": {"cpu", "cuda", "mps"},
    "adamw": {"cpu", "cuda", "mps"},
    "adagrad": {"cpu"},
    "rmsprop": set[str](),
}


def build(model: nn.Module, settings: schema.Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over a model's parameters that train.

    Vectors and scalars (biases, the gains of norms) are not decayed, unless `decay_all`: the usual practice since
    He et al. 2019 (1812.01187). With `layer_decay` d each layer learns at d times the lr of the one after it (the loop
    reads a group's lr_factor), as in Clark et al. 2020 (2003.10555) and Bao et al. 2021 (2106.08254).
    """
    groups = [group for part in _parts(model, settings.layer_decay) for group in _groups(*part, settings)]
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


def _parts(model: nn.Module, layer_decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """The parameters that train, and the factor on their lr."""
    if layer_decay == 1:
        return [([parameter for parameter in model.parameters() if parameter.requires_grad], 1.0)]
    named, found = dict(model.named_parameters()), layers(model)
    return [
        ([named[name] for name in layer.parameters if named[name].requires_grad], layer_decay ** (len(found) - place))
        for place, layer in enumerate(found, start=1)
    ]


def _groups(parameters: list[nn.Parameter], lr_factor: float, settings: schema.Optimizer) -> list[dict[str, Any]]:
    alike = settings.decay_all or settings.weight_decay == 0  # then one group does: fewer calls a step
    decayed = [parameter for parameter in parameters if alike or parameter.ndim > 1]
    others = [parameter for parameter in parameters if not alike and parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay, "lr_factor": lr_factor},
        {"params": others, "weight_decay": 0.0, "lr_factor": lr_factor},
    ]
    return [group for group in groups if group["params"]]
