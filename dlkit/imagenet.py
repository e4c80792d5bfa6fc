"""ImageNet (ILSVRC 2012) as trained weights know it: its classes, its images, and the files that torchvision publishes.

Russakovsky et al., "ImageNet large scale visual recognition challenge", IJCV 2015.
The names of the 1,000 classes, in the order of their WordNet ids, are those that torchvision ships with its weights
(imagenet_classes.txt, a name a line); each name stands once. The files are torchvision's IMAGENET1K_V1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from dlkit.specs import ImageSpec

URL = "https://download.pytorch.org/models/"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORDNET_ID = re.compile(r"n[0-9]{8}")

# model → its file, whose name ends in the first eight digits of its SHA-256
FILES = {
    "alexnet_owt": "alexnet-owt-7be5be79.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "densenet121": "densenet121-a639ec97.pth",
    "densenet161": "densenet161-8d451a50.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "densenet201": "densenet201-c1103571.pth",
    "vit_b_16": "vit_b_16-c867db91.pth",
}


@cache
def classes() -> tuple[str, ...]:
    """The names of the 1,000 classes."""
    return tuple(Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines())


def spec() -> ImageSpec:
    """What the published weights were trained for: 224 of 256 pixels, in colour."""
    return ImageSpec(3, 224, 224, classes(), MEAN, STD, crop=0.875)


def sha256_start(file: str) -> str:
    """The digits of its SHA-256 that a published file's name states."""
    return file.removesuffix(".pth").rpartition("-")[2]


def same_classes(names: Sequence[str]) -> bool:
    """Whether these are ImageNet's classes in its order, by name or, as its archives call them, by WordNet id."""
    sorted_ids = len(names) == len(classes()) and list(names) == sorted(set(names))
    return tuple(names) == classes() or (sorted_ids and all(WORDNET_ID.fullmatch(name) for name in names))
