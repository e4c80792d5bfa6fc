"""The gradient of a class's logit by the image, which most methods start from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.errors import UsageError

MOST_VALUES = 1 << 21  # of the images that go through the network at once
MOST_IMAGES = 256


def chunk(images: Tensor) -> int:
    """How many images of this size (…, C, H, W) go through the network at once."""
    return max(1, min(MOST_IMAGES, MOST_VALUES // images[0].numel()))


def scores(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The logits of the targets, (N,), without gradients."""
    size = chunk(images)
    with torch.no_grad():
        parts = [
            model(some).gather(1, wanted[:, None])[:, 0]
            for some, wanted in zip(torch.split(images, size), torch.split(targets, size), strict=True)
        ]
    return torch.cat(parts)


def input_gradients(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The gradient of each target's logit by its image, (N, C, H, W).

    Raises:
        UsageError: the model's answer has no gradient.
    """
    size = chunk(images)
    parts: list[Tensor] = []
    for some, wanted in zip(torch.split(images, size), torch.split(targets, size), strict=True):
        # cuDNN's recurrent layers have a gradient in training alone
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=not _recurrent(model)):
            inputs = some.detach().clone().requires_grad_()
            logits = model(inputs)
            if not logits.requires_grad:
                raise UsageError("the model's answer has no gradient. Take the method occlusion.")
            parts += torch.autograd.grad(logits.gather(1, wanted[:, None]).sum(), inputs)
    return torch.cat(parts)


def _recurrent(model: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in model.modules())
