"""A network of the registry with weights from anywhere, ready to answer: what predict and eval share.

A run, an export and torchvision's own files say what their images and classes are. Of a bare file it is said by
`dataset`, or by `classes` (a data set, or a file with a name a line) and `img_size`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import imagenet, registry
from dlkit.config.resolve import data_for
from dlkit.errors import DataError, ModelFileError, UsageError
from dlkit.runs.run_folder import CheckpointName
from dlkit.specs import ImageSpec, Spec
from dlkit.training.weights import Weights, find, is_imagenet

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Say = Callable[[str], None]


@dataclass(frozen=True)
class Inputs:
    """What is said of a bare file's images and classes, and with which options its network is built."""

    dataset: str | None = None
    data_dir: Path | str | None = None
    classes: Path | str | None = None  # a data set, or a file with a name a line
    img_size: int | None = None  # pixels a side
    mean: Sequence[float] | None = None  # of pixels scaled to [0, 1], a number a channel
    std: Sequence[float] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def given(self) -> list[str]:
        """The flags of those that are set."""
        flags = {"--dataset": self.dataset, "--data-dir": self.data_dir, **self.beside_data()}
        return [flag for flag, value in flags.items() if value is not None]

    def beside_data(self) -> dict[str, Any]:
        """What only a bare file needs, by its flag."""
        return {
            "--classes": self.classes, "--img-size": self.img_size, "--mean": self.mean, "--std": self.std,
            "--option": self.options or None,
        }  # fmt: skip


@dataclass(frozen=True)
class Network:
    """Weights that are found and checked as far as they can be without building the network."""

    name: str
    source: Weights
    spec: Spec
    module: Callable[[str], tuple[nn.Module, torch.device]]  # from a device's name


def find_network(
    model: str | None,
    weights: Path | str | None,
    inputs: Inputs,
    runs_dir: Path,
    checkpoint: CheckpointName,
    say: Say,
    *,
    other_data: bool = False,
) -> Network:
    """The network of that name with these weights; `other_data`: the data set may be another than they are for.

    Raises:
        UsageError: something is missing or said twice.
        ModelFileError: there are no such weights, or they are of another model.
    """
    if model is not None:
        registry.entry("models", model)
    if weights is None:
        raise UsageError(f"--model {model} needs weights: --weights imagenet, a run or a file.")
    source = find(weights, model, runs_dir, say, checkpoint)
    name = model or source.model
    if name is None:
        raise UsageError(f"{source.name} do not say which model they are of: give --model NAME.")
    if source.model not in (None, name):
        raise ModelFileError(f"{source.name} holds {source.model!r}, not {name!r}. Give --model {source.model}.")
    if source.spec is not None:
        known = replace(inputs, dataset=None, data_dir=None) if other_data else inputs
        return _known(name, source, source.spec, known, say)
    return _bare(name, source, inputs, say)


def _known(name: str, source: Weights, spec: Spec, inputs: Inputs, say: Say) -> Network:
    """Weights that say what they are for; a data set may only be named where it is the same."""
    beside = [flag for flag, value in inputs.beside_data().items() if value is not None]
    if beside or (inputs.given() and _spec_of_data(name, inputs, say).classes != spec.classes):
        flag = (beside or inputs.given())[0]
        raise UsageError(f"{source.name}: it is known which images and classes they are for. Leave {flag} out.")
    return Network(name, source, spec, _builder(name, source, spec, source.options, None, say))


def _bare(name: str, source: Weights, inputs: Inputs, say: Say) -> Network:
    from dlkit.training.key_names import implied_options, is_cifar_resnet

    registry.check_options("models", name, inputs.options)
    spec = _spec(name, source, inputs, say)
    tensors = source.read()
    implied = implied_options(name, inputs.options, tensors)
    if implied:
        say(f"{source.name} has the names of pytorch_resnet_cifar10: building {name} with shortcut=padding_both")
    if is_cifar_resnet(tensors) and inputs.mean is inputs.std is None and spec.classes == _classes_of("cifar10"):
        assert isinstance(spec, ImageSpec)
        say("pixels are normalised by ImageNet's mean and std, as in that code; --mean and --std set others")
        spec = replace(spec, mean=imagenet.MEAN, std=imagenet.STD)
    options = {**implied, **inputs.options}
    return Network(name, source, spec, _builder(name, source, spec, options, tensors, say))


def _builder(
    name: str,
    source: Weights,
    spec: Spec,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None,
    say: Say,
) -> Callable[[str], tuple[nn.Module, torch.device]]:
    def module(device: str) -> tuple[nn.Module, torch.device]:
        from dlkit.training.precision import choose_device
        from dlkit.training.restore import build
        from dlkit.training.transfer import fill

        place, network = choose_device(device), build(name, spec, dict(options))
        resolved = registry.resolved_options("models", name, options)
        fill(network, source.read() if tensors is None else tensors, source, spec, resolved, say)
        return network.to(place).eval(), place

    return module


