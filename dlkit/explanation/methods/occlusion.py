"""Occlusion: the decrease of the class's logit when a square of the image is covered.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014 (1311.2901), section 4.2. The square has
the data's mean color. A pixel's value is the mean decrease over the squares that cover it. `window` is the side of a
square in pixels and `stride` the distance between squares; 0 selects an eighth of the image's shorter side, and half a
window.

In text, words are removed: Li, Monroe and Jurafsky, "Understanding neural networks through representation erasure",
2016 (1612.08220), equation 2, with the logit in place of the log-likelihood and without its normalization; in a tree,
whose shape the words hold, the vectors of the words below a node are set to 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explanation.methods._gradients import batch_size, target_logits
from dlkit.explanation.methods._word_vectors import WordVectorModel

TAKES = ("images", "sequences", "trees")


def explain(model: nn.Module, images: Tensor, targets: Tensor, *, window: int = 0, stride: int = 0) -> Tensor:
    H, W = images.shape[2:]
    if isinstance(model, WordVectorModel):
        words = torch.eye(W, dtype=torch.bool, device=images.device)
        return attribute_groups(model, targets, words).expand(len(images), 1, W)
    side = min(window or max(2, round(min(H, W) / 8)), H, W)
    step = stride or max(1, side // 2)
    squares = _squares(H, W, side, step).to(images.device)  # (S, H, W)
    coverage = squares.sum(0).clamp(min=1)
    maps = []
    for image, target, logit in zip(images, targets, target_logits(model, images, targets), strict=True):
        decreases = torch.cat(
            [
                logit - target_logits(model, image.masked_fill(batch[:, None], 0), target.expand(len(batch)))
                for batch in torch.split(squares, batch_size(images))
            ]
        )  # (S,)
        maps.append(torch.einsum("s,shw->hw", decreases, squares.to(decreases)) / coverage)
    return torch.stack(maps)


def attribute_groups(model: WordVectorModel, targets: Tensor, groups: Tensor) -> Tensor:
    """The decrease of the logit without the words of each group: (M, T) bool -> (M,)."""
    complete = model.masked_logits(torch.ones_like(groups[:1]))
    return (complete - model.masked_logits(~groups))[:, targets[0]]


def _squares(height: int, width: int, side: int, stride: int) -> Tensor:
    """The area of each square, (S, H, W) bool.

    Squares extend beyond the edges: otherwise an edge pixel would be covered only by squares that also cover many of
    its neighbors.
    """
    tops, lefts = (range(-((side - 1) // stride * stride), length, stride) for length in (height, width))
    squares = torch.zeros(len(tops) * len(lefts), height, width, dtype=torch.bool)
    for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        squares[number, max(0, top) : top + side, max(0, left) : left + side] = True
    return squares
