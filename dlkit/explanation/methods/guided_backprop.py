"""Guided backpropagation: the gradient, of which each ReLU lets through only what speaks for the class.

Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity: the all convolutional net", 2014 (1412.6806),
section 3.4: on the way back a ReLU gives 0 where its input was below 0, and also where the gradient is. The map is the
channels' sum. It draws edges whatever the network has learned (Adebayo et al. 2018): mind its sanity flag.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.explanation.methods._gradients import input_gradients


def explain(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    with _guided(model):
        return input_gradients(model, images, targets).sum(1)


@contextmanager
def _guided(model: nn.Module) -> Iterator[None]:
    """Within, each ReLU's output, whether in place or not, passes on the part of its gradient that is above 0."""
    rectifiers = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not rectifiers:
        raise UsageError("guided_backprop is for networks with ReLUs, and this one has none. Take smoothgrad.")
    hooks = [module.register_forward_hook(_guide) for module in rectifiers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _guide(module: nn.Module, inputs: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.clamp(min=0))  # type: ignore[no-untyped-call]
