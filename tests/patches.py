"""Images of which one patch alone decides the class, to ask of an explanation whether it finds the patch.

The last class is that there is none. Without it a network may take one of the others for granted where it sees nothing
else, and then no patch decides for that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit import catalog
from dlkit.verbs.summary import natural_spec

SIDE, PATCH = 32, 8
COLOURS = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2], [2, 2, -1], [0, 0, 0]])  # of a patch, by class
CLASSES, PATCHED = len(COLOURS), len(COLOURS) - 1


def patches(count: int, seed: int, classes: int = PATCHED) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (N, 3, SIDE, SIDE) with a patch of its class's colour; the classes (N,); the top left corners (N, 2)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    targets = torch.randint(classes, (count,), generator=generator)
    corners = torch.randint(0, SIDE - PATCH + 1, (count, 2), generator=generator)
    for image, target, (top, left) in zip(images, targets, corners.tolist(), strict=True):
        image[:, top : top + PATCH, left : left + PATCH] += COLOURS[target][:, None, None]
    return images, targets, corners


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The network for such images, drawn from seed 0, in eval mode."""
    torch.manual_seed(0)
    spec = natural_spec(3, SIDE, SIDE, CLASSES)
    model: nn.Module = catalog.load("models", name).build(spec, **catalog.resolved_options("models", name, options))
    return model.eval()


def train(model: nn.Module, steps: int, batch: int = 32, seed: int = 1000) -> None:
    """By Adam, on images drawn from seed, seed + 1, …: so a second call begins Adam anew and may draw others."""
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    for step in range(steps):
        images, targets, _ = patches(batch, seed + step, classes=CLASSES)
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()
    model.eval()


def maps_of(method: str, model: nn.Module, images: Tensor, targets: Tensor, **options: Any) -> Tensor:
    explain: Callable[..., Tensor] = catalog.load("explainers", method).explain
    return explain(model, images, targets, **options)


def share_in_patch(maps: Tensor, corners: Tensor) -> float:
    """Of maps (N, SIDE, SIDE), how many have their peak in the patch."""
    peaks = maps.flatten(1).argmax(1)
    found = torch.stack([peaks // SIDE, peaks % SIDE], 1) - corners
    return float(((found >= 0) & (found < PATCH)).all(1).double().mean())
