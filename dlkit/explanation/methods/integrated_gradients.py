"""Integrated gradients: the mean gradient on the path from the mean color to the image, times their difference.

Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017 (1703.01365), equation 1:

    map = Σ over channels (image − baseline) · ∫₀¹ ∂ logit / ∂ image at baseline + α (image − baseline) dα

It is complete: the map sums to logit(image) − logit(baseline). The baseline is the image that is zero after
normalization, with the data's mean color in every pixel; for text it is vectors of zeros, as for padding.

Differs from the paper: the integral is a sum over the midpoints of `steps` equal intervals, each of which is split into
three until the map is complete to `tolerance`, up to `most` intervals.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explanation.methods._gradients import input_gradients, target_logits

TAKES = ("images", "sequences", "trees")
ROUNDING = 1e-6  # of a logit


def baseline(images: Tensor) -> Tensor:
    return torch.zeros_like(images)


def explain(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    steps: int = 32,
    tolerance: float = 0.002,
    most: int = 2592,
) -> Tensor:
    ends = torch.stack([target_logits(model, batch, targets) for batch in (images, baseline(images))], 1)  # (N, 2)
    max_errors = torch.maximum(tolerance * (ends[:, 0] - ends[:, 1]).abs(), ROUNDING * ends.abs().amax(1))
    return torch.stack(
        [
            _explain_image(model, image, target, float(end - start), float(max_error), steps, most)
            for image, target, (end, start), max_error in zip(images, targets, ends, max_errors, strict=True)
        ]
    )


def _explain_image(
    model: nn.Module, image: Tensor, target: Tensor, difference: float, max_error: float, steps: int, most: int
) -> Tensor:
    direction = image - baseline(image)
    total = torch.zeros_like(direction)
    alphas = _midpoints(steps)
    while True:
        total += _sum_gradients(model, image - direction, direction, target, alphas)
        map = direction * total / steps
        if abs(float(map.sum()) - difference) <= max_error or 3 * steps > most:
            return map.sum(0)
        steps *= 3  # every third midpoint has already been computed
        alphas = torch.cat([part for k, part in enumerate(_midpoints(steps).view(-1, 3).unbind(1)) if k != 1])


def _midpoints(steps: int) -> Tensor:
    return (torch.arange(steps) + 0.5) / steps


def _sum_gradients(model: nn.Module, start: Tensor, direction: Tensor, target: Tensor, alphas: Tensor) -> Tensor:
    total = torch.zeros_like(direction)
    for batch in torch.split(alphas.to(direction), 32):
        points = start + batch[:, None, None, None] * direction  # (S, C, H, W)
        total += input_gradients(model, points, target.expand(len(batch))).sum(0)
    return total
