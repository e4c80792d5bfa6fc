"""Nearest neighbors: a vote of the classes of the nearest training images, which `dlkit baseline` stores.

Cover and Hart, "Nearest neighbor pattern classification", IEEE Trans. Information Theory 13(1), 1967. Distances are
Euclidean, of normalized pixels. A class's probability is (votes + 1/K) / (neighbors + 1), so that none is 0; of
classes with equal votes the first wins. All images are stored, one byte per pixel, and each prediction compares all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.data.batches import normalize
from dlkit.errors import UsageError
from dlkit.layers.classical import Images, Targets
from dlkit.specs import ImageSpec

NATURAL = (1, 28, 28, 10)  # channels, height, width, classes
LIMIT = None  # images to keep
BLOCK = 8192  # stored images compared at a time
SPARE = 8  # candidates beyond the neighbors, because their first distances are rounded


class NearestNeighbours(nn.Module):
    images: Tensor
    targets: Tensor

    def __init__(self, samples: int, neighbors: int, spec: ImageSpec) -> None:
        super().__init__()
        self.neighbors, self.spec = min(neighbors, samples), spec
        self.register_buffer("images", torch.zeros(samples, spec.channels, spec.height, spec.width, dtype=torch.uint8))
        self.register_buffer("targets", torch.zeros(samples, dtype=torch.long))

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        votes = nn.functional.one_hot(self.targets[self.nearest(images.flatten(1))], len(self.spec.classes)).sum(1)
        return torch.log((votes + 1 / len(self.spec.classes)) / (self.neighbors + 1))

    def nearest(self, x: Tensor) -> Tensor:  # (N, D) -> (N, neighbors)
        """The indices of the nearest images: for each block by ‖v‖² - 2 x·v, then of the best by ‖x - v‖² itself."""
        best, indices = x.new_empty(len(x), 0), self.targets.new_empty(len(x), 0)
        for start in range(0, len(self.images), BLOCK):
            stored = self.rows(self.images[start : start + BLOCK])  # (B, D)
            rough = stored.square().sum(1) - 2 * x @ stored.T  # (N, B)
            found = rough.topk(min(self.neighbors + SPARE, len(stored)), largest=False).indices.sort(dim=1).values
            exact = (x[:, None] - stored[found]).square().sum(2)
            best, indices = torch.cat([best, exact], dim=1), torch.cat([indices, start + found], dim=1)
            order = best.argsort(dim=1, stable=True)[:, : self.neighbors]  # of ties the first
            best, indices = best.gather(1, order), indices.gather(1, order)
        return indices

    def rows(self, images: Tensor) -> Tensor:  # (B, C, H, W) uint8 -> (B, D), normalized
        return normalize(images, self.spec).flatten(1)

    def multiply_adds(self, output: Tensor) -> int:
        return self.images.numel()


def build(spec: ImageSpec, *, neighbors: int = 3, samples: int = 1) -> nn.Module:
    """`samples` is the number of stored images."""
    if neighbors < 1:
        raise UsageError(f"model option neighbors is {neighbors}. It must be 1 or more.")
    return NearestNeighbours(samples, neighbors, spec)


def fit(
    images: Images, targets: Targets, spec: ImageSpec, seed: int, options: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The fitted model, and its size as options."""
    model = build(spec, neighbors=options["neighbors"], samples=len(images))
    assert isinstance(model, NearestNeighbours)
    model.images.copy_(torch.from_numpy(images))
    model.targets.copy_(torch.from_numpy(targets))
    return model, {"samples": len(images)}
