"""What a model is made of: its layers in the order they run, their output shapes, parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlkit import catalog
from dlkit.specs import ImageSpec


@dataclass(frozen=True)
class Layer:
    """One call of a layer. Parameters are counted where a layer is called first."""

    name: str
    kind: str
    output: tuple[int, ...]  # without the batch
    parameters: int
    macs: int  # multiplications of an input by a weight, for one image; additions of a bias are not counted


@dataclass(frozen=True)
class ModelSummary:
    """A model for one spec. `document` is its file's docstring: the paper, and how the model differs from it."""

    name: str
    family: str
    document: str
    options: Mapping[str, Any]
    input: tuple[int, int, int]  # channels, height, width
    classes: int
    parameters: int
    trainable: int
    macs: int
    layers: tuple[Layer, ...]


def summarize(name: str, spec: ImageSpec | None = None, options: Mapping[str, Any] | None = None) -> ModelSummary:
    """Build the model without memory for its weights, and follow one image through it.

    spec is by default the input that the model's family was made for.
    Raises: UsageError for an unknown model or an option that it cannot use.
    """
    entry, module = catalog.entry("models", name), catalog.load("models", name)
    resolved = catalog.resolved_options("models", name, options or {})
    spec = spec or natural_spec(*module.NATURAL)
    with torch.device("meta"):
        model: nn.Module = module.build(spec, **resolved).eval()
        layers = _layers(model, torch.empty(1, spec.channels, spec.height, spec.width))
    return ModelSummary(
        name=name,
        family=entry.family,
        document=entry.document,
        options=resolved,
        input=(spec.channels, spec.height, spec.width),
        classes=len(spec.classes),
        parameters=sum(weight.numel() for weight in model.parameters()),
        trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        macs=sum(layer.macs for layer in layers),
        layers=layers,
    )


def natural_spec(channels: int, height: int, width: int, classes: int) -> ImageSpec:
    """A spec of that size whose classes are called by their numbers."""
    names = tuple(str(number) for number in range(classes))
    return ImageSpec(channels, height, width, names, mean=(0.5,) * channels, std=(0.5,) * channels)


@torch.no_grad()
def _layers(model: nn.Module, image: Tensor) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    counted: set[int] = set()
    hooks = [
        module.register_forward_hook(_recorder(name, layers, counted))
        for name, module in model.named_modules()
        if _is_layer(module)
    ]
    model(image)
    for hook in hooks:
        hook.remove()
    return tuple(layers)


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, nn.Identity):
        return False
    own = next(module.parameters(recurse=False), None) is not None or hasattr(module, "multiply_adds")
    return own or next(module.children(), None) is None


def _recorder(name: str, layers: list[Layer], counted: set[int]) -> Callable[[nn.Module, Any, Tensor], None]:
    def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
        new = [weight for weight in module.parameters() if id(weight) not in counted]
        counted.update(id(weight) for weight in new)
        shape, parameters = tuple(output.shape[1:]), sum(weight.numel() for weight in new)
        layers.append(Layer(name, type(module).__name__, shape, parameters, _multiply_adds(module, output)))

    return record


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d | nn.Linear):
        return output.numel() * module.weight[0].numel()  # a unit's weights are its row, in groups too
    count: Callable[[Tensor], int] | None = getattr(module, "multiply_adds", None)
    return count(output) if count is not None else 0
