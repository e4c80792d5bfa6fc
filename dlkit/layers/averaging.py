"""Averaged weights: a moving average of a network, and the batch norm statistics that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@torch.no_grad()
def move_towards(averaged: nn.Module, model: nn.Module, weight: float) -> None:
    """averaged ← (1 − weight) · averaged + weight · model; buffers are copied."""
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), weight)
    for kept, buffer in zip(averaged.buffers(), model.buffers(), strict=True):
        kept.copy_(buffer)


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]:
    """The layers with running statistics."""
    return [layer for layer in model.modules() if isinstance(layer, BATCH_NORMS) and layer.track_running_stats]


@contextmanager
def estimating_norms(averaged: nn.Module, model: nn.Module) -> Iterator[list[Tensor]]:
    """Within this context batch norm's running statistics become the mean over the forward passes.

    Yields those statistics. All else is in eval mode, and so are the layers that do not train in the model.
    """
    pairs = zip(batch_norms(averaged.eval()), batch_norms(model), strict=True)
    layers = [layer for layer, original in pairs if original.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    try:
        yield [tensor for layer in layers for tensor in (layer.running_mean, layer.running_var) if tensor is not None]
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
