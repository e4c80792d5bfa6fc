"""Why weights do not fit a network, in a sentence: classes, channels, stem, size of the images, or another network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlkit import registry
from dlkit.layers.order import head
from dlkit.specs import Spec
from dlkit.training.key_names import COUNT, first_convolution, renamed

Shapes = Mapping[str, tuple[int, ...]]


def cause(model: nn.Module, tensors: Mapping[str, Tensor], spec: Spec, options: Mapping[str, Any]) -> str:
    """A sentence with a blank before it for each thing that explains a misfit; "" where nothing does."""
    wanted, theirs = _shapes(model.state_dict()), _shapes(tensors)
    if wanted.keys() - theirs.keys() or theirs.keys() - wanted.keys():
        return _other_network(model, tensors, spec)
    differing = [name for name in wanted if wanted[name] != theirs[name]]
    last = head(model, spec.outputs)
    sentences = []
    for name in differing:
        if name == f"{last}.weight" and theirs[name][0] != wanted[name][0]:
            sentences.append(f"They are for {theirs[name][0]:,} classes, the data have {spec.outputs:,}.")
        elif name == first_convolution(model):
            sentences.append(_of_first_convolution(wanted[name], theirs[name], options))
        elif name != f"{last}.bias" and _reads_another_size(wanted[name], theirs[name], name):
            sentences.append(f"They are for images of another size: {name} has {theirs[name][1]:,} inputs, "
                             f"for this size {wanted[name][1]:,}.")  # fmt: skip
        elif name != f"{last}.bias":
            return _other_network(model, tensors, spec)
    return "".join(f" {sentence}" for sentence in sentences)


def _of_first_convolution(wanted: tuple[int, ...], theirs: tuple[int, ...], options: Mapping[str, Any]) -> str:
    if len(theirs) != 4 or theirs[0] != wanted[0]:
        return "They are of a network of another width."
    if theirs[1] != wanted[1]:
        return f"They read {theirs[1]} channels, the data have {wanted[1]}."
    kernels = f"{theirs[2]}×{theirs[3]}, and this network's {wanted[2]}×{wanted[3]}"
    if "stem" not in options:
        return f"Their first convolution is {kernels}."
    right = "imagenet" if theirs[2] > wanted[2] else "small"
    small = "Small images have a stem of their own; " if right == "imagenet" else ""
    return f"Their stem's convolution is {kernels}. {small}--set model.options.stem={right} takes theirs."


def _reads_another_size(wanted: tuple[int, ...], theirs: tuple[int, ...], name: str) -> bool:
    """Whether a linear layer reads, or positions cover, maps of another size."""
    flat = len(theirs) == len(wanted) == 2 and theirs[0] == wanted[0]
    return flat or ("pos_embed" in name and len(theirs) == 3 and theirs[2] == wanted[2])


def _other_network(model: nn.Module, tensors: Mapping[str, Tensor], spec: Spec) -> str:
    family = type(model).__module__.rpartition(".")[2]  # others take seconds to build
    relatives = [name for name, entry in registry.entries("models").items() if entry.family == family]
    fitting = next((name for name in relatives if _fits(name, tensors, spec)), None)
    if fitting is not None:
        return f" They are of another network: {fitting}."
    own = model.state_dict()
    begin = ", ".join(list(dict.fromkeys(name.partition(".")[0] for name in tensors if name not in own))[:6])
    return f" They are of another network, with layers called {begin}." if begin else ""


def _fits(name: str, tensors: Mapping[str, Tensor], spec: Spec) -> bool:
    """Whether a network of that name has weights of these names and shapes, but for its head and its first layer."""
    module = registry.load("models", name)
    if hasattr(module, "fit") or spec.kind not in registry.entry("models", name).takes:
        return False
    try:
        with torch.device("meta"):
            model = cast(nn.Module, module.build(spec, **registry.resolved_options("models", name, {})))
    except Exception:  # it is not built for such inputs: its own reasons do not matter here
        return False
    wanted, theirs = _shapes(model.state_dict()), _shapes(renamed(tensors, model))
    free = {first_convolution(model), *(f"{head(model, spec.outputs)}.{kind}" for kind in ("weight", "bias"))}
    return wanted.keys() == theirs.keys() and all(wanted[key] == theirs[key] for key in wanted if key not in free)


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if not name.endswith(COUNT)}
