"""The layers of any network, first to last: the unit of freezing, unfreezing and layer-wise learning rates.

A layer is a module with a weight of two or more dimensions (a convolution, a linear layer), or a whole block where a
network is built of blocks: what stands in a Sequential, ModuleList or ModuleDict and has modules of its own. What has
only vectors (norms) belongs to the layer before it, and so does a parameter between layers (position embeddings);
before the first layer it belongs to that. So resnet50 has 18 layers, vit_b_16 14, lenet5 5; the last one is the head.
The order is that of module registration, which for dlkit's networks is that of the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class NamedLayer:
    """A layer's name, and the names of its parameters in the network."""

    name: str
    parameters: tuple[str, ...]


def layers(model: nn.Module) -> list[NamedLayer]:
    """Every parameter of the network in exactly one layer."""
    found: list[tuple[str, list[str]]] = []
    early: list[str] = []  # before the first layer
    for name, parameters, begins in _pieces(model, "", within_container=False):
        if begins:
            found.append((name, [*early, *parameters]))
            early = []
        elif found:
            found[-1][1].extend(parameters)
        else:
            early += parameters
    if not found and early:
        found.append(("", early))
    return [NamedLayer(name, tuple(parameters)) for name, parameters in found]


def head(model: nn.Module, classes: int) -> str | None:
    """The name of the module that gives the logits: the last one whose weight has a row for each class."""
    rows = [
        name.rpartition(".")[0]
        for name, weight in model.named_parameters()
        if name.rpartition(".")[2] == "weight" and weight.ndim > 1 and len(weight) == classes
    ]
    return rows[-1] if rows else None


def matching(names: Iterable[str], patterns: str) -> list[str]:
    """The names that match one of the comma-separated globs: "features.*", or equivalently "features"."""
    globs = [glob.strip() for glob in patterns.split(",") if glob.strip()]
    return [name for name in names if any(fnmatchcase(name, glob) or fnmatchcase(name, f"{glob}.*") for glob in globs)]


def _pieces(module: nn.Module, name: str, within_container: bool) -> Iterator[tuple[str, Sequence[str], bool]]:
    """The network split where layers may start: a name, its parameters, and whether a layer starts there."""
    children = _with_parameters(module)
    if name and (not children or (within_container and not _holds_blocks(module))):
        named = dict(module.named_parameters(prefix=name))
        yield name, list(named), any(weight.ndim > 1 for weight in named.values())
        return
    if own := [key for key, _ in module.named_parameters(prefix=name, recurse=False)]:
        yield name, own, False
    for key, child in children:
        yield from _pieces(child, f"{name}.{key}".lstrip("."), isinstance(module, CONTAINERS))


def _with_parameters(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(key, child) for key, child in module.named_children() if next(child.parameters(), None) is not None]


def _holds_blocks(module: nn.Module) -> bool:
    """Whether it contains a container of modules with weights, or is one."""
    containers = [part for part in module.modules() if isinstance(part, CONTAINERS)]
    return any(_with_parameters(child) for container in containers for _, child in _with_parameters(container))
