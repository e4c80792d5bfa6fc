"""SVHN: 99,289 digits of house numbers photographed from the street, 32 × 32, color.

Netzer, Wang, Coates, Bissacco, Wu and Ng, "Reading digits in natural images with unsupervised feature learning", NIPS
workshop, 2011. Format 2, the cropped digits; label 10, the digit 0, becomes class 0. The 531,131 easier extra
images are not used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dlkit.atomic_io import storage_errors
from dlkit.data.download import mat
from dlkit.data.splits import About, MemoryImages, Source, Splits
from dlkit.errors import VerificationError
from dlkit.specs import ImageSpec

MIRRORS = ("https://ufldl.stanford.edu/housenumbers/", "http://ufldl.stanford.edu/housenumbers/")
PUBLISHED = {  # bytes, SHA-256
    "train_32x32.mat": (182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    "test_32x32.mat": (64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
}

ABOUT = About(
    title="SVHN, house numbers' digits",
    classes=10,
    sizes={"train": 73_257, "test": 26_032},
    licence="for non-commercial use",
    citation="Netzer, Wang, Coates, Bissacco, Wu and Ng, NIPS workshop, 2011",
    files={
        name: [Source(mirror + name, f"sha256:{sha256}", size) for mirror in MIRRORS]
        for name, (size, sha256) in PUBLISHED.items()
    },
)


def fetch(folder: Path, download: Callable[[str], Path]) -> None:
    """The two files as they are published."""
    files = [download(name) for name in PUBLISHED]
    with storage_errors(folder):
        for file in files:
            file.rename(folder / file.name)


def spec() -> ImageSpec:
    """The spec, without the data."""
    return ImageSpec(3, 32, 32, tuple("0123456789"), mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970))


def load(folder: Path) -> Splits:
    """The published train and test splits."""
    return Splits(spec(), train=_samples(folder / "train_32x32.mat"), test=_samples(folder / "test_32x32.mat"))


def _samples(path: Path) -> MemoryImages:
    arrays = mat.arrays(path)
    images, labels = arrays.get("X"), arrays.get("y")
    if images is None or labels is None or images.shape[:3] != (32, 32, 3) or images.shape[3] != labels.size:
        raise VerificationError(f"{path}: lacks images X (32, 32, 3, N) or labels y (N, 1).")
    if labels.min(initial=1) < 1 or labels.max(initial=10) > 10:
        raise VerificationError(f"{path}: contains a label outside 1 to 10.")
    targets = labels.reshape(-1).astype(np.int64) % 10
    return MemoryImages(np.ascontiguousarray(images.transpose(3, 2, 0, 1)), targets)  # (N, 3, 32, 32)
