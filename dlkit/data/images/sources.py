"""How the uint8 images of a split are had: from memory, from a pack, or decoded in worker processes.

What is decoded is kept where the split is small and its pixels are the same each time, so that only the first epoch
over a folder of small images decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from dlkit.data import rng
from dlkit.data.images import decode as image_files
from dlkit.data.images import jpeg, packed, resize_crop
from dlkit.data.images.resize_crop import Pixels
from dlkit.data.splits import ImageFiles, ImageSource, MemoryImages, Samples
from dlkit.data.workers import in_threads, in_workers
from dlkit.errors import DlkitError
from dlkit.specs import ImageSpec

Indices = npt.NDArray[np.int64]
Fetch = Callable[[Sequence[Indices], int], Iterator[Tensor]]  # index lists, epoch → uint8 images (N, C, H, W), in order
Area = tuple[float, float]  # least and greatest part of an image that a random crop keeps

KEPT_BYTES = 1 << 29  # of one split's decoded images


def fetcher(
    samples: Samples,
    spec: ImageSpec,
    device: torch.device,
    workers: int,
    seed: int = 0,
    resized_crop: Area | None = None,
) -> Fetch:
    """How uint8 images of these samples are had."""
    if isinstance(samples, MemoryImages):
        return _from_memory(samples, device)
    assert isinstance(samples, ImageFiles), "only images are fetched"
    if resized_crop is not None:
        return _decoded(Decoder(samples, spec, seed, resized_crop), workers)
    if (pack := packed.rows_of(samples.paths, spec)) is not None:
        return _from_pack(*pack)
    decoded = _decoded(Decoder(samples, spec), workers)
    if len(samples) * spec.channels * spec.height * spec.width > KEPT_BYTES:
        return decoded
    if samples not in _kept or _kept[samples].spec != spec:
        _kept[samples] = _Kept(samples, spec)
    kept = _kept[samples]
    return _from_memory(kept.samples, device) if kept.there.all() else _keeping(kept, decoded)


def _from_memory(samples: MemoryImages, device: torch.device) -> Fetch:
    held = _on_device(samples, device)

    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        for indices in shares:
            yield held.index_select(0, torch.from_numpy(indices % len(held)).to(device))

    return fetch


_held: WeakKeyDictionary[MemoryImages, Tensor] = WeakKeyDictionary()


def _on_device(samples: MemoryImages, device: torch.device) -> Tensor:
    """The split as one tensor on the device, moved there once a split and not once an epoch."""
    if device.type == "cpu":
        return torch.from_numpy(samples.images)
    if samples not in _held or _held[samples].device != device:
        _held[samples] = torch.from_numpy(samples.images).to(device)
    return _held[samples]


def _from_pack(pixels: Pixels, rows: Indices) -> Fetch:
    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        for indices in shares:
            yield torch.from_numpy(pixels[rows[indices % len(rows)]])

    return fetch


class _Kept:
    """The images of a split that were decoded so far."""

    def __init__(self, samples: ImageFiles, spec: ImageSpec) -> None:
        pixels = np.empty((len(samples), spec.channels, spec.height, spec.width), np.uint8)
        self.spec = spec
        self.samples = MemoryImages(pixels, samples.targets)
        self.there = np.zeros(len(samples), dtype=bool)


_kept: WeakKeyDictionary[ImageFiles, _Kept] = WeakKeyDictionary()


def _keeping(kept: _Kept, decoded: Fetch) -> Fetch:
    """Decode what is not there yet, and keep it."""

    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        shares = [indices % len(kept.there) for indices in shares]
        lacking, there = [], kept.there.copy()
        for indices in shares:  # a balanced sampler draws samples several times
            absent = indices[~there[indices]]
            lacking.append(absent[np.sort(np.unique(absent, return_index=True)[1])])
            there[lacking[-1]] = True
        new = decoded([indices for indices in lacking if len(indices)], epoch)
        for indices, lack in zip(shares, lacking, strict=True):
            if len(lack):
                kept.samples.images[lack] = next(new).numpy()
                kept.there[lack] = True
            yield torch.from_numpy(kept.samples.images[indices])

    return fetch


class Decoder(Dataset[Tensor | DlkitError]):
    """Batches of image files as uint8 tensors (N, C, H, W); one is asked for by (epoch, indices).

    An index may be a draw of dlkit.data.sampling.

    A bad file comes back as the error, not raised: a loader process would add its traceback.
    """

    def __init__(self, samples: ImageFiles, spec: ImageSpec, seed: int = 0, resized_crop: Area | None = None) -> None:
        self.sources = samples.paths
        self.spec = spec
        self.seed = seed
        self.resized_crop = resized_crop
        self.draft = None if resized_crop is None else resize_crop.crop_draft(spec, resized_crop)
        self.quick = any(map(_named_jpeg, samples.paths)) and jpeg.agrees()  # asked before there are workers
        self.packed = all(isinstance(source, packed.PackedImage) for source in samples.paths)

    def __getitem__(self, item: tuple[int, Indices]) -> Tensor | DlkitError:
        epoch, indices = item
        shape = (len(indices), self.spec.channels, self.spec.height, self.spec.width)
        pixels = torch.from_numpy(np.empty(shape, np.uint8))  # numpy's memory, as in batches.map_chunks
        try:
            for place, index in enumerate(indices.tolist()):
                pixels[place] = self.image(epoch, index)
        except DlkitError as error:
            return error
        return pixels

    def nbytes(self, item: tuple[int, Indices]) -> int:
        """Bytes of a batch."""
        return len(item[1]) * self.spec.channels * self.spec.height * self.spec.width

    def describe(self, item: tuple[int, Indices]) -> str:
        """A batch in words: x/1.png and 31 more."""
        first, *more = item[1].tolist()
        return str(self.sources[first % len(self.sources)]) + (f" and {len(more)} more" if more else "")

    def image(self, epoch: int, index: int) -> Tensor:
        """(C, H, W) uint8."""
        source = self.sources[index % len(self.sources)]
        if self.resized_crop is None:
            whole = self._plain(source) if self.quick else None
            return torch.from_numpy(image_files.load(source, self.spec)) if whole is None else whole
        numbers = rng.numbers(self.seed, epoch, index)
        if isinstance(source, packed.PackedImage) and source.part.spec.channels == self.spec.channels:
            return _random_part(torch.from_numpy(source.part.image(source.row)), self.spec, self.resized_crop, numbers)
        if self.quick and (whole := self._plain(source)) is not None:
            return _random_part(whole, self.spec, self.resized_crop, numbers)
        limit = self.spec.max_pixels
        image = image_files.decode(source, self.spec.channels, draft=self.draft, max_pixels=limit)
        return torch.from_numpy(resize_crop.random_resized_crop(image, self.spec, self.resized_crop, numbers))

    def _plain(self, source: ImageSource) -> Tensor | None:
        """(C, H, W) of a plain JPEG, if it has the network's size, or is cropped and too small for a draft."""
        if not _named_jpeg(source):
            return None
        content = image_files.read(source)
        size = jpeg.plain_size(content, self.spec.channels)
        if size is None or max(size) > image_files.MAX_SIDE or size[0] * size[1] > image_files.MAX_PIXELS:
            return None
        fits = self.spec.is_prepared(*size) if self.draft is None else min(size) < 2 * max(self.draft)
        return jpeg.decode(content, self.spec.channels) if fits else None


def _named_jpeg(source: ImageSource) -> bool:
    return not isinstance(source, packed.PackedImage) and str(source).lower().endswith((".jpg", ".jpeg"))


def _random_part(pixels: Tensor, spec: ImageSpec, area: Area, numbers: Iterator[float]) -> Tensor:
    """framing.random_resized_crop of what is decoded already (C, h, w), by torch: quicker, and the same to a level.

    Quickest where its memory is (h, w, C), which torch must be shown: of one image alone it takes any for (C, h, w).
    """
    left, top, right, bottom = resize_crop.random_box(pixels.shape[2], pixels.shape[1], area, numbers)
    part = pixels.permute(1, 2, 0)[None, top:bottom, left:right].permute(0, 3, 1, 2)
    size = (spec.height, spec.width)
    return functional.interpolate(part, size, mode=spec.interpolation, antialias=True)[0]


def _decoded(decoder: Decoder, workers: int) -> Fetch:
    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        items = [(epoch, indices) for indices in shares]
        yield from (in_threads if decoder.packed and workers else in_workers)(decoder, items, workers)

    return fetch
