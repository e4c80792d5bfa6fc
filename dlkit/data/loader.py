"""From the samples of a split to batches on the device.

The order of an epoch is permutation(seed, epoch); what happens to a sample is a function of (seed, epoch, its index).
So 0, 1 or 4 workers, one rank or two, and a resume in mid-epoch give the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit.config.schema import Augment
from dlkit.data import rng, sampling
from dlkit.data.batches import Batch, in_parts, normalized, standardize
from dlkit.data.holdout import holdout_mask
from dlkit.data.images import augment as changes
from dlkit.data.images.sources import Indices, fetcher
from dlkit.data.splits import ImageFiles, MemoryImages, Samples, SequenceSamples, Splits, TreeSamples
from dlkit.data.text import collate
from dlkit.data.text.ragged import take_rows
from dlkit.data.workers import beside_workers
from dlkit.errors import DataError
from dlkit.specs import ImageSpec, Spec


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
    smallest_share: int = 1  # samples of a batch that each rank must have, if this is more than 1
    balanced: bool = False  # each class equally often

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.samples), self.batch_size, self.world_size, self.smallest_share)

    @property
    def left_over(self) -> int:
        """Samples that sit out an epoch, others in each, since they would make too small a batch."""
        return max(len(self.samples) - self.steps_per_epoch * self.batch_size, 0)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of epoch `epoch` (from 0) from the one numbered `first` on; of each, this rank's share."""
        order = self.order(epoch)
        starts = range(first * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size)
        whole = [order[start : start + self.batch_size] for start in starts]
        shares = [indices[self.rank :: self.world_size] for indices in whole]
        if isinstance(self.samples, SequenceSamples | TreeSamples):
            assert not isinstance(self.spec, ImageSpec)
            if self.balanced:
                whole, shares = ([self._samples_of(draws) for draws in batches] for batches in (whole, shares))
            yield from collate.batches(self.samples, self.spec, whole, shares, self.device, outputs="labelled")
            return
        assert isinstance(self.spec, ImageSpec)
        fetch = fetcher(self.samples, self.spec, self.device, self.workers, self.seed, self.augment.resized_crop)
        targets = torch.from_numpy(self.samples.targets)
        for batch, indices, images in zip(whole, shares, fetch(shares, epoch), strict=True):
            with beside_workers():
                images = self.changed(images.to(self.device, non_blocking=True), indices, epoch)
            places = torch.from_numpy(self._samples_of(indices))
            wanted = targets.index_select(0, places).to(self.device, non_blocking=True)
            yield Batch(images, wanted, places, total=len(batch))

    def order(self, epoch: int) -> Indices:
        """The draws of epoch `epoch` in their order; samples of different sizes with their like.

        A draw is a sample's index; with the balanced sampler see dlkit.data.sampling.
        """
        if self.balanced:
            order = sampling.balanced(self.samples.targets, self.seed, epoch)
        else:
            order = rng.permutation(self.seed, epoch, len(self.samples))
        if isinstance(self.samples, SequenceSamples | TreeSamples):
            sizes = self.samples.sizes[self._samples_of(order)]
            places = collate.bucket_by_size(np.arange(len(order)), sizes, self.batch_size, self.seed, epoch)
            return order[places]
        return order

    def _samples_of(self, draws: Indices) -> Indices:
        """The index of the sample of each draw."""
        return draws % len(self.samples) if self.balanced else draws

    def changed(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        """Augment and normalise uint8 images (N, C, H, W)."""
        return in_parts(images, lambda part, places: self._changed(part, indices[places], epoch), self.channels_last)

    def _changed(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        assert isinstance(self.spec, ImageSpec)

        def draw(name: str) -> Tensor:
            return torch.from_numpy(rng.uniform(self.seed, epoch, indices, name)).to(images.device)

        if self.augment.policy != "none":
            seeds = [rng.fold(self.seed, epoch, int(index)) % 2**63 for index in indices]
            images = changes.apply_policy(images, self.augment.policy, seeds)
        images = changes.move_pixels(images, self.augment, draw)
        images = changes.change_pixels(images.float().div_(255), self.augment, draw)
        images = standardize(images, self.spec)
        return changes.erase(images, self.augment.erasing, draw) if self.augment.erasing else images


def steps_per_epoch(samples: int, batch_size: int, world_size: int, smallest_share: int) -> int:
    """Batches of an epoch; the last one may be smaller, if it leaves each rank its smallest share."""
    full, rest = divmod(samples, batch_size)
    return full + (rest > 0 and (smallest_share == 1 or rest >= smallest_share * world_size))


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
        yield from collate.batches(samples, spec, shares, shares, device)
        return
    assert isinstance(spec, ImageSpec)
    targets = torch.from_numpy(samples.targets)
    for indices, images in zip(shares, fetcher(samples, spec, device, workers)(shares, 0), strict=True):
        with beside_workers():
            inputs = normalized(images.to(device, non_blocking=True), spec, channels_last)
        chosen = torch.from_numpy(indices)
        yield Batch(inputs, targets[chosen].to(device), chosen, total=len(indices))


def split(splits: Splits, validation: float, seed: int) -> dict[str, Samples]:
    """The splits by name. Where the data set has no validation split, a fraction of each class of train becomes it.

    Where its samples are in groups, whole groups do.
    """
    found: dict[str, Samples] = {"train": splits.train}
    if splits.validation is not None:
        found["validation"] = splits.validation
    elif validation > 0:
        kinds = splits.train.targets if splits.spec.classes else np.zeros(len(splits.train), np.int64)
        held_out = holdout_mask(kinds, validation, seed, splits.groups)
        found["train"] = take(splits.train, np.flatnonzero(~held_out))
        found["validation"] = take(splits.train, np.flatnonzero(held_out))
    if splits.test is not None:
        found["test"] = splits.test
    for name, samples in found.items():
        if len(samples) == 0:
            raise DataError(f"the {name} split is empty; change data.validation (now {validation}).")
    return found


def take(samples: Samples, places: npt.NDArray[np.int64]) -> Samples:
    """The samples at these places, in this order."""
    if isinstance(samples, MemoryImages):
        return MemoryImages(samples.images[places], samples.targets[places])
    if isinstance(samples, SequenceSamples | TreeSamples):
        return take_rows(samples, places)
    return ImageFiles([samples.paths[place] for place in places], samples.targets[places])
