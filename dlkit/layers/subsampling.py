"""Subsampling with two trainable parameters per map, as used before max pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Subsampling(nn.Module):
    """coefficient · (the sum of a 2×2 neighborhood) + bias, with one coefficient and one bias per map; no overlap.

    LeCun et al. 1998, section II.B. It starts as the average (coefficient 1/4, bias 0). An odd last row or column is
    left out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H // 2, W // 2)
        H, W = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
        # Strided sums: a depthwise convolution and avg_pool2d are slower, especially in the backward pass.
        even, odd = torch.unflatten(x[..., :H, :W], 2, (-1, 2)).unbind(3)
        left, right = torch.unflatten(even + odd, 3, (-1, 2)).unbind(4)
        return (left + right) * self.weight[:, None, None] + self.bias[:, None, None]

    def multiply_adds(self, output: Tensor) -> int:
        """For one image: a multiplication by the coefficient for each output."""
        return output[0].numel()

    def extra_repr(self) -> str:
        return f"{len(self.weight)}"
