"""Features of several scales, concatenated before a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.layers.activation import activation as activation_named
from dlkit.layers.norm import norm as norm_named

FUSIONS = ("none", "pool", "pyramid")


class PooledMaps(nn.Module):
    """The last stage's maps, or those of all stages, each averaged over space and concatenated."""

    def __init__(self, widths: Sequence[int], *, all_stages: bool) -> None:
        super().__init__()
        self.all_stages = all_stages
        self.out_features = sum(widths) if all_stages else widths[-1]

    def forward(self, stages: Sequence[Tensor]) -> Tensor:  # (N, C_i, H_i, W_i), fine to coarse -> (N, out_features)
        return torch.cat([maps.mean((2, 3)) for maps in stages[0 if self.all_stages else -1 :]], 1)


class Pyramid(nn.Module):
    """A feature pyramid, each level averaged over space and concatenated.

    Level i is 1×1(stage i) + level i + 1 enlarged to its size; a 3×3 convolution smooths each. Lin et al. 2017
    (1612.03144). What follows there is a detector on every level; here it is one classifier over all, so that norm and
    activation come before the average: without them all levels would be, but for borders, one linear map of the
    stages' averages.
    """

    def __init__(self, widths: Sequence[int], width: int, norm: str, activation: str) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=norm == "none") for _ in widths)
        self.norm = nn.ModuleList(norm_named(norm, width) for _ in widths)
        self.activation = activation_named(activation, inplace=True)
        self.out_features = len(widths) * width

    def forward(self, stages: Sequence[Tensor]) -> Tensor:  # (N, C_i, H_i, W_i), fine to coarse -> (N, out_features)
        levels = [lateral(maps) for lateral, maps in zip(self.lateral, stages, strict=True)]
        for fine in range(len(levels) - 2, -1, -1):
            size = levels[fine].shape[2:]
            levels[fine] = levels[fine] + F.interpolate(levels[fine + 1], size=size, mode="nearest")
        behind = zip(self.smooth, self.norm, levels, strict=True)
        return torch.cat([self.activation(norm(smooth(level))).mean((2, 3)) for smooth, norm, level in behind], 1)
