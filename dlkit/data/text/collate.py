"""Batches of sequences and trees: collated from arrays in memory, without worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from dlkit.data import rng
from dlkit.data.batches import Batch
from dlkit.data.splits import SequenceSamples, TreeSamples
from dlkit.data.text import padding, tree_batches
from dlkit.data.text.ragged import token_lookup, truncate
from dlkit.specs import SequenceSpec, TreeSpec

POOL = 50  # batches whose samples are sorted by length together

Indices = npt.NDArray[np.int64]


def batches(
    samples: SequenceSamples | TreeSamples,
    spec: SequenceSpec | TreeSpec,
    global_batches: Sequence[Indices],
    shares: Sequence[Indices],
    device: torch.device,
    outputs: str = "roots",
) -> Iterator[Batch]:
    """One batch per share of this rank; `global_batches` are the batches over all ranks.

    A batch of trees counts nodes, its "roots" or all "labelled" ones: targets and indices have one row per node, and
    total counts the nodes over all ranks.
    """
    if isinstance(samples, SequenceSamples):
        assert isinstance(spec, SequenceSpec)
        yield from _sequence_batches(samples, spec, global_batches, shares, device)
        return
    lookup = token_lookup(samples.vocabulary, spec.words)
    labelled = np.add.reduceat(samples.labels >= 0, samples.starts[:-1]) if outputs == "labelled" else None
    for batch, indices in zip(global_batches, shares, strict=True):
        inputs, labels = tree_batches.collate_trees(samples, indices, lookup, outputs)
        rows = indices[inputs.tree[inputs.output_nodes].numpy()]
        total = len(batch) if labelled is None else int(labelled[batch].sum())
        targets = torch.from_numpy(labels)
        yield Batch(inputs.to(device), targets.to(device, non_blocking=True), torch.from_numpy(rows), total)


def _sequence_batches(
    samples: SequenceSamples,
    spec: SequenceSpec,
    global_batches: Sequence[Indices],
    shares: Sequence[Indices],
    device: torch.device,
) -> Iterator[Batch]:
    lookup, samples = token_lookup(samples.vocabulary, spec.words), truncate(samples, spec.longest)
    targets = torch.from_numpy(samples.targets)
    if not spec.classes:
        targets = targets[:, None]  # (N, 1) numbers, as the one output is (N, 1)
    for batch, indices in zip(global_batches, shares, strict=True):
        inputs = padding.collate_sequences(samples, indices, lookup).to(device)
        index = torch.from_numpy(indices)
        yield Batch(inputs, targets[index].to(device, non_blocking=True), index, len(batch))


def bucket_by_size(order: Indices, sizes: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> Indices:
    """Group samples of similar size into batches, which keeps padding short, and shuffle the batches.

    Sorts within pools of POOL batches, so that the batches of one epoch differ from those of the next.
    """
    pools = [order[start : start + POOL * batch_size] for start in range(0, len(order), POOL * batch_size)]
    by_size = np.concatenate([pool[np.argsort(sizes[pool], kind="stable")] for pool in pools])
    full = len(order) // batch_size
    shuffled = by_size[: full * batch_size].reshape(full, batch_size)
    shuffled = shuffled[rng.permutation(rng.fold(seed, POOL), epoch, full)]
    return np.concatenate([shuffled.reshape(-1), by_size[full * batch_size :]])
