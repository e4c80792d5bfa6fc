"""Integrated gradients: the gradient's mean on the way from the mean colour to the image, times that way.

Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017 (1703.01365), equation 1:

    map = Σ over channels (image − baseline) · ∫₀¹ ∂ logit / ∂ image at baseline + α (image − baseline) dα

It is complete: the map sums to logit(image) − logit(baseline). The baseline is the image that normalisation makes zero,
the data's mean colour in every pixel; of text it is vectors of zeros, as padding has them.

Differs from the paper: the integral is a sum over the midpoints of `steps` equal parts, each of which is cut into three
until the map is complete to `tolerance`, or there are `most` of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explanation.methods._gradients import input_gradients, scores

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
    ends = torch.stack([scores(model, some, targets) for some in (images, baseline(images))], 1)  # (N, 2)
    enough = torch.maximum(tolerance * (ends[:, 0] - ends[:, 1]).abs(), ROUNDING * ends.abs().amax(1))
    return torch.stack(
        [
            _one(model, image, target, float(end - start), float(most_wrong), steps, most)
            for image, target, (end, start), most_wrong in zip(images, targets, ends, enough, strict=True)
        ]
    )


def _one(
    model: nn.Module, image: Tensor, target: Tensor, difference: float, enough: float, steps: int, most: int
) -> Tensor:
    way = image - baseline(image)
    total = torch.zeros_like(way)
    places = _midpoints(steps)
    while True:
        total += _summed_gradients(model, image - way, way, target, places)
        found = way * total / steps
        if abs(float(found.sum()) - difference) <= enough or 3 * steps > most:
            return found.sum(0)
        steps *= 3  # every third midpoint is one that was had before
        places = torch.cat([part for k, part in enumerate(_midpoints(steps).view(-1, 3).unbind(1)) if k != 1])


def _midpoints(steps: int) -> Tensor:
    return (torch.arange(steps) + 0.5) / steps


def _summed_gradients(model: nn.Module, start: Tensor, way: Tensor, target: Tensor, places: Tensor) -> Tensor:
    total = torch.zeros_like(way)
    for some in torch.split(places.to(way), 32):
        points = start + some[:, None, None, None] * way  # (S, C, H, W)
        total += input_gradients(model, points, target.expand(len(some))).sum(0)
    return total
