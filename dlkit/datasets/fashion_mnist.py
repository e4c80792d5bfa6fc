"""Fashion-MNIST: 70,000 pictures of clothes in ten kinds, 28 × 28, gray.

Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017
(1708.07747). In the format of MNIST, and harder.
"""

from __future__ import annotations

from pathlib import Path

from dlkit.data.download import idx
from dlkit.data.splits import About, Source, Splits
from dlkit.specs import ImageSpec

MIRRORS = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
PUBLISHED = {  # of the compressed files: bytes, SHA-256
    "train-images-idx3-ubyte.gz": (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    "train-labels-idx1-ubyte.gz": (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    "t10k-images-idx3-ubyte.gz": (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    "t10k-labels-idx1-ubyte.gz": (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
}
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

ABOUT = About(
    title="Fashion-MNIST, clothes",
    classes=10,
    sizes={"train": 60_000, "test": 10_000},
    licence="MIT",
    citation="Xiao, Rasul and Vollgraf, 1708.07747, 2017",
    files={
        name: [Source(mirror + name, f"sha256:{sha256}", size) for mirror in MIRRORS]
        for name, (size, sha256) in PUBLISHED.items()
    },
)

fetch = idx.fetch


def spec() -> ImageSpec:
    """The spec, without the data."""
    return ImageSpec(1, 28, 28, CLASSES, mean=(0.2860,), std=(0.3530,))


def load(folder: Path) -> Splits:
    """The published train and test splits."""
    return Splits(spec(), train=idx.images(folder, "train"), test=idx.images(folder, "t10k"))
