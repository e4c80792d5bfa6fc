"""Grad-CAM: the last feature maps, each weighed by how much the class gains by it.

Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, "Grad-CAM: visual explanations from deep networks via
gradient-based localization", 2017 (1610.02391), equations 1 and 2:

    weight_k = mean over space of ∂ logit / ∂ map_k
    map = ReLU(Σ_k weight_k · map_k), enlarged to the image

Differs from the paper: maps coarser than 7×7, as networks have them for small images, give way to the last finer ones
before them; and each cell is drawn as a Gaussian where the network looks, where the paper has an even grid and straight
lines between its cells.
"""

from __future__ import annotations

from torch import Tensor, nn

from dlkit.explanation.methods._layers import cell_places, chosen_layer, maps_and_gradients, placed


def explain(model: nn.Module, images: Tensor, targets: Tensor, *, layer: str | None = None) -> Tensor:
    path = chosen_layer(model, images, layer)
    maps, gradients = maps_and_gradients(model, images, targets, path)
    weights = gradients.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
    return placed((weights * maps).sum(1).relu(), *cell_places(model, images, path), *images.shape[2:])