def _spec(model: str, source: Weights, inputs: Inputs, say: Say) -> Spec:
    """What a bare file's images, or text, and classes are."""
    if inputs.dataset is None and inputs.data_dir is not None:
        raise UsageError("--data-dir is where --dataset lies. Give both.")
    if inputs.dataset is None and inputs.classes is None:
        raise UsageError(
            f"{source.name} do not say which images and classes they are for: give --dataset NAME, or --img-size N and "
            f"--classes FILE."
        )
    spec = _spec_of_classes(model, inputs, say)
    if not isinstance(spec, ImageSpec):
        if inputs.img_size is not None or inputs.mean is not None or inputs.std is not None:
            raise UsageError(f"--img-size, --mean and --std are for images; {model} reads {spec.kind}.")
        return spec
    return _looked_at(spec, inputs)


def _spec_of_classes(model: str, inputs: Inputs, say: Say) -> Spec:
    """The data set's spec with the classes that are given; else the spec that the classes' data set has."""
    if inputs.classes is None:
        return _spec_of_data(model, inputs, say)
    text = os.fspath(inputs.classes)
    if Path(text).is_file() and text not in registry.entries("datasets"):
        names = read_classes(Path(text))
        spec = _natural(model, inputs, say) if inputs.dataset is None else _spec_of_data(model, inputs, say)
        return replace(spec, classes=names)
    return _spec_of_data(model, replace(inputs, dataset=text, data_dir=None), say)


def _spec_of_data(model: str, inputs: Inputs, say: Say) -> Spec:
    from dlkit.data.library import spec_of

    assert inputs.dataset is not None
    data = data_for(model, inputs.dataset, None if inputs.data_dir is None else os.fspath(inputs.data_dir))
    registry.check_pair(model, data.name, data.options)
    return spec_of(data, log=say)


def _natural(model: str, inputs: Inputs, say: Say) -> ImageSpec:
    """The images that a model was made for, of as many channels as there are means, normalised as ImageNet's."""
    from dlkit.evaluation.model_summary import natural, natural_spec

    found = natural(model)
    if not isinstance(found, ImageSpec):
        raise UsageError(f"{model} reads {found.kind}: give --dataset NAME, whose words it knows.")
    channels = 3 if 3 in (len(inputs.mean or ()), len(inputs.std or ())) else found.channels
    spec = natural_spec(channels, found.height, found.width, 1)
    if channels == 3:
        spec = replace(spec, mean=imagenet.MEAN, std=imagenet.STD)
    if inputs.mean is None or inputs.std is None:
        say(
            f"pixels are normalised by mean {_shown(spec.mean)} and std {_shown(spec.std)}; --mean and --std set others"
        )
    return spec


def _shown(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in values)


def _looked_at(spec: ImageSpec, inputs: Inputs) -> ImageSpec:
    """The spec with the size and the normalization that are given."""
    size = inputs.img_size
    if size is not None and not 1 <= size <= 20_000:
        raise UsageError(f"--img-size {size}: it is pixels a side, 1 to 20000.")
    changes: dict[str, Any] = {} if size is None else {"height": size, "width": size}
    for flag in ("mean", "std"):
        values = getattr(inputs, flag)
        if values is not None:
            if len(values) not in (1, spec.channels) or (flag == "std" and min(values) <= 0):
                raise UsageError(f"--{flag} takes 1 or {spec.channels} numbers, a standard deviation above 0.")
            changes[flag] = tuple(values) * (spec.channels // len(values))
    return replace(spec, **changes)


def read_classes(file: Path) -> tuple[str, ...]:
    """The names of the classes in a file, a name a line in the order of the network's outputs.

    Raises:
        DataError: it is no text, empty, or names a class twice.
    """
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--classes {file} cannot be read: {error}.") from error
    names = tuple(line.strip() for line in lines if line.strip())
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if not names or twice is not None or not all(name.isprintable() for name in names):
        reason = "it names no class" if not names else f"it names {twice!r} twice" if twice else "it is no text"
        raise DataError(f"--classes {file}: {reason}. It takes a name a line, in the order of the network's outputs.")
    return names


def _classes_of(dataset: str) -> tuple[str, ...]:
    from dlkit.data.library import spec_of

    return spec_of(data_for("resnet20", dataset)).classes


def title(network: Network, weights: Path | str | None) -> str:
    """How answers call it."""
    return f"{network.name} (imagenet)" if is_imagenet(weights) else network.name
