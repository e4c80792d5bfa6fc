"""A network of the package timm, by its name there: timm/resnet50d.

Wightman, "PyTorch image models", 2019, github.com/huggingface/pytorch-image-models; see there for each network's paper.
Its weights are fresh, as timm draws them; `--weights imagenet` starts from those that timm publishes on the Hugging
Face hub for the network, or for the tag that its name ends in: timm/resnet50.a1_in1k. Only safetensors files are read,
each compared with the SHA-256 that the hub states. Networks of a fixed size are built for the images' size if timm can.
`drop_rate` is the dropout before the classifier, `drop_path_rate` stochastic depth, where the network has them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dlkit import packages
from dlkit.errors import DataError, UsageError
from dlkit.specs import ImageSpec, Interpolation, Spec


def natural(architecture: str) -> tuple[int, int, int, int]:
    """Channels, height, width and classes of the published weights."""
    config = _config(architecture)
    channels, height, width = config.input_size
    return channels, height, width, config.num_classes or 1000


def build(spec: ImageSpec, *, architecture: str, drop_rate: float = 0.0, drop_path_rate: float = 0.0) -> nn.Module:
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    options = {name: rate for name, rate in rates.items() if rate}  # not every network knows every rate
    if "." in architecture:
        _config(architecture)
    model = _created(architecture, spec, options)
    model.feature_map = _feature_map(model, architecture, spec)  # type: ignore[assignment]
    model.at_this_size = partial(_fit_weights, model)  # type: ignore[assignment]
    return model


def published_spec(architecture: str, classes: tuple[str, ...]) -> ImageSpec:
    """The images that the published weights are for; `classes` are ImageNet's, and others are called by their numbers.

    Raises:
        UsageError: timm publishes no weights on the hub.
    """
    config = _config(architecture)
    if config is None or not config.hf_hub_id:
        raise UsageError(f"timm publishes no weights of {architecture!r} on the Hugging Face hub.")
    channels, height, width = config.input_size
    names = classes if config.num_classes == len(classes) else tuple(map(str, range(config.num_classes)))
    ratio = 1.0 if config.crop_mode != "center" else height / int(height / config.crop_pct)
    filter: Interpolation = "bilinear" if config.interpolation == "bilinear" else "bicubic"
    return ImageSpec(channels, height, width, names, tuple(config.mean), tuple(config.std), ratio, interpolation=filter)


def _config(architecture: str) -> Any:
    """What timm knows of the published weights, or of those of the tag after the network's name."""
    try:
        return timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:
        name, _, tag = architecture.partition(".")
        known = ", ".join(packages.timm_tags().get(name, ())) or "none"
        raise UsageError(f"timm/{name} has no weights with the tag {tag!r}. There are: {known}.") from error


def published_file(architecture: str) -> tuple[str, str]:
    """The repository of the published weights on the hub, and the file there."""
    config = _config(architecture)
    return config.hf_hub_id, "model.safetensors"


def published_weights(architecture: str, file: str) -> dict[str, Tensor]:
    """Published weights by the names that the network has today, which timm translates older files to."""
    model = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay={"file": file})
    weights: dict[str, Tensor] = model.state_dict()
    return weights


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


def _fit_weights(model: nn.Module, tensors: Mapping[str, Tensor], seen: Spec | None) -> dict[str, Tensor]:
    """Weights with positions interpolated to the images' size, where the network's own module can."""
    fit = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    own = model.state_dict()
    same = all(name not in own or own[name].shape == tensor.shape for name, tensor in tensors.items())
    return dict(tensors) if same or fit is None else dict(fit(dict(tensors), model))


@torch.no_grad()
def _feature_map(model: nn.Module, architecture: str, spec: ImageSpec) -> str | None:
    """The path of the module that gives the last maps (N, C, H, W), if there are any.

    One image goes through the network: timm reports a wrong size there, or not at all.
    """
    stages = list(getattr(model, "feature_info", None) or [])
    path = stages[-1]["module"] if stages and getattr(model, "output_fmt", "NCHW") == "NCHW" else ""
    path = path if path in dict(model.named_modules()) else ""
    seen: list[Any] = []
    hook = model.get_submodule(path).register_forward_hook(lambda module, inputs, maps: seen.append(maps))
    weight = next(model.parameters())
    images = torch.zeros(1, spec.channels, spec.height, spec.width, device=weight.device)
    try:
        logits = model.eval()(images)
    except Exception as error:  # whatever its layers raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"timm/{architecture} cannot take images of {spec.height}×{spec.width}: {reason}") from error
    finally:
        hook.remove()
    model.train()
    if logits.shape != (1, len(spec.classes)):
        raise UsageError(f"timm/{architecture} gives {tuple(logits.shape)} for an image; it is no classifier.")
    return path if path and getattr(seen[-1], "ndim", 0) == 4 else None
