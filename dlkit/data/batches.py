"""Batches, and the normalization of uint8 images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit.specs import ImageSpec

CHUNK_ELEMENTS = 1 << 20  # of images processed at a time, to stay in the CPU's cache


@dataclass(frozen=True)
class Batch:
    """The input of a step: a model returns one row of logits per target.

    inputs are normalized images (N, C, H, W), Sequences or Trees; targets (N,) classes, or (N, 1) numbers if the spec
    has no classes; indices (N,) refer to the split. For trees, N counts output nodes. total is the size of the global
    batch, of which this is the share of one rank.
    """

    inputs: Any
    targets: Tensor
    indices: Tensor
    total: int

    def __len__(self) -> int:
        return len(self.targets)

    def parts(self, count: int, smallest: int = 1) -> Iterator[Batch]:
        """Split the batch into at most `count` parts of similar size, each of at least `smallest` samples."""
        count = max(1, min(count, len(self) // smallest))
        if count == 1:
            yield self
            return
        pieces = self.inputs.tensor_split(count) if isinstance(self.inputs, Tensor) else self.inputs.chunk(count)
        sizes = [len(piece) for piece in pieces]
        targets, indices = torch.split(self.targets, sizes), torch.split(self.indices, sizes)
        for part in zip(pieces, targets, indices, strict=True):
            yield Batch(*part, self.total)


def normalize(images: Tensor, spec: ImageSpec) -> Tensor:
    """uint8 images (N, C, H, W) → float32, scaled to [0, 1], minus the mean, over the standard deviation."""
    return standardize(images.float().div_(255), spec)


def normalize_batch(images: Tensor, spec: ImageSpec, channels_last: bool = False) -> Tensor:
    """The same as `normalize`, bit for bit, and faster for a batch."""
    return map_chunks(images, lambda chunk, _: normalize(chunk, spec), channels_last)


def map_chunks(images: Tensor, function: Callable[[Tensor, slice], Tensor], channels_last: bool = False) -> Tensor:
    """function(chunk, slice) of each chunk of uint8 images (N, C, H, W), as one float32 tensor.

    On a CPU a chunk is a few images, so that all operations on it run in the cache.
    """
    count, channels, height, width = images.shape
    channels_last = channels_last and channels > 1
    if images.device.type != "cpu":
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return function(images, slice(0, count)).contiguous(memory_format=layout)
    size = max(1, CHUNK_ELEMENTS // (channels * height * width))
    if count <= size and not channels_last:
        return function(images, slice(0, count))
    # allocated by numpy, which requests huge pages: page faults of a new tensor cost more than the computation
    if channels_last:
        result = torch.from_numpy(np.empty((count, height, width, channels), np.float32)).permute(0, 3, 1, 2)
    else:
        result = torch.from_numpy(np.empty((count, channels, height, width), np.float32))
    for start in range(0, count, size):
        chunk = slice(start, start + size)
        result[chunk].copy_(function(images[chunk], chunk))
    return result


def standardize(images: Tensor, spec: ImageSpec) -> Tensor:
    """Subtract the mean from images (N, C, H, W) in [0, 1] and divide by the standard deviation, in place."""
    mean = torch.tensor(spec.mean, dtype=images.dtype, device=images.device)[:, None, None]
    std = torch.tensor(spec.std, dtype=images.dtype, device=images.device)[:, None, None]
    return images.sub_(mean).div_(std)
