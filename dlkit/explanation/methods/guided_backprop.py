"""Guided backpropagation: the gradient, of which each ReLU passes only the positive part.

Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity: the all convolutional net", 2014 (1412.6806),
section 3.4: in the backward pass a ReLU returns 0 wherever its input or the gradient is negative. The map is the sum
over channels. It shows edges whatever the network has learned (Adebayo et al. 2018): check its sanity flag.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.explanation.methods._gradients import input_gradients


def explain(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    with _guide_relus(model):
        return input_gradients(model, images, targets).sum(1)


@contextmanager
def _guide_relus(model: nn.Module) -> Iterator[None]:
    """Within this context each ReLU, in-place ones included, passes on only the positive part of its gradient."""
    rectifiers = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not rectifiers:
        raise UsageError("guided_backprop is for networks with ReLUs, and this one has none. Use smoothgrad.")
    hooks = [module.register_forward_hook(_clamp_gradient) for module in rectifiers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _clamp_gradient(module: nn.Module, inputs: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.clamp(min=0))  # type: ignore[no-untyped-call]
