"""The names that other code gives to a network's weights, as this network calls them; and its input channels.

A name is only changed where the network does not have it, so that a network's own weights are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dlkit import registry
from dlkit.training.weights_file import EMA, is_counter, kind_of

COUNT = ".num_batches_tracked"  # of a batch norm; old torch did not save it
RULES = (
    # torchvision's published files, whose modules have outgrown them
    (re.compile(r"(denselayer[0-9]+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(\.mlp)\.linear_2\."), r"\1.3."),
    # ResNets for CIFAR: kuangliu/pytorch-cifar, akamaster/pytorch_resnet_cifar10
    (re.compile(r"^linear\."), "fc."),
    (re.compile(r"\.shortcut\."), ".downsample."),
    # a network in parts, as mmpretrain, solo-learn and MoCo save it
    (re.compile(r"^(?:backbone|encoder|features|head|cls_head|classifier)\."), ""),
)

Say = Callable[[str], None]


def renamed(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights under the names of this network, with batch norm's count where it is missing."""
    wanted = model.state_dict()
    tensors = _below_prefix(tensors, wanted)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        known = name if name in wanted else _translated(name, wanted)
        if known in wanted or not is_counter(name, tensor):
            found[name if known in tensors and known != name else known] = tensor
    for name, count in wanted.items():
        if name.endswith(COUNT) and name.removesuffix(COUNT) + ".running_mean" in found:
            found.setdefault(name, count)
    return found


def adapt_channels(tensors: Mapping[str, Tensor], model: nn.Module, source: str, say: Say) -> dict[str, Tensor]:
    """Weights whose first convolution reads the network's channels: of RGB summed to gray, of gray spread over RGB.

    Gray pixels repeated in three channels give the same sum as the summed weights do (timm does likewise).
    """
    name = first_convolution(model)
    wanted = model.state_dict().get(name)
    theirs = tensors.get(name)
    if wanted is None or theirs is None or theirs.ndim != 4 or theirs.shape == wanted.shape:
        return dict(tensors)
    if (theirs.shape[1], wanted.shape[1]) == (3, 1):
        say(f"{source} read RGB: {name} is summed over its input channels for gray images")
        return {**tensors, name: theirs.sum(1, keepdim=True)}
    if (theirs.shape[1], wanted.shape[1]) == (1, 3):
        say(f"{source} read gray images: {name} is divided among the channels R, G and B")
        return {**tensors, name: theirs.expand(-1, 3, -1, -1) / 3}
    return dict(tensors)


def first_convolution(model: nn.Module) -> str:
    """The name of the weight of the first convolution; "" where there is none."""
    return next((name for name, weight in model.named_parameters() if weight.ndim == 4), "")


def implied_options(model: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options that the names of weights imply: those of pytorch_resnet_cifar10 pad their shortcuts on both sides."""
    settable = registry.entry("models", model).options
    resolved = registry.resolved_options("models", model, options) if "shortcut" in settable else {}
    if resolved.get("shortcut") == "padding" and "shortcut" not in options and is_cifar_resnet(tensors):
        return {"shortcut": "padding_both"}
    return {}


def is_cifar_resnet(names: Mapping[str, Any]) -> bool:
    """Whether these are the names of github.com/akamaster/pytorch_resnet_cifar10."""
    return {"conv1.weight", "layer3.0.conv1.weight", "linear.weight"} <= names.keys() and not any(
        ".shortcut." in name for name in names
    )


def _below_prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors below the one prefix under which the whole network stands, where no name is the network's own."""
    needed = [name for name in wanted if not name.endswith(COUNT)]
    if not needed or any(name in wanted for name in tensors):
        return tensors
    prefixes = [name.removesuffix(needed[0]) for name in tensors if name.endswith(f".{needed[0]}")]
    fitting = [prefix for prefix in prefixes if all(prefix + name in tensors for name in needed)]
    fitting = [prefix for prefix in fitting if kind_of(prefix) != EMA] or fitting
    if len(fitting) != 1:
        return tensors
    return {name.removeprefix(fitting[0]): tensor for name, tensor in tensors.items() if name.startswith(fitting[0])}


def _translated(name: str, wanted: Mapping[str, Tensor]) -> str:
    """The network's name for a weight by the rules, one or several after another; the same name where none fits."""
    candidates: Sequence[str] = [name]
    for _ in range(2):
        candidates = list(dict.fromkeys(pattern.sub(new, old) for old in candidates for pattern, new in RULES))
        for candidate in candidates:
            if candidate in wanted:
                return candidate
    return name
