"""Occlusion: how far the class's logit falls where a square of the image is covered.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014 (1311.2901), section 4.2. The square has
the data's mean colour. A pixel's value is the mean of what its squares cost. `window` is their side in pixels and
`stride` how far apart they stand; 0 is an eighth of the image's shorter side, and half a window.

Of text, words are left out: Li, Monroe and Jurafsky, "Understanding neural networks through representation erasure",
2016 (1612.08220), equation 2, with the logit for the log-likelihood and without its division; in a tree, whose form the
words hold, the vectors of those below a node are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explanation.methods._gradients import chunk, scores
from dlkit.explanation.methods._words import Reader

TAKES = ("images", "sequences", "trees")


def explain(model: nn.Module, images: Tensor, targets: Tensor, *, window: int = 0, stride: int = 0) -> Tensor:
    H, W = images.shape[2:]
    if isinstance(model, Reader):
        return of_parts(model, targets, torch.eye(W, dtype=torch.bool, device=images.device)).expand(len(images), 1, W)
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


def of_parts(model: Reader, targets: Tensor, parts: Tensor) -> Tensor:
    """How far the logit falls without the words of each part: (M, T) bool -> (M,)."""
    whole = model.kept(torch.ones_like(parts[:1]))
    return (whole - model.kept(~parts))[:, targets[0]]


def _squares(height: int, width: int, side: int, stride: int) -> Tensor:
    """Where each square lies, (S, H, W) bool.

    They reach over the edges, or a pixel there would be covered by none but those that cover much of what is beside it.
    """
    tops, lefts = (range(-((side - 1) // stride * stride), length, stride) for length in (height, width))
    squares = torch.zeros(len(tops) * len(lefts), height, width, dtype=torch.bool)
    for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        squares[number, max(0, top) : top + side, max(0, left) : left + side] = True
    return squares
