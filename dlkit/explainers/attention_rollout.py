"""Attention rollout: how much of each patch reaches a vision transformer's class token.

Abnar and Zuidema, "Quantifying attention flow in transformers", 2020 (2005.00928), section 3:

    rollout_l = (½ A_l + ½ I) · rollout_{l−1}, A_l the mean over the heads of layer l's attention

The map is the class token's row, enlarged to the image. It knows where the network looks and not what for: it is the
same for every class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.explainers._layers import enlarged
from dlkit.nn.attention import kept_attention

BLIND = True


def explain(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    grid: tuple[int, int] | None = getattr(model, "grid", None)
    with torch.no_grad(), kept_attention(model) as layers:
        if grid is None or not layers:
            raise UsageError("attention_rollout is for vision transformers, which look at patches. Take grad_cam.")
        model(images)
        rolled = torch.eye(1 + grid[0] * grid[1], device=images.device)
        for layer in layers:
            assert layer.weights is not None
            mean = layer.weights.mean(1)  # (N, T, T)
            rolled = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2 @ rolled
    maps = rolled[:, 0, 1:].reshape(len(images), *grid)  # (N, rows, columns)
    return _without_border(maps, model, images)


def _without_border(maps: Tensor, model: nn.Module, images: Tensor) -> Tensor:
    """Enlarged to the patches' pixels, of which the image lies in the middle."""
    border: tuple[int, int, int, int] = getattr(model, "border", (0, 0, 0, 0))
    left, right, top, bottom = border
    H, W = images.shape[2:]
    return enlarged(maps, top + H + bottom, left + W + right)[:, top : top + H, left : left + W]
