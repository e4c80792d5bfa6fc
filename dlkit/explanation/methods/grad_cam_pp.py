"""Grad-CAM++: Grad-CAM with a weight for each cell of a map, so that several objects of a class are visible.

Chattopadhyay, Sarkar, Howlader and Balasubramanian, "Grad-CAM++: generalized gradient-based visual explanations for
deep convolutional networks", 2018 (1710.11063), equations 10 and 19, for the score exp(logit), g = ∂ logit / ∂ map_k:

    α = g² / (2 g² + g³ · sum over space of map_k)
    weight_k = sum over space of α · ReLU(g)
    map = ReLU(Σ_k weight_k · map_k), upsampled to the image
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explanation.methods._layers import locate_cells, maps_and_gradients, select_layer, upsample


def explain(model: nn.Module, images: Tensor, targets: Tensor, *, layer: str | None = None) -> Tensor:
    path = select_layer(model, images, layer)
    maps, gradients = maps_and_gradients(model, images, targets, path)
    denominator = 2 * gradients**2 + gradients**3 * maps.sum((2, 3), keepdim=True)
    alpha = torch.where(denominator != 0, gradients**2 / denominator.where(denominator != 0, 1), 0)
    weights = (alpha * gradients.relu()).sum((2, 3), keepdim=True)  # (N, C, 1, 1)
    return upsample((weights * maps).sum(1).relu(), *locate_cells(model, images, path), *images.shape[2:])
