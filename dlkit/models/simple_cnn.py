"""A first convolutional network: one convolution, one max pool, one dense layer.

No paper: it is the smallest network that shows what a convolution is for, the one that introductions start with.
3×3 convolution with 32 maps and no padding, activation, 2×2 max pool, linear to the classes: 54,410 parameters for
28×28 grey images of 10 classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.layers.activation import activation as activation_named
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.init import initialize
from dlkit.specs import ImageSpec

NATURAL = (1, 28, 28, 10)  # channels, height, width, classes


class SimpleCNN(nn.Module):
    feature_map = "squash"

    def __init__(
        self, channels: int, height: int, width: int, classes: int, squash: nn.Module, dropout: nn.Module
    ) -> None:
        super().__init__()
        # An image too small for the kernel or the pool grows a border of zeros.
        self.border = (0, max(0, 4 - width), 0, max(0, 4 - height))
        self.conv = nn.Conv2d(channels, 32, 3)
        self.squash = squash
        self.pool = nn.MaxPool2d(2)
        self.dropout = dropout
        pixels = (max(height, 4) - 2) // 2 * ((max(width, 4) - 2) // 2)
        self.output = nn.Linear(32 * pixels, classes)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        x = F.pad(images, self.border) if any(self.border) else images
        # Every activation here rises, so that it commutes with the maximum; after the pool it has a quarter to do.
        x = self.squash(self.pool(self.conv(x)))  # (N, 32, (H - 2) / 2, (W - 2) / 2)
        logits: Tensor = self.output(self.dropout(x.flatten(1)))
        return logits


def build(spec: ImageSpec, *, activation: str = "relu", init: str = "he", dropout: float = 0.0) -> nn.Module:
    model = SimpleCNN(
        spec.channels, spec.height, spec.width, len(spec.classes), activation_named(activation), dropout_of(dropout)
    )
    initialize(model, init, activation)
    return model
