"""A batch, and how uint8 images become what a network reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dlkit.specs import ImageSpec


@dataclass(frozen=True)
class Batch:
    """inputs (N, …), of images normalised floats (N, C, H, W); targets (N,) class indices; indices (N,) places in the split.

    total counts the samples of the whole batch, of which this is one rank's share.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    total: int

    def __len__(self) -> int:
        return len(self.targets)

    def parts(self, count: int) -> Iterator[Batch]:
        """The batch cut into at most `count` parts."""
        pieces = (tensor.chunk(count) for tensor in (self.inputs, self.targets, self.indices))
        for inputs, targets, indices in zip(*pieces, strict=True):
            yield Batch(inputs, targets, indices, self.total)


def normalize(images: Tensor, spec: ImageSpec) -> Tensor:
    """uint8 images (N, C, H, W) → float32, scaled to [0, 1], minus the mean, over the standard deviation."""
    return standardize(images.float().div_(255), spec)


def standardize(images: Tensor, spec: ImageSpec) -> Tensor:
    """Images (N, C, H, W) in [0, 1], minus the mean, over the standard deviation."""
    mean = torch.tensor(spec.mean, dtype=images.dtype, device=images.device)[:, None, None]
    std = torch.tensor(spec.std, dtype=images.dtype, device=images.device)[:, None, None]
    return images.sub(mean).div_(std)
