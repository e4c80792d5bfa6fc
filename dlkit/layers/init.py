"""Weight initialization: the schemes of a recipe's `init` option.

    lecun   uniform in ±2.4/fan_in, biases too: LeCun et al. 1998, appendix A
    xavier  uniform in ±gain·√(6/(fan_in + fan_out)), biases 0: Glorot and Bengio 2010
    he      normal with deviation gain/√fan_in, biases 0: He et al. 2015 (1502.01852)
    torch   as the layers start by themselves

fan_in counts what one unit sums, fan_out the units that one input reaches.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from dlkit.layers.attention import SelfAttention
from dlkit.layers.options import check_choice
from dlkit.layers.partial_conv import PartialConv2d

SCHEMES = ("lecun", "xavier", "he", "torch")
# The gain that compensates for the activation; the scaled tanh preserves unit variance.
GAINS = {"sigmoid": 1.0, "tanh": 5 / 3, "scaled_tanh": 1.0, "relu": sqrt(2), "leaky_relu": sqrt(2 / (1 + 0.01**2))}


@torch.no_grad()
def initialize(model: nn.Module, scheme: str, activation: str = "relu") -> None:
    """Draw the weights of every convolution and linear layer, in the model's order, from torch's global generator.

    activation names the non-linearity behind the layers, on which the gain of he and xavier depends; behind the last
    layer there is none, so that its gain is 1.
    Other layers keep the start they have. Raises: UsageError where there is no such scheme.
    """
    check_choice("init", scheme, SCHEMES)
    if scheme == "torch" or any(weight.is_meta for weight in model.parameters()):
        return  # tensors on the meta device have no memory
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear | PartialConv2d)]
    for layer in layers:
        _draw(layer, scheme, 1.0 if layer is layers[-1] else GAINS[activation])
    for attention in (module for module in model.modules() if isinstance(module, SelfAttention)):
        _draw(attention.in_proj(), scheme, 1.0)


def _draw(layer: nn.Conv2d | nn.Linear | PartialConv2d, scheme: str, gain: float) -> None:
    fan_in, fan_out = _fans(layer)
    if scheme == "he":
        layer.weight.normal_().mul_(gain / fan_in.sqrt())
    elif scheme == "xavier":
        layer.weight.uniform_(-1, 1).mul_(gain * (6 / (fan_in + fan_out)).sqrt())
    else:
        layer.weight.uniform_(-1, 1).mul_(2.4 / fan_in)
    if layer.bias is not None:
        layer.bias.zero_()
        if scheme == "lecun":
            unit_fan_in = layer.unit_fan_in if isinstance(layer, PartialConv2d) else fan_in
            layer.bias.uniform_(-1, 1).mul_(2.4 / unit_fan_in)


def _fans(layer: nn.Conv2d | nn.Linear | PartialConv2d) -> tuple[Tensor, Tensor]:
    """Numbers, or for a partial convolution one per kernel: both broadcast against the weight."""
    if isinstance(layer, PartialConv2d):
        return layer.fan_in, layer.fan_out
    kernel = layer.weight[0, 0].numel()  # a linear layer's is 1
    units, inputs = layer.weight.shape[:2]
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    device = layer.weight.device
    return torch.tensor(float(inputs * kernel), device=device), torch.tensor(
        float(units // groups * kernel), device=device
    )
