"""Sequences of different lengths as one padded batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit.data.splits import SequenceSamples

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """values (N, T) int64 tokens, or (N, T, D) floats, padded at the end with zeros; lengths (N,) int64 ≥ 1.

    Lengths stay on the CPU, where pack_padded_sequence reads them; `mask` is on the device of the values.
    """

    values: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def mask(self) -> Tensor:
        """(N, T) bool: True for steps, False for padding."""
        steps = torch.arange(self.values.shape[1], device=self.values.device)
        return steps < self.lengths.to(self.values.device, non_blocking=True)[:, None]

    def to(self, device: torch.device) -> Sequences:
        return Sequences(self.values.to(device, non_blocking=True), self.lengths)

    def chunk(self, count: int) -> tuple[Sequences, ...]:
        """At most `count` parts, as Tensor.chunk cuts them."""
        parts = zip(self.values.chunk(count), self.lengths.chunk(count), strict=True)
        return tuple(Sequences(values, lengths) for values, lengths in parts)


def collate_sequences(samples: SequenceSamples, indices: Ints, lookup: Ints) -> Sequences:
    """Collate samples into one batch on the CPU; `lookup` (ragged.token_lookup) maps words of the data set to ids."""
    starts, lengths = samples.starts[indices], np.diff(samples.starts)[indices]
    steps = np.arange(lengths.max())
    real = steps < lengths[:, None]  # (N, T)
    flat = samples.values[(starts[:, None] + steps)[real]]
    padded = np.zeros(real.shape + samples.values.shape[1:], np.int64 if samples.vocabulary else np.float32)
    padded[real] = lookup[flat] if samples.vocabulary else flat
    return Sequences(torch.from_numpy(padded), torch.from_numpy(lengths))
