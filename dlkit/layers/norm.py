"""The normalizations by name, the values of a recipe's `norm` option.

    batch   each channel over the batch and space: Ioffe and Szegedy 2015 (the formula: dlkit.layers.batch_norm)
    group   groups of 16 neighbouring channels over space, an image by itself: Wu and He 2018 (1803.08494)
    none    no layer

Both end with a trainable gain and bias a channel.
"""

from __future__ import annotations

from math import gcd

from torch import nn

from dlkit.layers.options import check_choice

NORMS = ("batch", "none", "group")
GROUP = 16  # channels: table 3 of Wu and He; fewer if 16 does not divide the number of channels


def norm(name: str, channels: int) -> nn.Module:
    """The normalization with that name, for maps (N, channels, H, W).

    Raises: UsageError where there is none.
    """
    check_choice("norm", name, NORMS)
    if name == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if name == "batch" else nn.GroupNorm(channels // gcd(channels, GROUP), channels)
