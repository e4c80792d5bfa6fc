"""Cutout: a square of each image is replaced by the data's mean color.

The square has sides of `size` pixels, its center is anywhere in the image, and it is clipped to the image.
DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017, 1708.04552: 16 pixels
for CIFAR-10, 8 for CIFAR-100, 20 for SVHN, of 32. The color is 0 in normalized images.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dlkit.data.batches import Batch
from dlkit.errors import UsageError
from dlkit.regularizers import Plan, Regularizer

OFF = {"size": 0}


def paint_over(images: Tensor, rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W) with zeros in the `size` rows and columns around their centers (N,), (N,)."""
    height, width = images.shape[-2:]
    in_rows = _within(rows, height, size)[:, None, :, None]  # (N, 1, H, 1)
    in_columns = _within(columns, width, size)[:, None, None, :]  # (N, 1, 1, W)
    return images.clone().masked_fill_(in_rows & in_columns, 0.0)  # a clone keeps the memory format


def _within(centers: Tensor, side: int, size: int) -> Tensor:
    """Which of `side` positions are in the `size` around each center: (N,) → (N, side)."""
    first = centers[:, None] - size // 2
    positions = torch.arange(side, device=centers.device)[None]
    return (positions >= first) & (positions < first + size)


class Cutout(Regularizer):
    def __init__(self, size: int) -> None:
        self.size = size

    def on_model(self, model: nn.Module, plan: Plan) -> None:
        height, width = plan.image_size("cutout")
        if self.size > min(height, width):
            found = f"recipe.regularizers.cutout.size is {self.size}, more than the images have: {height} × {width}"
            raise UsageError(f"{found} pixels. About half their side is usual.")

    def on_batch(self, batch: Batch) -> Batch:
        height, width = batch.inputs.shape[-2:]
        rows, columns = (torch.randint(side, (len(batch),)).to(batch.inputs.device) for side in (height, width))
        return replace(batch, inputs=paint_over(batch.inputs, rows, columns, self.size))


def build(*, size: int = 16) -> Regularizer:
    return Cutout(size)
