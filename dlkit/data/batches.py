"""A batch, and how uint8 images become what a network reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit.specs import ImageSpec

AT_ONCE = 1 << 20  # numbers that are worked on


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

    def parts(self, count: int, smallest: int = 1) -> Iterator[Batch]:
        """The batch cut into at most `count` parts of like sizes, none of fewer than `smallest` samples."""
        count = max(1, min(count, len(self) // smallest))
        if count == 1:
            yield self
            return
        pieces = self.inputs.tensor_split(count) if isinstance(self.inputs, Tensor) else self.inputs.chunk(count)
        sizes = [len(piece) for piece in pieces]
        targets, indices = torch.split(self.targets, sizes), torch.split(self.indices, sizes)
        for place, piece in enumerate(pieces):
            yield Batch(piece, targets[place], indices[place], self.total)


def normalize(images: Tensor, spec: ImageSpec) -> Tensor:
    """uint8 images (N, C, H, W) → float32, scaled to [0, 1], minus the mean, over the standard deviation."""
    return standardize(images.float().div_(255), spec)


def normalized(images: Tensor, spec: ImageSpec, channels_last: bool = False) -> Tensor:
    """What `normalize` gives, bit for bit, and quicker for a batch."""
    return in_parts(images, lambda part, _: normalize(part, spec), channels_last)


def in_parts(images: Tensor, change: Callable[[Tensor, slice], Tensor], channels_last: bool = False) -> Tensor:
    """change(part, its places) of uint8 images (N, C, H, W), as one float32 tensor.

    On a CPU a part is few images, so that all that happens to them happens in its cache.
    """
    count, channels, height, width = images.shape
    channels_last = channels_last and channels > 1
    if images.device.type != "cpu":
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return change(images, slice(0, count)).contiguous(memory_format=layout)
    size = max(1, AT_ONCE // (channels * height * width))
    if count <= size and not channels_last:
        return change(images, slice(0, count))
    # numpy's memory, because it asks for large pages: the small ones of a new tensor cost more than the work on it
    if channels_last:
        found = torch.from_numpy(np.empty((count, height, width, channels), np.float32)).permute(0, 3, 1, 2)
    else:
        found = torch.from_numpy(np.empty((count, channels, height, width), np.float32))
    for start in range(0, count, size):
        places = slice(start, start + size)
        found[places].copy_(change(images[places], places))
    return found


def standardize(images: Tensor, spec: ImageSpec) -> Tensor:
    """Images (N, C, H, W) in [0, 1], minus the mean, over the standard deviation: in place."""
    mean = torch.tensor(spec.mean, dtype=images.dtype, device=images.device)[:, None, None]
    std = torch.tensor(spec.std, dtype=images.dtype, device=images.device)[:, None, None]
    return images.sub_(mean).div_(std)
