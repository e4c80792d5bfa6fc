"""CutMix: a box of each image is replaced by the same box of another of its batch, and the targets follow the areas.

The box has sides √(1 − λ) of the image's, λ ~ Beta(alpha, alpha), one λ and one box per batch, its center anywhere in
the image; the box is clipped to the image, and λ becomes the remaining fraction of the image: y ← λ y + (1 − λ) y′.
Yun, Han, Oh, Chun, Choe and Yoo, "CutMix: regularization strategy to train strong classifiers with localizable
features", ICCV 2019, 1905.04899. With mixup as well, each batch uses one of the two with equal probability, as in timm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlkit.data.batches import Batch
from dlkit.regularizers import Plan, Regularizer, one_hot

OFF = {"alpha": 0.0}

Box = tuple[slice, slice]  # rows, columns


def box_about(centre: tuple[int, int], size: tuple[int, int], share: float) -> Box:
    """The box that covers 1 − share of an image (height, width) if it is not clipped."""
    sides = (round(side * math.sqrt(1 - share)) for side in size)
    rows, columns = (
        slice(max(middle - cut // 2, 0), min(middle - cut // 2 + cut, side))
        for middle, cut, side in zip(centre, sides, size, strict=True)
    )
    return rows, columns


def paste(images: Tensor, others: Tensor, box: Box) -> tuple[Tensor, float]:
    """The images (N, C, H, W) with the others' box in them, and the remaining fraction of each."""
    rows, columns = box
    pasted = images.clone()
    pasted[:, :, rows, columns] = others[:, :, rows, columns]
    height, width = images.shape[-2:]
    return pasted, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


class CutMix(Regularizer):
    def __init__(self, alpha: float) -> None:
        self.share = torch.distributions.Beta(torch.tensor(float(alpha)), torch.tensor(float(alpha)))
        self.chance = 1.0
        self.size, self.classes = (0, 0), 0

    def on_model(self, model: nn.Module, plan: Plan) -> None:
        self.size = plan.image_size("cutmix")
        self.classes = len(plan.spec.classes)
        self.chance = 0.5 if "mixup" in plan.regularizers else 1.0

    def on_batch(self, batch: Batch) -> Batch:
        chance, row, column = torch.rand(3).tolist()
        if chance >= self.chance:  # this one is for mixup
            return batch
        height, width = self.size
        share = float(self.share.sample())
        order = torch.randperm(len(batch)).to(batch.targets.device)
        box = box_about((int(row * height), int(column * width)), self.size, share)
        inputs, share = paste(batch.inputs, batch.inputs[order], box)
        targets = one_hot(batch.targets, self.classes)
        return Batch(inputs, torch.lerp(targets[order], targets, share), batch.indices, batch.total)


def build(*, alpha: float = 1.0) -> Regularizer:
    return CutMix(alpha)
