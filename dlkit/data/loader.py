"""From the samples of a split to batches on the device: in memory where they fit, else decoded in worker processes.

The order of an epoch is permutation(seed, epoch); what happens to a sample is a function of (seed, epoch, its index).
So 0, 1 or 4 workers, one rank or two, and a resume in mid-epoch give the same batches.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dlkit.data import augment as changes
from dlkit.data import images as image_files
from dlkit.data import randomness, structured
from dlkit.data.batches import Batch, normalize, standardize
from dlkit.data.ragged import taken
from dlkit.data.samples import ImageFiles, MemoryImages, Samples, SequenceSamples, Splits, TreeSamples
from dlkit.errors import DataError, DlkitError, WorkerLostError
from dlkit.recipe import Augment
from dlkit.specs import ImageSpec, Spec

Indices = npt.NDArray[np.int64]
Fetch = Callable[[Sequence[Indices], int], Iterator[Tensor]]  # index lists, epoch → uint8 images (N, C, H, W), in order


@dataclass(frozen=True)
class TrainingData:
    """Batches of a training split, an epoch at a time, forever the same for the same seed."""

    samples: Samples
    spec: Spec
    augment: Augment
    batch_size: int  # over all ranks
    seed: int
    device: torch.device
    workers: int = 0
    rank: int = 0
    world_size: int = 1
    channels_last: bool = False

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of epoch `epoch` (from 0) from the one numbered `first` on; of each, this rank's share."""
        order = self.order(epoch)
        starts = range(first * self.batch_size, len(order), self.batch_size)
        whole = [order[start : start + self.batch_size] for start in starts]
        shares = [indices[self.rank :: self.world_size] for indices in whole]
        if isinstance(self.samples, SequenceSamples | TreeSamples):
            assert not isinstance(self.spec, ImageSpec)
            yield from structured.batches(self.samples, self.spec, whole, shares, self.device, asked="labelled")
            return
        assert isinstance(self.spec, ImageSpec)
        fetch = fetcher(self.samples, self.spec, self.device, self.workers, self.seed, self.augment.resized_crop)
        targets = torch.from_numpy(self.samples.targets)
        for batch, indices, images in zip(whole, shares, fetch(shares, epoch), strict=True):
            images = self.changed(images.to(self.device, non_blocking=True), indices, epoch)
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            places = torch.from_numpy(indices)
            yield Batch(images, targets[places].to(self.device, non_blocking=True), places, total=len(batch))

    def order(self, epoch: int) -> Indices:
        """The samples in the order of epoch `epoch`; those of different sizes with their like."""
        order = randomness.permutation(self.seed, epoch, len(self.samples))
        if isinstance(self.samples, SequenceSamples | TreeSamples):
            return structured.bucketed(order, self.samples.sizes, self.batch_size, self.seed, epoch)
        return order

    def changed(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        """Augment and normalise uint8 images (N, C, H, W)."""
        assert isinstance(self.spec, ImageSpec)

        def draw(name: str) -> Tensor:
            return torch.from_numpy(randomness.uniform(self.seed, epoch, indices, name)).float().to(images.device)

        if self.augment.policy != "none":
            seeds = [randomness.fold(self.seed, epoch, int(index)) % 2**63 for index in indices]
            images = changes.apply_policy(images, self.augment.policy, seeds)
        changed = changes.change_pixels(images.float().div_(255), self.augment, draw)
        normalised = standardize(changed, self.spec)
        return changes.erase(normalised, self.augment.erasing, draw) if self.augment.erasing else normalised


def batches_in_order(
    samples: Samples,
    spec: Spec,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    *,
    rank: int = 0,
    world_size: int = 1,
    channels_last: bool = False,
) -> Iterator[Batch]:
    """Every sample once, in order, as it is: what validation, eval and explanations read."""
    places = np.arange(len(samples), dtype=np.int64)[rank::world_size]
    shares = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    if isinstance(samples, SequenceSamples | TreeSamples):
        assert not isinstance(spec, ImageSpec)
        yield from structured.batches(samples, spec, shares, shares, device)
        return
    assert isinstance(spec, ImageSpec)
    targets = torch.from_numpy(samples.targets)
    for indices, images in zip(shares, fetcher(samples, spec, device, workers)(shares, 0), strict=True):
        normalised = normalize(images.to(device, non_blocking=True), spec)
        if channels_last:
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        chosen = torch.from_numpy(indices)
        yield Batch(normalised, targets[chosen].to(device), chosen, total=len(indices))


def split(splits: Splits, validation: float, seed: int) -> dict[str, Samples]:
    """The splits by name. Where the data set has no validation split, a fraction of each class of train becomes it."""
    found: dict[str, Samples] = {"train": splits.train}
    if splits.validation is not None:
        found["validation"] = splits.validation
    elif validation > 0:
        kinds = splits.train.targets if splits.spec.classes else np.zeros(len(splits.train), np.int64)
        held_out = held_out_places(kinds, validation, seed)
        found["train"] = take(splits.train, np.flatnonzero(~held_out))
        found["validation"] = take(splits.train, np.flatnonzero(held_out))
    if splits.test is not None:
        found["test"] = splits.test
    for name, samples in found.items():
        if len(samples) == 0:
            raise DataError(f"the {name} split is empty; change data.validation (now {validation}).")
    return found


def held_out_places(targets: Indices, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which samples the validation split takes: the fraction of the whole, spread evenly over the classes.

    The classes are cut one after another, each so that the total so far is right to the nearest sample. Of a class of
    two or more both sides get at least one.
    """
    chosen = np.zeros(len(targets), dtype=bool)
    seen = taken = 0
    for target in np.unique(targets):
        places = np.flatnonzero(targets == target)
        seen += len(places)
        count = min(max(round(seen * fraction) - taken, 1), len(places) - 1)
        taken += count
        order = randomness.permutation(seed, int(target), len(places))
        chosen[places[order[:count]]] = True
    return chosen


def take(samples: Samples, places: npt.NDArray[np.int64]) -> Samples:
    """The samples at these places, in this order."""
    if isinstance(samples, MemoryImages):
        return MemoryImages(samples.images[places], samples.targets[places])
    if isinstance(samples, SequenceSamples | TreeSamples):
        return taken(samples, places)
    return ImageFiles([samples.paths[place] for place in places], samples.targets[places])


def fetcher(
    samples: Samples,
    spec: ImageSpec,
    device: torch.device,
    workers: int,
    seed: int = 0,
    resized_crop: tuple[float, float] | None = None,
) -> Fetch:
    """How uint8 images of these samples are had."""
    if isinstance(samples, MemoryImages):
        return _memory_fetcher(samples, device)
    assert isinstance(samples, ImageFiles), "only images are fetched"
    return _file_fetcher(FileImages(samples.paths, spec, seed, resized_crop), workers)


def _memory_fetcher(samples: MemoryImages, device: torch.device) -> Fetch:
    held = _on_device(samples, device)

    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        for indices in shares:
            yield held[torch.from_numpy(indices).to(device)]

    return fetch


_held: dict[tuple[int, str], tuple[MemoryImages, Tensor]] = {}


def _on_device(samples: MemoryImages, device: torch.device) -> Tensor:
    """The split as one tensor on the device, moved there once a split and not once an epoch."""
    if device.type == "cpu":
        return torch.from_numpy(samples.images)
    key = (id(samples), str(device))
    if key not in _held:  # the samples are kept with it, so that the id stays theirs
        _held[key] = (samples, torch.from_numpy(samples.images).to(device))
    return _held[key][1]


class FileImages(Dataset[Tensor | DlkitError]):
    """Image files as uint8 tensors (C, H, W). An item is asked for by (epoch, index).

    A bad file comes back as the error, not raised: a loader process would add its traceback.
    """

    def __init__(
        self, paths: Sequence[Path], spec: ImageSpec, seed: int, resized_crop: tuple[float, float] | None
    ) -> None:
        self.paths = paths
        self.spec = spec
        self.seed = seed
        self.resized_crop = resized_crop

    def __getitem__(self, item: tuple[int, int]) -> Tensor | DlkitError:
        epoch, index = item
        try:
            return torch.from_numpy(self.decoded(epoch, index))
        except DlkitError as error:
            return error

    def decoded(self, epoch: int, index: int) -> npt.NDArray[np.uint8]:
        if self.resized_crop is None:
            return image_files.load(self.paths[index], self.spec)
        image = image_files.decode(self.paths[index], self.spec.channels)
        generator = randomness.generator(self.seed, epoch, index)
        return image_files.random_resized_crop(image, self.spec, self.resized_crop, generator)


def _file_fetcher(dataset: FileImages, workers: int) -> Fetch:
    def fetch(shares: Sequence[Indices], epoch: int) -> Iterator[Tensor]:
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=[[(epoch, int(index)) for index in indices] for indices in shares],
            num_workers=min(workers, len(shares)),
            collate_fn=_stacked,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # else iter() would draw from the global stream
            timeout=0,
        )
        try:
            for images in _started(loader):
                if isinstance(images, DlkitError):
                    raise images
                yield cast(Tensor, images)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise WorkerLostError(
                f"a loader process died: {reason} Try --workers 0, or give /dev/shm more room; then --resume."
            ) from error

    return fetch


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches, without its SIGCHLD handler.

    That raises wherever the trainer stands when a worker dies, in the midst of a step too. Without it the fetch finds
    the worker gone, within 5 s, and the last step is whole.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if main else None
    batches = iter(loader)
    if main:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return batches


def _stacked(items: list[Tensor | DlkitError]) -> Tensor | DlkitError:
    for item in items:
        if isinstance(item, DlkitError):
            return item
    return torch.stack(cast(list[Tensor], items))


def _start_worker(worker: int) -> None:
    # Ctrl-C and a SIGTERM to the group are for the trainer, which saves first; it ends its workers itself.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
