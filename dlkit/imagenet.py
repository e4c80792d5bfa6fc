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

from dlkit import published
from dlkit.errors import UsageError
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


def has_weights(model: str) -> bool:
    """Whether torchvision publishes weights of a model."""
    return model in FILES or _architecture(model) is not None


def find(model: str, tag: str | None = None) -> tuple[str, ImageSpec]:
    """The file of a model's published weights and the images that they are for.

    tag chooses among those of torchvision/NAME; dlkit's own networks have one file each.

    Raises:
        UsageError: there are no such weights.
    """
    architecture = _architecture(model)
    if architecture is not None:
        chosen = published.select(architecture, tag)
        return chosen.file, chosen.spec(classes())
    if model not in FILES:
        raise UsageError(
            f"there are no ImageNet weights for {model!r}. There are for: {', '.join(FILES)} and every "
            f"torchvision/NAME."
        )
    if tag is not None:
        raise UsageError(f"{model} has one file of ImageNet weights, without a tag. Leave :{tag} out.")
    return FILES[model], spec()


def model_of_file(file: str, model: str | None = None) -> str | None:
    """The model whose published weights a file's name is that of; `model` itself if they are its."""
    of_architecture = published.of_file(file)
    names = [own for own, name in FILES.items() if name == file]
    if of_architecture is not None:
        names.append(f"torchvision/{of_architecture.architecture}")
    return model if model in names else names[0] if names else None


def spec_of_file(file: str) -> ImageSpec:
    """The images that a published file's weights are for."""
    row = published.of_file(file)
    return spec() if row is None or file in FILES.values() else row.spec(classes())


def _architecture(model: str) -> str | None:
    package, _, name = model.partition("/")
    return name if package == "torchvision" and name in published.weights() else None


def same_classes(names: Sequence[str]) -> bool:
    """Whether these are ImageNet's classes in its order, by name or, as its archives call them, by WordNet id."""
    sorted_ids = len(names) == len(classes()) and list(names) == sorted(set(names))
    return tuple(names) == classes() or (sorted_ids and all(WORDNET_ID.fullmatch(name) for name in names))
