"""Saliency: how strongly each pixel influences the class's logit.

Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks: visualising image classification models and
saliency maps", 2013 (1312.6034), section 3:

    map = max over channels |∂ logit / ∂ image|

For a word the channels are the dimensions of its vector, as in Li et al. 2016 (1506.01066).
"""

from __future__ import annotations

from torch import Tensor, nn

from dlkit.explanation.methods._gradients import input_gradients

TAKES = ("images", "sequences", "trees")


def explain(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return input_gradients(model, images, targets).abs().amax(1)
