"""Attention rollout: the contribution of each patch, or word, to the output of a transformer.

Abnar and Zuidema, "Quantifying attention flow in transformers", 2020 (2005.00928), section 3:

    rollout_l = (½ A_l + ½ I) · rollout_{l−1}, A_l the mean over the heads of layer l's attention

The map is the class token's row, upsampled to the image; for text it is the mean of the words' rows, weighted as the
network's pooling weights its steps (max pooling like the mean). It shows where the network attends, not for which
class: it is the same for every class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.explanation.methods._layers import upsample_evenly
from dlkit.explanation.methods._word_vectors import WordVectorModel
from dlkit.layers.attention import SelfAttention, record_attention
from dlkit.layers.pooling import AttentionPooling, LastStep

TAKES = ("images", "sequences")
CLASS_AGNOSTIC = True


def explain(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    if isinstance(model, WordVectorModel):
        return _explain_text(model, images)
    grid: tuple[int, int] | None = getattr(model, "grid", None)
    with torch.no_grad(), record_attention(model) as layers:
        if grid is None or not layers:
            raise UsageError("attention_rollout is for vision transformers, which have patches. Use grad_cam.")
        model(images)
        rollout = _rollout(layers)
    maps = rollout[:, 0, 1:].reshape(len(images), *grid)  # (N, rows, columns)
    return _crop_to_image(maps, model, images)


def _explain_text(model: WordVectorModel, vectors: Tensor) -> Tensor:  # (N, D, 1, T) -> (N, 1, T)
    with torch.no_grad(), record_attention(model) as layers, _record_pooling(model.network) as pool:
        if not layers:
            raise UsageError("attention_rollout is for transformers: this network has no self-attention.")
        model(vectors)
        rollout = _rollout(layers)
        return torch.einsum("nt,ntu->nu", _pooling_weights(pool, rollout), rollout)[:, None]


@contextmanager
def _record_pooling(network: nn.Module) -> Iterator[nn.Module | None]:
    """The network's pooling; within this context attention pooling records the weights of its last call."""
    pool = getattr(network, "pool", None)
    if isinstance(pool, AttentionPooling):
        pool.record_weights = True
    try:
        yield pool
    finally:
        if isinstance(pool, AttentionPooling):
            pool.record_weights, pool.weights = False, None


def _pooling_weights(pool: nn.Module | None, rollout: Tensor) -> Tensor:
    """The weight of each step of the last layer in the output, (N, T)."""
    if isinstance(pool, AttentionPooling):
        assert pool.weights is not None
        return pool.weights
    weights = rollout.new_zeros(rollout.shape[:2])
    if isinstance(pool, LastStep):
        weights[:, -1] = 1
        return weights
    return weights + 1 / rollout.shape[1]


def _rollout(layers: list[SelfAttention]) -> Tensor:
    """(N, T, T): a row for each position of the last layer, a column for each input position."""
    rollout: Tensor | None = None
    for layer in layers:
        assert layer.weights is not None
        mean = layer.weights.mean(1)  # (N, T, T)
        step = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        rollout = step if rollout is None else step @ rollout
    assert rollout is not None
    return rollout


def _crop_to_image(maps: Tensor, model: nn.Module, images: Tensor) -> Tensor:
    """Maps upsampled to the patches' pixels, without the border that the model pads around the image."""
    border: tuple[int, int, int, int] = getattr(model, "border", (0, 0, 0, 0))
    left, right, top, bottom = border
    H, W = images.shape[2:]
    return upsample_evenly(maps, top + H + bottom, left + W + right)[:, top : top + H, left : left + W]
