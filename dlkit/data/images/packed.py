"""Packs: the decoded images of a whole data set in one memory-mapped file.

The file is a safetensors file: a JSON header, then arrays. For each split, prefixed by its name:

    targets  (N,) int64      class of each image
    groups   (N,) int64      of train, if images have groups
    sizes    (N, 2) int32    height and width
    digests  (N, 32) uint8   SHA-256 of each image: its name, class, size and pixels
    names    uint8           names of the images, NUL-terminated
    pixels   uint8           concatenated images: (C, height, width), as network input, or uncropped for random
                             crops, (height, width, C), which is faster to crop

The header's metadata contain the spec and its SHA-256. `verify` detects altered pixels; opening detects truncated and
other files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dlkit.atomic_io import storage_errors
from dlkit.data.splits import ImageSource
from dlkit.errors import MALFORMED, DataError, VerificationError
from dlkit.specs import ImageSpec, from_json

SCHEMA = "dlkit.pack/2"
MAX_HEADER = 100_000_000  # bytes, safetensors' own limit
TYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}
SPLITS = ("train", "validation", "test")

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """A split of a pack; unpickling reopens the file."""

    path: Path
    split: str
    spec: ImageSpec
    targets: Ints
    sizes: npt.NDArray[np.int32]
    digests: Bytes
    names: Sequence[str]
    pixels: Bytes  # (bytes,), mapped
    is_uncropped: bool
    groups: Ints | None = None
    starts: Ints = field(init=False)  # (N + 1,) offsets of the images in pixels

    def __post_init__(self) -> None:
        lengths = self.sizes.astype(np.int64).prod(axis=1) * self.spec.channels
        object.__setattr__(self, "starts", np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[Any, ...]:
        return _part, (self.path, self.split)

    def image(self, row: int) -> Bytes:
        """(C, H, W), a view of the file."""
        height, width = self.sizes[row].tolist()
        pixels = self.pixels[self.starts[row] : self.starts[row + 1]]
        if self.is_uncropped:
            return pixels.reshape(height, width, self.spec.channels).transpose(2, 0, 1)
        return pixels.reshape(self.spec.channels, height, width)

    def digest(self, row: int) -> bytes:
        """Compute the digest of an image."""
        return digest_of(self.names[row], self.spec.classes[self.targets[row]], self.image(row))

    def find_altered(self) -> str | None:
        """The name of the first image whose digest differs."""
        wrong = (row for row in range(len(self)) if self.digest(row) != self.digests[row].tobytes())
        return next((self.names[row] for row in wrong), None)


@dataclass(frozen=True, slots=True)
class PackedImage:
    """One image of a pack; read() encodes it as PPM or PGM."""

    part: Part
    row: int

    def __str__(self) -> str:
        return f"{self.part.path}/{self.part.names[self.row]}"

    @property
    def size(self) -> int:
        shape = (self.part.spec.channels, *map(int, self.part.sizes[self.row]))
        return len(_header(*shape)) + math.prod(shape)

    def is_prepared_for(self, spec: ImageSpec) -> bool:
        """Whether the image needs no resizing or cropping for this spec."""
        size = (spec.channels, spec.height, spec.width)
        return not self.part.is_uncropped and (self.part.spec.channels, *map(int, self.part.sizes[self.row])) == size

    def read(self) -> bytes:
        pixels = self.part.image(self.row)
        return _header(*pixels.shape) + pixels.transpose(1, 2, 0).tobytes()


@dataclass(frozen=True, eq=False)
class Pack:
    """An open pack; side is the shorter side of uncropped images, or None."""

    path: Path
    spec: ImageSpec
    side: int | None
    parts: Mapping[str, Part]

    @property
    def bytes(self) -> int:
        return os.path.getsize(self.path)

    def verify(self) -> None:
        """Raises: VerificationError if an image was altered."""
        for part in self.parts.values():
            if (name := part.find_altered()) is not None:
                raise _damaged(self.path, f"the image {name!a} was altered")


def rows_of(sources: Sequence[ImageSource], spec: ImageSpec) -> tuple[Bytes, Ints] | None:
    """The images (M, C, H, W) of a pack and the rows of these sources, if they need no preparation."""
    first = sources[0] if sources else None
    if not isinstance(first, PackedImage) or first.part.spec.channels != spec.channels:
        return None
    part = first.part
    if part.is_uncropped or (part.sizes != (spec.height, spec.width)).any():
        return None
    rows = [source.row for source in sources if isinstance(source, PackedImage) and source.part is part]
    if len(rows) != len(sources):
        return None
    return part.pixels.reshape(-1, spec.channels, spec.height, spec.width), np.array(rows, dtype=np.int64)


def digest_of(name: str, label: str, image: Bytes) -> bytes:
    """The digest of an image (C, H, W)."""
    digest = hashlib.sha256(repr((name, label, image.shape)).encode("utf-8", errors="surrogateescape"))
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def opened(path: Path) -> Pack:
    """Map a pack; its pixels are not read.

    Raises:
        DataError: no such file, or not a pack.
        VerificationError: a truncated or altered pack.
        StorageError: it cannot be read.
    """
    if not path.is_file():
        reason = "a folder, not a pack. Use --dataset folder." if path.is_dir() else "there is no such file."
        raise DataError(f"{path}: {reason}")
    with storage_errors(path):
        content: Bytes = np.empty(0, np.uint8)
        if path.stat().st_size:  # an empty file cannot be mapped
            # copy-on-write, since torch warns about read-only arrays
            content = np.asarray(np.memmap(path, np.uint8, mode="c"))
    metadata, entries, begin = _read_header(path, content)
    try:
        if hashlib.sha256(metadata["document"].encode()).hexdigest() != metadata["sha256"]:
            raise ValueError("its header was altered")
        document = json.loads(metadata["document"])
        spec = from_json(document["spec"])
        assert isinstance(spec, ImageSpec), "a pack holds images"
        arrays = {name: _array(content[begin:], entry) for name, entry in entries.items()}
        is_uncropped = document["side"] is not None
        parts = {split: _check_part(path, split, spec, arrays, is_uncropped) for split in document["splits"]}
    except (AssertionError, *MALFORMED) as error:
        reason = str(error) if type(error) is ValueError else "its header does not match its contents"
        raise _damaged(path, reason) from error
    return Pack(path, spec, document["side"], parts)


def write(
    file: IO[bytes],
    spec: ImageSpec,
    side: int | None,
    splits: Mapping[str, Mapping[str, Any]],
    images: Callable[[str], Iterable[Bytes]],
) -> None:
    """Write a pack: targets, names and groups (or None) of each split, and its images (C, H, W) in order.

    The header depends on the sizes of all images, so it is written last, into reserved space.
    """
    document = json.dumps({"spec": spec.to_json(), "side": side, "splits": list(splits)}, ensure_ascii=False)
    metadata = {"schema": SCHEMA, "document": document, "sha256": hashlib.sha256(document.encode()).hexdigest()}
    tables = {name: array for split, table in splits.items() for name, array in _tables(split, table)}
    begin = _round8(len(json.dumps(metadata)) + 200 * (len(tables) + len(splits) + 1)) + 8
    file.seek(begin + sum(_round8(array.nbytes) for array in tables.values()))
    entries: dict[str, Any] = {}
    for split, table in splits.items():
        start = file.tell() - begin
        labels = (spec.classes[target] for target in table["targets"])
        for row, (name, label, image) in enumerate(zip(table["names"], labels, images(split), strict=True)):
            tables[f"{split}/sizes"][row] = image.shape[1:]
            tables[f"{split}/digests"][row] = np.frombuffer(digest_of(name, label, image), np.uint8)
            file.write(np.ascontiguousarray(image if side is None else image.transpose(1, 2, 0)).data)
        end = file.tell() - begin
        entries[f"{split}/pixels"] = {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
    file.seek(begin)
    for name, array in tables.items():
        start = file.tell() - begin
        padding = bytes(_round8(array.nbytes) - array.nbytes)
        file.write(array.tobytes() + padding)
        dtype = next(kind for kind, known in TYPES.items() if known == array.dtype)
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
    header = json.dumps({"__metadata__": metadata, **entries}).encode().ljust(begin - 8)
    assert len(header) == begin - 8, "reserved space fits any header"
    file.seek(0)
    file.write(len(header).to_bytes(8, "little") + header)


def _tables(split: str, table: Mapping[str, Any]) -> Iterable[tuple[str, npt.NDArray[Any]]]:
    """The arrays of a split except its pixels, by name; sizes and digests are filled in later."""
    count = len(table["targets"])
    names = "".join(f"{name}\0" for name in table["names"]).encode("utf-8", errors="surrogateescape")
    yield f"{split}/targets", table["targets"].astype("<i8")
    if table["groups"] is not None:
        yield f"{split}/groups", table["groups"].astype("<i8")
    yield f"{split}/sizes", np.zeros((count, 2), "<i4")
    yield f"{split}/digests", np.zeros((count, 32), np.uint8)
    # padded to a multiple of eight: safetensors allows no gaps
    yield f"{split}/names", np.frombuffer(names.ljust(_round8(len(names)), b"\0"), np.uint8)


def _round8(size: int) -> int:
    return -(-size // 8) * 8


def _read_header(path: Path, content: Bytes) -> tuple[Any, dict[str, Any], int]:
    """The metadata, the entries of the arrays, and the offset of their data."""
    length = int.from_bytes(content[:8].tobytes(), "little")
    if len(content) < 8 or not 2 <= length <= MAX_HEADER:
        raise _foreign(path)
    header = content[8 : 8 + length].tobytes()
    if not header.startswith(b'{"__metadata__": {"schema": "dlkit.pack/'):
        raise _foreign(path)
    if len(header) < length:
        raise _damaged(path, "it was truncated")
    try:
        entries = json.loads(header)
        metadata = entries.pop("__metadata__")
        ends = [entry["data_offsets"][1] for entry in entries.values()]
        schema = metadata["schema"]
    except MALFORMED as error:
        raise _damaged(path, "its header was altered") from error
    if schema != SCHEMA:
        raise DataError(f"{path}: pack schema {schema!r}, but this dlkit reads {SCHEMA}. Pack it again.")
    if not ends or not all(isinstance(end, int) for end in ends) or max(ends) != len(content) - 8 - length:
        raise _damaged(path, "it was truncated or extended")
    return metadata, entries, 8 + length


def _array(content: Bytes, entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Raises: ValueError, TypeError, KeyError if the header does not match."""
    dtype, shape, (start, end) = TYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    is_inside = 0 <= start <= end <= len(content) and start % dtype.itemsize == 0
    if not is_inside or math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError("its header was altered")
    array: npt.NDArray[Any] = content[start:end].view(dtype).reshape(shape)
    return array


