"""The networks that torchvision publishes, without torchvision: their names, weights, preprocessing and accuracy.

published_weights.csv is written from torchvision's own registry (`python tests/network_tables.py`); the first weights
of an architecture are those that torchvision recommends. A file's name ends in the first digits of its SHA-256.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dlkit.errors import UsageError
from dlkit.specs import ImageSpec, Interpolation

TABLE = Path(__file__).with_name("published_weights.csv")


@dataclass(frozen=True)
class PublishedWeights:
    """One file of weights; top1 and top5 are fractions of ImageNet's validation images."""

    architecture: str  # torchvision's name for the network
    tag: str
    file: str
    resize: int  # pixels of the shorter side
    crop: int  # pixels a side
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    top1: float
    top5: float

    def spec(self, classes: tuple[str, ...]) -> ImageSpec:
        """The images that the weights are for."""
        ratio = self.crop / self.resize
        return ImageSpec(3, self.crop, self.crop, classes, self.mean, self.std, ratio, interpolation=self.interpolation)


@cache
def weights() -> Mapping[str, tuple[PublishedWeights, ...]]:
    """The published weights of every architecture, the recommended ones first."""
    result: dict[str, tuple[PublishedWeights, ...]] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            architecture = row["architecture"]
            result[architecture] = (*result.get(architecture, ()), _parse(row))
    return result


def of_file(file: str) -> PublishedWeights | None:
    """The published weights whose file has that name."""
    return next((one for ones in weights().values() for one in ones if one.file == file), None)


def select(architecture: str, tag: str | None) -> PublishedWeights:
    """The weights of an architecture with that tag (IMAGENET1K_V1, or V1 for short); by default the recommended ones.

    Raises:
        UsageError: there are no such weights.
    """
    known = weights()[architecture]
    found = next((one for one in known if tag is None or tag.upper() in (one.tag, one.tag.split("_", 1)[1])), None)
    if found is None:
        tags = ", ".join(one.tag for one in known)
        raise UsageError(f"torchvision/{architecture} has no published weights {tag!r}. There are: {tags}.")
    return found


def _parse(row: Mapping[str, str]) -> PublishedWeights:
    mean, std = (tuple(map(float, row[name].split())) for name in ("mean", "std"))
    filter: Interpolation = "bicubic" if row["interpolation"] == "bicubic" else "bilinear"
    return PublishedWeights(
        row["architecture"], row["weights"], row["file"], int(row["resize"]), int(row["crop"]), filter,
        mean, std, float(row["top1"]), float(row["top5"]),
    )  # fmt: skip
