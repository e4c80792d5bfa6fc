"""Gradient SHAP: integrated gradients from many baselines, an estimate of SHAP values.

Lundberg and Lee, "A unified approach to interpreting model predictions", 2017 (1705.07874), in the form of expected
gradients (Erion, Janizek, Sturmfels, Lundberg and Lee 2021, 1906.10670, equation 3):

    map = Σ over channels mean over s of d_s · ∂ logit / ∂ image at baseline_s + α_s d_s

with d_s = image − baseline_s and α_s uniform on [0, 1].

Differs from the papers: the baselines are uniform colors, sampled with the data's mean and deviation, instead of
training images, which a run does not contain.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explanation.methods._gradients import input_gradients


def explain(model: nn.Module, images: Tensor, targets: Tensor, *, samples: int = 128, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    baselines = torch.randn(samples, images.shape[1], 1, 1, generator=generator).to(images)
    alphas = torch.rand(samples, 1, 1, 1, generator=generator).to(images)
    maps = []
    for image, target in zip(images, targets, strict=True):
        total = torch.zeros_like(image)
        for start, alpha in zip(torch.split(baselines, 32), torch.split(alphas, 32), strict=True):
            direction = image - start  # (S, C, H, W)
            gradients = input_gradients(model, start + alpha * direction, target.expand(len(start)))
            total += (direction * gradients).sum(0)
        maps.append(total.sum(0) / samples)
    return torch.stack(maps)
