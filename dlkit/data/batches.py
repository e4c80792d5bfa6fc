"""A batch, and how uint8 images become what a network reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlkit.specs import ImageSpec


@dataclass(frozen=True)
class Batch:
    """What a step sees: inputs, of which a model gives one row of logits for each of the targets.

    inputs are normalised images (N, C, H, W), Sequences or Trees; targets (N,) classes, or (N, 1) numbers where the
    spec has no classes; indices (N,) places in the split. Of trees N counts the nodes that are asked for. total counts
    the samples of the whole batch, of which this is one rank's share.
    """

    inputs: Any
    targets: Tensor
    indices: Tensor
    total: int

    def __len__(self) -> int:
        return len(self.targets)

    def parts(self, count: int) -> Iterator[Batch]:
        """The batch cut into at most `count` parts."""
        pieces = self.inputs.chunk(count)
        sizes = [len(piece) for piece in pieces]
        targets, indices = torch.split(self.targets, sizes), torch.split(self.indices, sizes)
        for place, piece in enumerate(pieces):
            yield Batch(piece, targets[place], indices[place], self.total)


def normalize(images: Tensor, spec: ImageSpec) -> Tensor:
    """uint8 images (N, C, H, W) → float32, scaled to [0, 1], minus the mean, over the standard deviation."""
    return standardize(images.float().div_(255), spec)


def standardize(images: Tensor, spec: ImageSpec) -> Tensor:
    """Images (N, C, H, W) in [0, 1], minus the mean, over the standard deviation."""
    mean = torch.tensor(spec.mean, dtype=images.dtype, device=images.device)[:, None, None]
    std = torch.tensor(spec.std, dtype=images.dtype, device=images.device)[:, None, None]
    return images.sub(mean).div_(std)
