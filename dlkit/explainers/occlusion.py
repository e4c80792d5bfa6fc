"""Occlusion: how far the class's logit falls where a square of the image is covered.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014 (1311.2901), section 4.2. The square has
the data's mean colour. A pixel's value is the mean of what its squares cost. `window` is their side in pixels and
`stride` how far apart they stand; 0 is an eighth of the image's shorter side, and half a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explainers._gradients import chunk, scores


def explain(model: nn.Module, images: Tensor, targets: Tensor, *, window: int = 0, stride: int = 0) -> Tensor:
    H, W = images.shape[2:]
    side = min(window or max(2, round(min(H, W) / 8)), H, W)
    step = stride or max(1, side // 2)
    squares = _squares(H, W, side, step).to(images.device)  # (S, H, W)
    covered_by = squares.sum(0).clamp(min=1)
    maps = []
    for image, target, whole in zip(images, targets, scores(model, images, targets), strict=True):
        falls = torch.cat(
            [
                whole - scores(model, image.masked_fill(some[:, None], 0), target.expand(len(some)))
                for some in torch.split(squares, chunk(images))
            ]
        )  # (S,)
        maps.append(torch.einsum("s,shw->hw", falls, squares.to(falls)) / covered_by)
    return torch.stack(maps)


def _squares(height: int, width: int, side: int, stride: int) -> Tensor:
    """Where each square lies, (S, H, W) bool; the last of a row or column ends at the image's edge."""
    rows, columns = (sorted({*range(0, length - side, stride), length - side}) for length in (height, width))
    squares = torch.zeros(len(rows) * len(columns), height, width, dtype=torch.bool)
    for number, (top, left) in enumerate((top, left) for top in rows for left in columns):
        squares[number, top : top + side, left : left + side] = True
    return squares
