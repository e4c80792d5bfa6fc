"""Images of which one patch alone decides the class, to ask of an explanation whether it finds the patch.

The last class is that there is none. Without it a network may take one of the others for granted where it sees nothing
else, and then no patch decides for that one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit import registry
from dlkit.evaluation.model_summary import natural_spec
from dlkit.layers.averaging import move_towards

SIDE, PATCH = 32, 8
COLOURS = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2], [2, 2, -1], [0, 0, 0]])  # of a patch, by class
CLASSES, PATCHED = len(COLOURS), len(COLOURS) - 1
METHODS: dict[str, dict[str, int]] = {
    "grad_cam": {},
    "integrated_gradients": {"steps": 16, "most": 16},  # more would change its sum, hardly its peak
    "occlusion": {"window": PATCH},  # less than the patch, and what is left of it may still be enough
}
MOST, EVERY = 400, 10  # steps of training, and between two looks at how far it is

_families = {name: entry.family for name, entry in registry.entries("models").items()}
# The start that AlexNet's paper gives takes epochs to begin.
OPTIONS = {name: {"init": "he"} for name in _families if _families[name] == "alexnet"}


@dataclass(frozen=True)
class Training:
    """By Adam, until the loss on other images is `enough`, twice in a row: batch norm's statistics lag behind."""

    lr: float = 1e-3
    batch: int = 16
    enough: float = 0.02
    averaged: bool = False  # the weights that are tested and explained are means over some 20 steps


# Deep networks without norms learn nothing at 1e-3; LeNet-5 of 1998, whose units saturate, has to have learned well.
# The deepest VGGs at first tell a colour by what it lacks, of which Grad-CAM shows nothing, and waver with each step.
TRAINING = {
    "lenet5": Training(1e-3, 128, 0.003),
    **{name: Training(1e-4) for name in _families if _families[name] in ("alexnet", "vgg")},
    **{name: Training(3e-4, 16, 0.001) for name in ("vgg11_bn", "vgg13_bn")},
    **{name: Training(3e-4, 16, 1e-4, averaged=True) for name in ("vgg16_bn", "vgg19_bn")},
    "vgg19": Training(5e-5, 32, 1e-6),
    **{name: Training(3e-4, 32) for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
}


def patches(count: int, seed: int, classes: int = PATCHED) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (N, 3, SIDE, SIDE) with a patch of its class's colour; the classes (N,); the top left corners (N, 2)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    targets = torch.randint(classes, (count,), generator=generator)
    corners = torch.randint(0, SIDE - PATCH + 1, (count, 2), generator=generator)
    for image, target, (top, left) in zip(images, targets, corners.tolist(), strict=True):
        image[:, top : top + PATCH, left : left + PATCH] += COLOURS[target][:, None, None]
    return images, targets, corners


def build(name: str, options: Mapping[str, Any], classes: int = CLASSES) -> nn.Module:
    """The network for such images, drawn from seed 0, in eval mode."""
    torch.manual_seed(0)
    spec = natural_spec(3, SIDE, SIDE, classes)
    model: nn.Module = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    return model.eval()


def learned(name: str, options: Mapping[str, Any]) -> tuple[nn.Module, int, float, float]:
    """A network trained until it tells 64 other images apart, in eval mode; steps, and loss and accuracy there."""
    model, training = build(name, options).to(memory_format=torch.channels_last), TRAINING.get(name, Training())
    tested = copy.deepcopy(model) if training.averaged else model
    optimizer = torch.optim.Adam(model.parameters(), training.lr, fused=True)
    others, classes, _ = patches(64, seed=1, classes=CLASSES)
    loss = right = math.nan
    known = False
    for step in range(1, MOST + 1):
        images, targets, _ = patches(training.batch, seed=1000 + step, classes=CLASSES)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(images), targets).backward()
        optimizer.step()
        if training.averaged:
            move_towards(tested, model, 0.05)
        if step % EVERY == 0:
            with torch.no_grad():
                logits = tested.eval()(others)
            loss, right = float(F.cross_entropy(logits, classes)), float((logits.argmax(1) == classes).float().mean())
            known, before = loss < training.enough and right == 1, known
            if known and before:
                break
    return tested.eval(), step, loss, right


def maps_of(method: str, model: nn.Module, images: Tensor, targets: Tensor, **options: Any) -> Tensor:
    explain: Callable[..., Tensor] = registry.load("explainers", method).explain
    return explain(model, images, targets, **options)


def shares_in_patch(model: nn.Module, images: Tensor, targets: Tensor, corners: Tensor) -> dict[str, float]:
    """Of the maps of each of METHODS, how many have their peak in the patch."""
    shares = {}
    for method, options in METHODS.items():
        peaks = maps_of(method, model, images, targets, **options).flatten(1).argmax(1)
        found = torch.stack([peaks // SIDE, peaks % SIDE], 1) - corners
        shares[method] = float(((found >= 0) & (found < PATCH)).all(1).double().mean())
    return shares
