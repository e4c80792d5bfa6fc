"""Kuzushiji-MNIST: 70,000 cursive Japanese characters of ten kinds, 28 × 28, gray.

Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto and Ha, "Deep learning for classical Japanese literature", 2018
(1812.01718). In the format of MNIST.
"""

from __future__ import annotations

from pathlib import Path

from dlkit.data.download import idx
from dlkit.data.splits import About, Source, Splits
from dlkit.specs import ImageSpec

MIRRORS = (
    "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/KMNIST/",
)
PUBLISHED = {  # of the compressed files: bytes, SHA-256
    "train-images-idx3-ubyte.gz": (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
    "train-labels-idx1-ubyte.gz": (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
    "t10k-images-idx3-ubyte.gz": (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
    "t10k-labels-idx1-ubyte.gz": (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
}
CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

ABOUT = About(
    title="Kuzushiji-MNIST, cursive characters",
    classes=10,
    sizes={"train": 60_000, "test": 10_000},
    licence="CC BY-SA 4.0",
    citation="Clanuwat et al., 1812.01718, 2018",
    files={
        name: [Source(mirror + name, f"sha256:{sha256}", size) for mirror in MIRRORS]
        for name, (size, sha256) in PUBLISHED.items()
    },
)

fetch = idx.fetch


def spec() -> ImageSpec:
    """The spec, without the data."""
    return ImageSpec(1, 28, 28, CLASSES, mean=(0.1918,), std=(0.3483,))


def load(folder: Path) -> Splits:
    """The published train and test splits."""
    return Splits(spec(), train=idx.images(folder, "train"), test=idx.images(folder, "t10k"))
