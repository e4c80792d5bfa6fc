"""Grad-CAM++: Grad-CAM whose weights count each place of a map for itself, so that several objects of a class show.

Chattopadhyay, Sarkar, Howlader and Balasubramanian, "Grad-CAM++: generalized gradient-based visual explanations for
deep convolutional networks", 2018 (1710.11063), equations 10 and 19, with g = ∂ logit / ∂ map_k, of a score exp(logit):

    α = g² / (2 g² + g³ · sum over space of map_k)
    weight_k = sum over space of α · ReLU(g)
    map = ReLU(Σ_k weight_k · map_k), enlarged to the image
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.explanation.methods._layers import cell_places, chosen_layer, maps_and_gradients, placed


def explain(model: nn.Module, images: Tensor, targets: Tensor, *, layer: str | None = None) -> Tensor:
    path = chosen_layer(model, images, layer)
    maps, gradients = maps_and_gradients(model, images, targets, path)
    below = 2 * gradients**2 + gradients**3 * maps.sum((2, 3), keepdim=True)
    shares = torch.where(below != 0, gradients**2 / below.where(below != 0, 1), 0)
    weights = (shares * gradients.relu()).sum((2, 3), keepdim=True)  # (N, C, 1, 1)
    return placed((weights * maps).sum(1).relu(), *cell_places(model, images, path), *images.shape[2:])
