"""Attention rollout: how much of each patch, or word, reaches what a transformer answers from.

Abnar and Zuidema, "Quantifying attention flow in transformers", 2020 (2005.00928), section 3:

    rollout_l = (½ A_l + ½ I) · rollout_{l−1}, A_l the mean over the heads of layer l's attention

The map is the class token's row, enlarged to the image; of text it is the mean of the words' rows, weighed as the
network's pooling weighs its steps (the maximum as the mean). It knows where the network looks and not what for: it is
the same for every class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.explanation.methods._layers import enlarged
from dlkit.explanation.methods._words import Reader
from dlkit.layers.attention import SelfAttention, kept_attention
from dlkit.layers.pooling import AttentionPooling, LastStep

TAKES = ("images", "sequences")
BLIND = True


def explain(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    if isinstance(model, Reader):
        return _of_words(model, images)
    grid: tuple[int, int] | None = getattr(model, "grid", None)
    with torch.no_grad(), kept_attention(model) as layers:
        if grid is None or not layers:
            raise UsageError("attention_rollout is for vision transformers, which look at patches. Take grad_cam.")
        model(images)
        rolled = _rolled(layers)
    maps = rolled[:, 0, 1:].reshape(len(images), *grid)  # (N, rows, columns)
    return _without_border(maps, model, images)


def _of_words(reader: Reader, vectors: Tensor) -> Tensor:  # (N, D, 1, T) -> (N, 1, T)
    with torch.no_grad(), kept_attention(reader) as layers, _kept_pooling(reader.network) as pool:
        if not layers:
            raise UsageError("attention_rollout is for transformers: this network has no self-attention.")
        reader(vectors)
        rolled = _rolled(layers)
        return torch.einsum("nt,ntu->nu", _shares(pool, rolled), rolled)[:, None]


@contextmanager
def _kept_pooling(network: nn.Module) -> Iterator[nn.Module | None]:
    """The network's pooling; within, one by attention keeps the weights of its last call."""
    pool = getattr(network, "pool", None)
    if isinstance(pool, AttentionPooling):
        pool.keep_weights = True
    try:
        yield pool
    finally:
        if isinstance(pool, AttentionPooling):
            pool.keep_weights, pool.weights = False, None


def _shares(pool: nn.Module | None, rolled: Tensor) -> Tensor:
    """What share of the answer is read from each step of the last layer, (N, T)."""
    if isinstance(pool, AttentionPooling):
        assert pool.weights is not None
        return pool.weights
    shares = rolled.new_zeros(rolled.shape[:2])
    if isinstance(pool, LastStep):
        shares[:, -1] = 1
        return shares
    return shares + 1 / rolled.shape[1]


def _rolled(layers: list[SelfAttention]) -> Tensor:
    """(N, T, T): a row for each position of the last layer, a column for each that went in."""
    rolled: Tensor | None = None
    for layer in layers:
        assert layer.weights is not None
        mean = layer.weights.mean(1)  # (N, T, T)
        step = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        rolled = step if rolled is None else step @ rolled
    assert rolled is not None
    return rolled


def _without_border(maps: Tensor, model: nn.Module, images: Tensor) -> Tensor:
    """Enlarged to the patches' pixels, of which the image lies in the middle."""
    border: tuple[int, int, int, int] = getattr(model, "border", (0, 0, 0, 0))
    left, right, top, bottom = border
    H, W = images.shape[2:]
    return enlarged(maps, top + H + bottom, left + W + right)[:, top : top + H, left : left + W]
