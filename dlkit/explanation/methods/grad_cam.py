"""Grad-CAM: the last feature maps, each weighted by its mean gradient for the class.

Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, "Grad-CAM: visual explanations from deep networks via
gradient-based localization", 2017 (1610.02391), equations 1 and 2:

    weight_k = mean over space of ∂ logit / ∂ map_k
    map = ReLU(Σ_k weight_k · map_k), upsampled to the image

Differs from the paper: if the last maps are coarser than 7×7, as they are for small images, the last finer ones before
them are used; and each cell is drawn as a Gaussian at the center of its receptive field, instead of bilinear
interpolation on an even grid.
"""

from __future__ import annotations

from torch import Tensor, nn

from dlkit.explanation.methods._layers import locate_cells, maps_and_gradients, select_layer, upsample


def explain(model: nn.Module, images: Tensor, targets: Tensor, *, layer: str | None = None) -> Tensor:
    path = select_layer(model, images, layer)
    maps, gradients = maps_and_gradients(model, images, targets, path)
    weights = gradients.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
    return upsample((weights * maps).sum(1).relu(), *locate_cells(model, images, path), *images.shape[2:])