def _check_part(
    path: Path, split: str, spec: ImageSpec, arrays: Mapping[str, npt.NDArray[Any]], is_uncropped: bool
) -> Part:
    """A split, after checks that its arrays match."""
    targets, sizes, digests, pixels = (arrays[f"{split}/{name}"] for name in ("targets", "sizes", "digests", "pixels"))
    count, groups = len(targets), arrays.get(f"{split}/groups")
    groups = None if groups is None else np.array(groups)
    names = arrays[f"{split}/names"].tobytes().decode("utf-8", errors="surrogateescape").split("\0")[:count]
    part = Part(path, split, spec, np.array(targets), np.array(sizes), digests, names, pixels, is_uncropped, groups)
    is_valid = (
        split in SPLITS
        and targets.shape == (count,)
        and sizes.shape == (count, 2)
        and digests.shape == (count, 32)
        and len(names) == count
        and (groups is None or groups.shape == (count,))
        and bool((sizes > 0).all())
        and part.starts[-1] == len(pixels)
        and bool(((targets >= 0) & (targets < len(spec.classes))).all())
    )
    if not is_valid:
        raise ValueError("its arrays do not match")
    return part


def _part(path: Path, split: str) -> Part:
    return opened(path).parts[split]


def _header(channels: int, height: int, width: int) -> bytes:
    return f"P{6 if channels == 3 else 5}\n{width} {height}\n255\n".encode()


def _foreign(path: Path) -> DataError:
    return DataError(f"{path}: not a pack. `dlkit dataset pack DIR -o FILE` writes one.")


def _damaged(path: Path, reason: str) -> VerificationError:
    return VerificationError(f"{path}: the pack is damaged: {reason}. Pack it again.")
