"""How few samples a network trains on at once: batch norm has no variance of a single value per channel.

torch refuses it (`Expected more than 1 value per channel when training`), which happens where maps are one pixel large,
or have no pixels at all, and one sample goes through: the last batch of an epoch, a rank's share of it, or a part of
an accumulated batch. Here it is known before the first step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlkit.errors import UsageError
from dlkit.specs import ImageSpec, Spec
from dlkit.training.freezing import Freezing

LAST = 10**9  # an epoch by which everything has thawed


@torch.no_grad()
def smallest_share(model: nn.Module, spec: Spec, freezing: Freezing, device: torch.device) -> int:
    """2 for a network whose batch norms see one value per channel of a sample, else 1; the network is on the device.

    Batch norms that never train are passed over: they use their statistics.
    """
    freezing.apply(model.train(), LAST)
    trained = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    if not trained:
        return 1
    if not isinstance(spec, ImageSpec):
        return 2  # what a sample gives it depends on the sample's length
    single: list[bool] = []

    def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        maps: Tensor = inputs[0]  # (1, C, …)
        single.append(maps.shape[2:].numel() == 1)

    handles = [layer.register_forward_pre_hook(look) for layer in trained]
    model.eval()(torch.zeros(1, spec.channels, spec.height, spec.width, device=device))
    model.train()
    for handle in handles:
        handle.remove()
    return 2 if any(single) else 1


def check_share(smallest: int, samples: int, batch_size: int, accumulate: int, world_size: int) -> None:
    """Raises: UsageError where a whole batch has fewer samples in a part than the network trains on."""
    batch = min(batch_size, samples)
    if smallest == 1 or batch // world_size // accumulate >= smallest:
        return
    parts = world_size * accumulate
    split = f" in {parts} parts (processes times --accumulate)" if parts > 1 else ""
    fewer = ", a smaller --accumulate" if accumulate > 1 else ""
    raise UsageError(
        f"batch norm cannot train on one sample whose maps are one pixel large: a batch of {batch}{split} is too "
        f"small. Use --batch-size {smallest * parts} or more{fewer}, or model.options.norm=group if the model has it."
    )
