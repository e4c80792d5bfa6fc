"""A multilayer perceptron: pixels in a row, dense hidden layers, a linear output.

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
Differs from the paper: rectified units by default in place of sigmoid ones (activation=sigmoid gives those), softmax
and cross entropy in place of squared errors, dropout if asked for.
`hidden` lists the sizes of the hidden layers, first to last: "512,256", 512, or "" for none (softmax regression).
"""

from __future__ import annotations

from torch import nn

from dlkit.layers.activation import activation as activation_named
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.init import initialize
from dlkit.layers.options import sizes
from dlkit.specs import ImageSpec

NATURAL = (1, 28, 28, 10)  # channels, height, width, classes


class MLP(nn.Sequential):
    feature_map = None


def build(
    spec: ImageSpec, *, hidden: str = "512,256", activation: str = "relu", init: str = "he", dropout: float = 0.0
) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    width = spec.channels * spec.height * spec.width
    for size in sizes("hidden", hidden):
        layers += [nn.Linear(width, size), activation_named(activation), dropout_of(dropout)]
        width = size
    model = MLP(*layers, nn.Linear(width, len(spec.classes)))  # (N, C, H, W) -> (N, K)
    initialize(model, init, activation)
    return model
