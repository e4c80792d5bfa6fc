"""A network of the package torchvision, by its name there: torchvision/efficientnet_b0.

Marcel and Rodriguez, "Torchvision the machine-vision package of torch", ACM Multimedia, 2010; pytorch.org/vision names
each network's paper. The layers, their names and their initial weights are torchvision's; `--weights imagenet` starts
from the weights that it recommends, `--weights imagenet:IMAGENET1K_V1` from others that it publishes.
`dropout` is the rate before the classifier, `stochastic_depth` that of left-out blocks; None keeps the network's own.

Differs from torchvision: a network for gray images has a first convolution of one channel; a vision transformer is
built for the images' size; GoogLeNet and Inception v3 have no auxiliary classifiers, and rescale their input as their
published weights need it, with and without these.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models as torchvisions
from torchvision.models.googlenet import GoogLeNet
from torchvision.models.inception import Inception3
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from dlkit import published
from dlkit.errors import DataError, UsageError
from dlkit.specs import ImageSpec, Spec

POSITIONS = "encoder.pos_embedding"
RATES = {"dropout": "dropout", "stochastic_depth": "stochastic_depth_prob"}  # option → torchvision's keyword
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers that only help to train GoogLeNet and Inception v3
# Class of a network → the path of the module that gives its last maps; elsewhere the last child of `features`.
FEATURE_MAPS = {
    "AlexNet": "features.11", "GoogLeNet": "inception5b", "Inception3": "Mixed_7c", "MNASNet": "layers.16",
    "MaxVit": "blocks.3", "RegNet": "trunk_output.block4", "ResNet": "layer4", "ShuffleNetV2": "conv5",
    "SwinTransformer": "permute", "VisionTransformer": None,
}  # fmt: skip


def natural(architecture: str) -> tuple[int, int, int, int]:
    """Channels, height, width and classes of the recommended weights."""
    crop = published.weights()[architecture][0].crop
    return 3, crop, crop, 1000


def build(
    spec: ImageSpec, *, architecture: str, dropout: float | None = None, stochastic_depth: float | None = None
) -> nn.Module:
    options = _options(architecture, spec, {"dropout": dropout, "stochastic_depth": stochastic_depth})
    if min(spec.height, spec.width) < published.weights()[architecture][0].crop:
        _check_size(architecture, spec, options)
    model = _create(architecture, spec, options)
    model.feature_map = _feature_map(model)  # type: ignore[assignment]
    model.at_this_size = partial(_fit_weights, model_size=_position_size(model))  # type: ignore[assignment]
    return model


def _options(architecture: str, spec: ImageSpec, rates: Mapping[str, float | None]) -> dict[str, Any]:
    options: dict[str, Any] = {RATES[name]: rate for name, rate in rates.items() if rate is not None}
    if architecture.startswith("vit_"):
        if spec.height != spec.width:
            raise DataError(f"torchvision/{architecture} takes square images, not {spec.height}×{spec.width}.")
        options["image_size"] = spec.height
    elif architecture == "maxvit_t":
        options["input_size"] = (spec.height, spec.width)
    elif architecture in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "transform_input": True, "init_weights": True}
    return {"num_classes": len(spec.classes), **options}


def _create(architecture: str, spec: ImageSpec, options: Mapping[str, Any]) -> nn.Module:
    builder = torchvisions.get_model_builder(architecture)
    try:
        with WidthsOnCpu() if architecture.startswith("regnet") else nullcontext():
            model: nn.Module = builder(weights=None, **options)
    except TypeError:
        rates = ", ".join(name for name, keyword in RATES.items() if keyword in options)
        raise UsageError(f"torchvision/{architecture} has no option {rates}. Leave it out.") from None
    except (AssertionError, ValueError) as error:  # a vision transformer's patches, MaxViT's windows
        raise _wrong_size(architecture, spec, error) from error
    if spec.channels == 1:
        _read_gray(model)
    return model


class WidthsOnCpu(TorchFunctionMode):
    """A RegNet's widths are computed by tensors: these have values even if the network is built on the meta device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        where = {"device": "cpu"} if function in (torch.arange, torch.tensor) else {}
        return function(*args, **{**(kwargs or {}), **where})


def _read_gray(model: nn.Module) -> None:
    """Give the first convolution one input channel, with the weights of the first of three."""
    if isinstance(model, GoogLeNet | Inception3):  # which rescale three channels
        model.__class__ = GrayGoogLeNet if isinstance(model, GoogLeNet) else GrayInception3
        return
    path, first = next((path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
    gray = nn.Conv2d(
        1, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None,  # type: ignore[arg-type]
    )  # fmt: skip
    gray.weight = nn.Parameter(first.weight.detach()[:, :1].clone())
    gray.bias = first.bias
    model.set_submodule(path, gray)


class GrayGoogLeNet(GoogLeNet):  # type: ignore[misc]
    """Sees a gray image as three equal channels."""

    def _transform_input(self, x: Tensor) -> Tensor:  # (N, 1, H, W) -> (N, 3, H, W)
        rescaled: Tensor = super()._transform_input(x.expand(-1, 3, -1, -1))
        return rescaled


class GrayInception3(Inception3):  # type: ignore[misc]
    """Sees a gray image as three equal channels."""

    def _transform_input(self, x: Tensor) -> Tensor:  # (N, 1, H, W) -> (N, 3, H, W)
        rescaled: Tensor = super()._transform_input(x.expand(-1, 3, -1, -1))
        return rescaled


def _feature_map(model: nn.Module) -> str | None:
    known = next((kind.__name__ for kind in type(model).__mro__ if kind.__name__ in FEATURE_MAPS), None)
    if known is not None:
        return FEATURE_MAPS[known]
    names = [name for name, _ in model.get_submodule("features").named_children()]
    return f"features.{names[-1]}"


def _position_size(model: nn.Module) -> tuple[int, int] | None:
    """The image and patch size of a network with learned positions."""
    return (model.image_size, model.patch_size) if isinstance(model, VisionTransformer) else None


def _fit_weights(
    tensors: Mapping[str, Tensor], seen: Spec | None, model_size: tuple[int, int] | None
) -> dict[str, Tensor]:
    """Published weights without auxiliary classifiers, their positions interpolated to the images' size."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(AUXILIARY)}
    if model_size is None or POSITIONS not in kept:
        return kept
    return dict(interpolate_embeddings(*model_size, OrderedDict(kept)))


@torch.no_grad()
def _check_size(architecture: str, spec: ImageSpec, options: Mapping[str, Any]) -> None:
    """Send one image through the network, without memory for either: small ones vanish on the way in some."""
    try:
        with torch.device("meta"):
            _create(architecture, spec, options).eval()(torch.empty(1, spec.channels, spec.height, spec.width))
    except RuntimeError as error:
        raise _wrong_size(architecture, spec, error) from error


def _wrong_size(architecture: str, spec: ImageSpec, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    size = published.weights()[architecture][0].crop
    return DataError(
        f"torchvision/{architecture} cannot take images of {spec.height}×{spec.width}: {reason}. Set data.size, as in "
        f"--set data.size={size}."
    )
