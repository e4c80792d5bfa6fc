"""Batches of sequences and trees: gathered from arrays in memory as they are needed, with no worker process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from dlkit.data import rng
from dlkit.data.batches import Batch
from dlkit.data.splits import SequenceSamples, TreeSamples
from dlkit.data.text import padding, tree_batches
from dlkit.data.text.ragged import shortened, token_lookup
from dlkit.specs import SequenceSpec, TreeSpec

POOL = 50  # batches among which samples are sorted by length

Indices = npt.NDArray[np.int64]


def batches(
    samples: SequenceSamples | TreeSamples,
    spec: SequenceSpec | TreeSpec,
    whole: Sequence[Indices],
    shares: Sequence[Indices],
    device: torch.device,
    asked: str = "roots",
) -> Iterator[Batch]:
    """A batch for each of the shares; `whole` are the batches over all ranks.

    Of trees the answers counted are nodes, the roots alone or all that are "labelled": targets and indices have one row
    for each, and total counts them over all ranks.
    """
    if isinstance(samples, SequenceSamples):
        assert isinstance(spec, SequenceSpec)
        yield from _sequences(samples, spec, whole, shares, device)
        return
    lookup = token_lookup(samples.lexicon, spec.words)
    labelled = np.add.reduceat(samples.labels >= 0, samples.starts[:-1]) if asked == "labelled" else None
    for batch, indices in zip(whole, shares, strict=True):
        inputs, labels = tree_batches.gathered(samples, indices, lookup, asked)
        rows = indices[inputs.tree[inputs.asked].numpy()]
        total = len(batch) if labelled is None else int(labelled[batch].sum())
        targets = torch.from_numpy(labels)
        yield Batch(inputs.to(device), targets.to(device, non_blocking=True), torch.from_numpy(rows), total)


def _sequences(
    samples: SequenceSamples,
    spec: SequenceSpec,
    whole: Sequence[Indices],
    shares: Sequence[Indices],
    device: torch.device,
) -> Iterator[Batch]:
    lookup, samples = token_lookup(samples.lexicon, spec.words), shortened(samples, spec.longest)
    targets = torch.from_numpy(samples.targets)
    if not spec.classes:
        targets = targets[:, None]  # (N, 1) numbers, as the one output is (N, 1)
    for batch, indices in zip(whole, shares, strict=True):
        inputs = padding.gathered(samples, indices, lookup).to(device)
        places = torch.from_numpy(indices)
        yield Batch(inputs, targets[places].to(device, non_blocking=True), places, len(batch))


def bucketed(order: Indices, sizes: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> Indices:
    """The order with samples of like size in one batch, so that little is padding; the batches in random order.

    Samples are sorted among the next POOL batches' worth only, so that an epoch's batches are not the last one's.
    """
    pools = [order[start : start + POOL * batch_size] for start in range(0, len(order), POOL * batch_size)]
    by_size = np.concatenate([pool[np.argsort(sizes[pool], kind="stable")] for pool in pools])
    full = len(order) // batch_size
    mixed = by_size[: full * batch_size].reshape(full, batch_size)
    mixed = mixed[rng.permutation(rng.fold(seed, POOL), epoch, full)]
    return np.concatenate([mixed.reshape(-1), by_size[full * batch_size :]])
