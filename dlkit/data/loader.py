"""Batches of a split on the device.

The order of an epoch is permutation(seed, epoch), and the augmentation of a sample a function of (seed, epoch, index).
Thus any number of workers or ranks, and a resume in mid-epoch, give the same batches.
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
from dlkit.data.batches import Batch, map_chunks, normalize_batch, standardize
from dlkit.data.holdout import holdout_mask
from dlkit.data.images import augment as augmentation
from dlkit.data.images.sources import Indices, fetcher
from dlkit.data.splits import ImageFiles, MemoryImages, Samples, SequenceSamples, Splits, TreeSamples
from dlkit.data.text import collate
from dlkit.data.text.ragged import take_rows
from dlkit.data.workers import beside_workers
from dlkit.errors import DataError
from dlkit.specs import ImageSpec, Spec


@dataclass(frozen=True)
class TrainingData:
    """Batches of a training split by epoch, a function of the seed."""

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
    smallest_share: int = 1  # minimum number of samples per rank in a batch, if more than 1
    balanced: bool = False  # classes with equal frequency

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.samples), self.batch_size, self.world_size, self.smallest_share)

    @property
    def unused_samples(self) -> int:
        """Samples of an incomplete last batch that is too small; different ones in each epoch."""
        return max(len(self.samples) - self.steps_per_epoch * self.batch_size, 0)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This rank's share of the batches of an epoch (from 0), starting with batch `first`."""
        order = self.order(epoch)
        starts = range(first * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size)
        global_batches = [order[start : start + self.batch_size] for start in starts]
        shares = [indices[self.rank :: self.world_size] for indices in global_batches]
        if isinstance(self.samples, SequenceSamples | TreeSamples):
            assert not isinstance(self.spec, ImageSpec)
            if self.balanced:
                global_batches = [self._samples_of(draws) for draws in global_batches]
                shares = [self._samples_of(draws) for draws in shares]
            yield from collate.batches(self.samples, self.spec, global_batches, shares, self.device, outputs="labelled")
            return
        assert isinstance(self.spec, ImageSpec)
        fetch = fetcher(self.samples, self.spec, self.device, self.workers, self.seed, self.augment.resized_crop)
        targets = torch.from_numpy(self.samples.targets)
        for batch, indices, images in zip(global_batches, shares, fetch(shares, epoch), strict=True):
            with beside_workers():
                images = self.preprocess(images.to(self.device, non_blocking=True), indices, epoch)
            index = torch.from_numpy(self._samples_of(indices))
            labels = targets.index_select(0, index).to(self.device, non_blocking=True)
            yield Batch(images, labels, index, total=len(batch))

    def order(self, epoch: int) -> Indices:
        """The draws of an epoch in order; sequences and trees are bucketed by size.

        A draw is the index of a sample; for the balanced sampler see dlkit.data.sampling.
        """
        if self.balanced:
            order = sampling.balanced(self.samples.targets, self.seed, epoch)
        else:
            order = rng.permutation(self.seed, epoch, len(self.samples))
        if isinstance(self.samples, SequenceSamples | TreeSamples):
            sizes = self.samples.sizes[self._samples_of(order)]
            positions = collate.bucket_by_size(np.arange(len(order)), sizes, self.batch_size, self.seed, epoch)
            return order[positions]
        return order

    def _samples_of(self, draws: Indices) -> Indices:
        """The index of the sample of each draw."""
        return draws % len(self.samples) if self.balanced else draws

    def preprocess(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        """Augment and normalize uint8 images (N, C, H, W)."""
        return map_chunks(images, lambda chunk, rows: self._preprocess(chunk, indices[rows], epoch), self.channels_last)

    def _preprocess(self, images: Tensor, indices: Indices, epoch: int) -> Tensor:
        assert isinstance(self.spec, ImageSpec)

        def draw(name: str) -> Tensor:
            return torch.from_numpy(rng.uniform(self.seed, epoch, indices, name)).to(images.device)

        if self.augment.policy != "none":
            seeds = [rng.fold(self.seed, epoch, int(index)) % 2**63 for index in indices]
            images = augmentation.apply_policy(images, self.augment.policy, seeds)
        images = augmentation.move_pixels(images, self.augment, draw)
        images = augmentation.change_pixels(images.float().div_(255), self.augment, draw)
        images = standardize(images, self.spec)
        return augmentation.erase(images, self.augment.erasing, draw) if self.augment.erasing else images


def steps_per_epoch(samples: int, batch_size: int, world_size: int, smallest_share: int) -> int:
    """Batches of an epoch; an incomplete last batch counts if each rank gets its smallest share."""
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
    """Every sample once, in order, without augmentation: for validation, evaluation and explanations."""
    order = np.arange(len(samples), dtype=np.int64)[rank::world_size]
    shares = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if isinstance(samples, SequenceSamples | TreeSamples):
        assert not isinstance(spec, ImageSpec)
        yield from collate.batches(samples, spec, shares, shares, device)
        return
    assert isinstance(spec, ImageSpec)
    targets = torch.from_numpy(samples.targets)
    for indices, images in zip(shares, fetcher(samples, spec, device, workers)(shares, 0), strict=True):
        with beside_workers():
            inputs = normalize_batch(images.to(device, non_blocking=True), spec, channels_last)
        index = torch.from_numpy(indices)
        yield Batch(inputs, targets[index].to(device), index, total=len(indices))


def split(splits: Splits, validation: float, seed: int) -> dict[str, Samples]:
    """The splits by name. Holds out a fraction of train, stratified by class, if there is no validation split.

    Groups of samples stay together.
    """
    parts: dict[str, Samples] = {"train": splits.train}
    if splits.validation is not None:
        parts["validation"] = splits.validation
    elif validation > 0:
        classes = splits.train.targets if splits.spec.classes else np.zeros(len(splits.train), np.int64)
        holdout = holdout_mask(classes, validation, seed, splits.groups)
        parts["train"] = take(splits.train, np.flatnonzero(~holdout))
        parts["validation"] = take(splits.train, np.flatnonzero(holdout))
    if splits.test is not None:
        parts["test"] = splits.test
    for name, samples in parts.items():
        if len(samples) == 0:
            raise DataError(f"the {name} split is empty. Change data.validation (now {validation}).")
    return parts


def take(samples: Samples, indices: npt.NDArray[np.int64]) -> Samples:
    """The samples at these indices, in this order."""
    if isinstance(samples, MemoryImages):
        return MemoryImages(samples.images[indices], samples.targets[indices])
    if isinstance(samples, SequenceSamples | TreeSamples):
        return take_rows(samples, indices)
    return ImageFiles([samples.paths[index] for index in indices], samples.targets[indices])
