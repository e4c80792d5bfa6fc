"""A convolution in which each output map is connected to only some of the input maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PartialConv2d(nn.Module):
    """Output map i is the sum of its own kernels over the input maps sources[i], and a bias.

    weight (connections, k, k) holds the kernels of output map 0 in the order of sources[0], then those of map 1, ….
    """

    kernel_at: Tensor  # (connections,): each kernel's index in the dense weight, out·in_channels + in

    def __init__(self, in_channels: int, sources: Sequence[Sequence[int]], kernel_size: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, len(sources), kernel_size
        connections = [out * in_channels + source for out, maps in enumerate(sources) for source in maps]
        self.register_buffer("kernel_at", torch.tensor(connections), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(connections), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(sources)))
        with torch.no_grad():  # like nn.Conv2d
            self.weight.uniform_(-1, 1).div_(self.fan_in.sqrt())
            self.bias.uniform_(-1, 1).div_(self.unit_fan_in.sqrt())

    def forward(self, x: Tensor) -> Tensor:  # (N, in, H, W) -> (N, out, H - k + 1, W - k + 1)
        return F.conv2d(x, self.dense_weight(), self.bias)

    def dense_weight(self) -> Tensor:
        """(out, in, k, k), zero without a connection: one dense convolution is faster than many small ones."""
        k = self.kernel_size
        dense = self.weight.new_zeros(self.out_channels * self.in_channels, k, k)
        return dense.index_copy(0, self.kernel_at, self.weight).view(self.out_channels, self.in_channels, k, k)

    @property
    def unit_fan_in(self) -> Tensor:  # (out,)
        return self._count(self.kernel_at // self.in_channels, self.out_channels)

    @property
    def fan_in(self) -> Tensor:  # (connections, 1, 1)
        return self.unit_fan_in[self.kernel_at // self.in_channels, None, None]

    @property
    def fan_out(self) -> Tensor:  # (connections, 1, 1)
        source = self.kernel_at % self.in_channels
        return self._count(source, self.in_channels)[source, None, None]

    def _count(self, maps: Tensor, number: int) -> Tensor:
        ones = torch.ones(len(maps), device=maps.device)
        return torch.zeros(number, device=maps.device).index_add(0, maps, ones) * self.kernel_size**2

    def multiply_adds(self, output: Tensor) -> int:
        """For one image; output (1, out, H, W)."""
        return self.weight.numel() * output.shape[-2] * output.shape[-1]

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, connections={len(self.weight)}"
        )
