"""The gradient of a class's logit with respect to the image, on which most methods are based."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dlkit.errors import UsageError

MAX_BATCH_VALUES = 1 << 21  # input values per forward pass
MAX_BATCH_IMAGES = 256
NO_GRADIENT = "the model's output has no gradient. Use the method occlusion."


def batch_size(images: Tensor) -> int:
    """The number of images of this size (…, C, H, W) per forward pass."""
    return max(1, min(MAX_BATCH_IMAGES, MAX_BATCH_VALUES // images[0].numel()))


def _batches(images: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = batch_size(images)
    return zip(torch.split(images, size), torch.split(targets, size), strict=True)


def target_logits(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The logits of the targets, (N,), without gradients."""
    with torch.no_grad():
        parts = [model(batch).gather(1, target[:, None])[:, 0] for batch, target in _batches(images, targets)]
    return torch.cat(parts)


def input_gradients(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The gradient of each target's logit with respect to its image, (N, C, H, W).

    Raises:
        UsageError: the model's output has no gradient.
    """
    parts: list[Tensor] = []
    for batch, target in _batches(images, targets):
        # cuDNN's recurrent layers have a gradient in training mode only
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=not _is_recurrent(model)):
            inputs = batch.detach().clone().requires_grad_()
            logits = model(inputs)
            if not logits.requires_grad:
                raise UsageError(NO_GRADIENT)
            parts += torch.autograd.grad(logits.gather(1, target[:, None]).sum(), inputs)
    return torch.cat(parts)


def _is_recurrent(model: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in model.modules())
