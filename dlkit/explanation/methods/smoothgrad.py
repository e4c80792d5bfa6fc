"""SmoothGrad: the mean gradient over noisy copies of the image.

Smilkov, Thorat, Kim, Viégas and Wattenberg, "SmoothGrad: removing noise by adding noise", 2017 (1706.03825):

    map = max over channels |mean over s of ∂ logit / ∂ image at image + noise_s|

The noise is Gaussian; its deviation is `noise` times the image's range, 10 to 20 % in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explanation.methods._gradients import input_gradients

TAKES = ("images", "sequences", "trees")


def explain(
    model: nn.Module, images: Tensor, targets: Tensor, *, samples: int = 32, noise: float = 0.15, seed: int = 0
) -> Tensor:
    unit_noise = torch.randn((samples, *images.shape[1:]), generator=torch.Generator().manual_seed(seed)).to(images)
    maps = []
    for image, target in zip(images, targets, strict=True):
        deviation = noise * (image.max() - image.min())
        gradients = input_gradients(model, image + deviation * unit_noise, target.expand(samples))
        maps.append(gradients.mean(0).abs().amax(0))
    return torch.stack(maps)
