"""Sources of the uint8 images of a split: memory, a pack, or worker processes that decode files.

Caches decoded images if the split is small and its pixels do not vary, so that only the first epoch over a folder of
small images decodes.
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
Area = tuple[float, float]  # minimum and maximum fraction of the image in a random crop

CACHE_BYTES = 1 << 29  # decoded images of one split


def fetcher(
    samples: Samples,
    spec: ImageSpec,
    device: torch.device,
    workers: int,
    seed: int = 0,
    resized_crop: Area | None = None,
) -> Fetch:
    """A function that fetches uint8 images of these samples."""
    if isinstance(samples, MemoryImages):
        return _from_memory(samples, device)
    assert isinstance(samples, ImageFiles), "only images are fetched"
    if resized_crop is not None:
        return _decode(Decoder(samples, spec, seed, resized_crop), workers)
    if (pack := packed.rows_of(samples.paths, spec)) is not None:
        return _from_pack(*pack)
    decode = _decode(Decoder(samples, spec), workers)
    if len(samples) * spec.channels * spec.height * spec.width > CACHE_BYTES:
        return decode
    if samples not in _decoded or _decoded[samples].spec != spec:
        _decoded[samples] = _DecodedImages(samples, spec)
    cache = _decoded[samples]
    return _from_memory(cache.samples, device) if cache.is_decoded.all() else _cached(cache, decode)


def _from_memory(samples: MemoryImages, device: torch.device) -> Fetch:
    images = _on_device(samples, device)

    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        for indices in shares:
            yield images.index_select(0, torch.from_numpy(indices % len(images)).to(device))

    return fetch


_device_images: WeakKeyDictionary[MemoryImages, Tensor] = WeakKeyDictionary()


def _on_device(samples: MemoryImages, device: torch.device) -> Tensor:
    """The split as one tensor on the device, copied once per split, not per epoch."""
    if device.type == "cpu":
        return torch.from_numpy(samples.images)
    if samples not in _device_images or _device_images[samples].device != device:
        _device_images[samples] = torch.from_numpy(samples.images).to(device)
    return _device_images[samples]


def _from_pack(pixels: Pixels, rows: Indices) -> Fetch:
    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        for indices in shares:
            yield torch.from_numpy(pixels[rows[indices % len(rows)]])

    return fetch


class _DecodedImages:
    """The images of a split decoded so far."""

    def __init__(self, samples: ImageFiles, spec: ImageSpec) -> None:
        pixels = np.empty((len(samples), spec.channels, spec.height, spec.width), np.uint8)
        self.spec = spec
        self.samples = MemoryImages(pixels, samples.targets)
        self.is_decoded = np.zeros(len(samples), dtype=bool)


_decoded: WeakKeyDictionary[ImageFiles, _DecodedImages] = WeakKeyDictionary()


def _cached(cache: _DecodedImages, decode: Fetch) -> Fetch:
    """Decode missing images and cache them."""

    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        shares = [indices % len(cache.is_decoded) for indices in shares]
        missing, is_decoded = [], cache.is_decoded.copy()
        for indices in shares:  # a balanced sampler draws samples several times
            absent = indices[~is_decoded[indices]]
            missing.append(absent[np.sort(np.unique(absent, return_index=True)[1])])
            is_decoded[missing[-1]] = True
        images = decode([indices for indices in missing if len(indices)], epoch)
        for indices, absent in zip(shares, missing, strict=True):
            if len(absent):
                cache.samples.images[absent] = next(images).numpy()
                cache.is_decoded[absent] = True
            yield torch.from_numpy(cache.samples.images[indices])

    return fetch


class Decoder(Dataset[Tensor | DlkitError]):
    """Batches of image files as uint8 tensors (N, C, H, W), indexed by (epoch, indices).

    An index may be a draw of dlkit.data.sampling.

    Returns the error of an invalid file rather than raising it: a loader process would add its traceback.
    """

    def __init__(self, samples: ImageFiles, spec: ImageSpec, seed: int = 0, resized_crop: Area | None = None) -> None:
        self.sources = samples.paths
        self.spec = spec
        self.seed = seed
        self.resized_crop = resized_crop
        self.draft = None if resized_crop is None else resize_crop.crop_draft(spec, resized_crop)
        self.use_torchvision = any(map(_named_jpeg, samples.paths)) and jpeg.agrees()  # checked before workers start
        self.packed = all(isinstance(source, packed.PackedImage) for source in samples.paths)

    def __getitem__(self, item: tuple[int, Indices]) -> Tensor | DlkitError:
        epoch, indices = item
        shape = (len(indices), self.spec.channels, self.spec.height, self.spec.width)
        pixels = torch.from_numpy(np.empty(shape, np.uint8))  # numpy's memory, as in batches.map_chunks
        try:
            for row, index in enumerate(indices.tolist()):
                pixels[row] = self.image(epoch, index)
        except DlkitError as error:
            return error
        return pixels

    def nbytes(self, item: tuple[int, Indices]) -> int:
        """The size of a batch in bytes."""
        return len(item[1]) * self.spec.channels * self.spec.height * self.spec.width

    def describe(self, item: tuple[int, Indices]) -> str:
        """A batch in words: x/1.png and 31 more."""
        first, *more = item[1].tolist()
        return str(self.sources[first % len(self.sources)]) + (f" and {len(more)} more" if more else "")

    def image(self, epoch: int, index: int) -> Tensor:
        """(C, H, W) uint8."""
        source = self.sources[index % len(self.sources)]
        if self.resized_crop is None:
            plain = self._decode_plain(source) if self.use_torchvision else None
            return torch.from_numpy(image_files.load(source, self.spec)) if plain is None else plain
        numbers = rng.numbers(self.seed, epoch, index)
        if isinstance(source, packed.PackedImage) and source.part.spec.channels == self.spec.channels:
            return _random_crop(torch.from_numpy(source.part.image(source.row)), self.spec, self.resized_crop, numbers)
        if self.use_torchvision and (pixels := self._decode_plain(source)) is not None:
            return _random_crop(pixels, self.spec, self.resized_crop, numbers)
        limit = self.spec.max_pixels
        image = image_files.decode(source, self.spec.channels, draft=self.draft, max_pixels=limit)
        return torch.from_numpy(resize_crop.random_resized_crop(image, self.spec, self.resized_crop, numbers))

    def _decode_plain(self, source: ImageSource) -> Tensor | None:
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


def _random_crop(pixels: Tensor, spec: ImageSpec, area: Area, numbers: Iterator[float]) -> Tensor:
    """resize_crop.random_resized_crop of decoded pixels (C, h, w), by torch: faster, equal up to one gray level.

    Fastest with memory (h, w, C), which takes a batch dimension for torch to recognize.
    """
    left, top, right, bottom = resize_crop.random_box(pixels.shape[2], pixels.shape[1], area, numbers)
    crop = pixels.permute(1, 2, 0)[None, top:bottom, left:right].permute(0, 3, 1, 2)
    size = (spec.height, spec.width)
    return functional.interpolate(crop, size, mode=spec.interpolation, antialias=True)[0]


def _decode(decoder: Decoder, workers: int) -> Fetch:
    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        items = [(epoch, indices) for indices in shares]
        yield from (in_threads if decoder.packed and workers else in_workers)(decoder, items, workers)

    return fetch
