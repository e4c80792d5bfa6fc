"""IDX files, arrays of bytes after a short header: the format of MNIST and similar data sets."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlkit import atomic_io
from dlkit.data.splits import MemoryImages
from dlkit.errors import VerificationError

Bytes = npt.NDArray[np.uint8]
LIKE_MNIST = {  # bytes: 60,000 training and 10,000 test images
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
LIMIT = 1 << 30  # bytes of a decompressed file


def read(path: Path, dimensions: int) -> Bytes:
    """Read an IDX file of bytes, compressed if its name ends in .gz, as an array with this number of dimensions.

    Raises:
        VerificationError: a different header, or a file of a different size.
    """
    header = struct.Struct(f">{1 + dimensions}i")
    content = np.frombuffer(_decompress(path, LIMIT), np.uint8) if path.suffix == ".gz" else _plain(path)
    if len(content) < header.size:
        raise VerificationError(f"{path}: the IDX header is truncated.")
    magic, *shape = header.unpack(content[: header.size].tobytes())
    if magic != 0x0800 + dimensions or min(shape) < 0:
        raise VerificationError(f"{path}: not an IDX file of bytes in {dimensions} dimensions.")
    values = content[header.size :]
    if values.size != np.prod(shape, dtype=object):
        raise VerificationError(f"{path}: {values.size} bytes follow the header, whose shape is {shape}.")
    return values.reshape(shape)


def encode(values: Bytes) -> bytes:
    """The IDX file of an array of bytes."""
    return struct.pack(f">{1 + values.ndim}i", 0x0800 + values.ndim, *values.shape) + values.tobytes()


def images(folder: Path, part: str, classes: int = 10) -> MemoryImages:
    """28 × 28 images and their classes, of PART-images-idx3-ubyte and PART-labels-idx1-ubyte.

    Raises:
        VerificationError: a damaged file, or two files that do not match.
    """
    pixels = read(folder / f"{part}-images-idx3-ubyte", 3)[:, None]  # (N, 1, 28, 28)
    targets = read(folder / f"{part}-labels-idx1-ubyte", 1)
    if pixels.shape[2:] != (28, 28) or len(pixels) != len(targets) or targets.max(initial=0) >= classes:
        raise VerificationError(f"{folder}: the {part} images and labels do not match.")
    return MemoryImages(pixels, targets.astype(np.int64))


def fetch(folder: Path, download: Callable[[str], Path]) -> None:
    """Install the four files of a data set like MNIST from .gz files."""
    for name, size in LIKE_MNIST.items():
        gunzip(download(f"{name}.gz"), folder / name, size)


def gunzip(packed: Path, target: Path, size: int) -> None:
    """Decompress a .gz file of exactly `size` bytes.

    Raises:
        VerificationError: a damaged file, or another size.
    """
    content = _decompress(packed, size)
    if len(content) != size:
        raise VerificationError(f"{packed}: decompresses to {len(content)} bytes instead of {size}.")
    atomic_io.write_bytes(target, memoryview(content))


def _plain(path: Path) -> Bytes:
    with atomic_io.storage_errors(path):
        return np.fromfile(path, np.uint8)


def _decompress(packed: Path, limit: int) -> bytearray:
    """The content as a writable buffer."""
    try:
        with gzip.open(packed) as file:
            content = bytearray(file.read(limit + 1))  # one more than allowed, so that bombs are not decompressed
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise VerificationError(f"{packed}: the gzip file is damaged: {error}.") from error
    except OSError as error:
        raise atomic_io.storage_error(error, packed) from error
    if len(content) > limit:
        raise VerificationError(f"{packed}: decompresses to more than {limit} bytes.")
    return content
