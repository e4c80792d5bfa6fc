"""A network of the package timm, by its name there: timm/resnet50d.

Wightman, "PyTorch image models", 2019, github.com/huggingface/pytorch-image-models; see there for each network's paper.
Its weights are fresh, as timm draws them: timm's own go to the network for files without a digest, which dlkit does not
take; --weights takes such a file that you have. Networks of a fixed size are built for the images' size where timm can.
`drop_rate` is the dropout before the classifier, `drop_path_rate` stochastic depth, where the network has them.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from dlkit.errors import DataError, UsageError
from dlkit.registry import did_you_mean
from dlkit.specs import ImageSpec

NATURAL = (3, 224, 224, 1000)  # channels, height, width, classes


def build(spec: ImageSpec, *, architecture: str, drop_rate: float = 0.0, drop_path_rate: float = 0.0) -> nn.Module:
    if not timm.is_model(architecture):
        raise UsageError(f"timm {timm.__version__} has no {architecture!r}. {_nearest(architecture)}")
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    options = {name: rate for name, rate in rates.items() if rate}  # not every network knows every rate
    model = _created(architecture, spec, options)
    _check_size(model, architecture, spec)
    return model


def _created(architecture: str, spec: ImageSpec, options: dict[str, Any]) -> nn.Module:
    """The network, made for the images' size if it has one."""
    common = {"num_classes": len(spec.classes), "in_chans": spec.channels, **options}
    state = torch.get_rng_state()
    try:
        sized: nn.Module = timm.create_model(architecture, img_size=(spec.height, spec.width), **common)
        return sized
    except (TypeError, AssertionError, ValueError):
        torch.set_rng_state(state)
    try:
        model: nn.Module = timm.create_model(architecture, **common)
        return model
    except TypeError as error:
        raise UsageError(f"timm/{architecture} cannot be built with {options}: {error}.") from error


@torch.no_grad()
def _check_size(model: nn.Module, architecture: str, spec: ImageSpec) -> None:
    """Let one image through: timm tells a wrong size there, or not at all."""
    weight = next(model.parameters())
    images = torch.zeros(1, spec.channels, spec.height, spec.width, device=weight.device)
    try:
        logits = model.eval()(images)
    except Exception as error:  # whatever its layers raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"timm/{architecture} cannot take images of {spec.height}×{spec.width}: {reason}") from error
    model.train()
    if logits.shape != (1, len(spec.classes)):
        raise UsageError(f"timm/{architecture} gives {tuple(logits.shape)} for an image; it is no classifier.")


def _nearest(name: str) -> str:
    hint = did_you_mean(name, timm.list_models())
    return hint if hint.startswith("Did") else "See timm.list_models()."
