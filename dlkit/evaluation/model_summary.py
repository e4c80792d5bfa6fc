"""What a model is made of: its layers in the order they run, their output shapes, parameters and multiply-adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlkit import packages, registry
from dlkit.data.text.padding import Sequences
from dlkit.data.text.tree_batches import Trees
from dlkit.specs import ImageSpec, SequenceSpec, Spec, TreeSpec

EXAMPLE_WORDS = 20  # a sentence of SST has 19


@dataclass(frozen=True)
class Layer:
    """One call of a layer. Parameters are counted where a layer is called first."""

    name: str
    kind: str
    output: tuple[int, ...]  # without the batch
    parameters: int
    macs: int  # multiplications of an input by a weight, for one input; additions of a bias are not counted


@dataclass(frozen=True)
class ModelSummary:
    """A model for one spec. `document` is its file's docstring: the paper, and how the model differs from it."""

    name: str
    family: str
    document: str
    options: Mapping[str, Any]
    reads: str  # images, sequences or trees
    input: tuple[int, ...]  # an image's channels, height, width; a sequence's steps, and features; a tree's words
    classes: int
    parameters: int
    trainable: int
    macs: int
    notes: tuple[str, ...]  # what was chosen for this spec, such as the stem
    layers: tuple[Layer, ...]


def summarize(name: str, spec: Spec | None = None, options: Mapping[str, Any] | None = None) -> ModelSummary:
    """Build the model without memory for its weights, and follow one input through it.

    spec is by default the input that the model was made for.
    Raises: UsageError for an unknown model or an option that it cannot use.
    """
    entry, module = registry.entry("models", name), registry.load("models", name)
    resolved = registry.resolved_options("models", name, options or {})
    spec = spec or natural(name)
    # A tree is followed by its indices, which the meta device has not.
    with torch.device("cpu" if isinstance(spec, TreeSpec) else "meta"):
        model: nn.Module = module.build(spec, **resolved).eval()
        layers = _layers(model, example(spec), by_operators=packages.is_member(name))
    return ModelSummary(
        name=name,
        family=entry.family,
        document=entry.document,
        options=resolved,
        reads=spec.kind,
        input=_size(spec),
        classes=len(spec.classes),
        parameters=sum(weight.numel() for weight in model.parameters()),
        trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        macs=sum(layer.macs for layer in layers),
        notes=getattr(model, "notes", ()),
        layers=layers,
    )


def natural(name: str) -> Spec:
    """The input that a model was made for."""
    module = registry.load("models", name)
    if packages.is_member(name):
        return natural_spec(*module.natural(name.partition("/")[2]))
    sizes = getattr(module, "NATURAL_OF", {}).get(name, module.NATURAL)
    if "images" in registry.entry("models", name).takes:
        return natural_spec(*sizes)
    words, classes = sizes
    return TreeSpec(tuple(str(number) for number in range(classes)), vocabulary=words)


def example(spec: Spec) -> Tensor | Sequences | Trees:
    """One input, without meaning: an image, 20 steps, or a binary tree of 20 words that branches to the left."""
    if isinstance(spec, ImageSpec):
        return torch.zeros(1, *_size(spec))
    if isinstance(spec, SequenceSpec):
        type = torch.long if spec.features is None else torch.float
        return Sequences(torch.zeros(1, *_size(spec), dtype=type), torch.tensor([EXAMPLE_WORDS], device="cpu"))
    return left_branching(EXAMPLE_WORDS)


def left_branching(words: int) -> Trees:
    """The first two words are one node, this and the third one another, and so on."""
    inner = torch.arange(words - 1)  # above the leaves, from the lowest on
    left = torch.cat([torch.zeros(1, dtype=torch.long), words + inner[:-1]])
    children, nodes = torch.stack([left, inner + 1], dim=1), 2 * words - 1
    parents = torch.full((nodes,), -1).index_copy(0, children.flatten(), (words + inner).repeat_interleave(2))
    return Trees(
        tokens=torch.ones(nodes, dtype=torch.long).index_fill(0, words + inner, 0),
        parents=parents,
        children=torch.cat([torch.full((words, 2), -1), children]),
        tree=torch.zeros(nodes, dtype=torch.long),
        roots=torch.tensor([nodes - 1]),
        output_nodes=torch.tensor([nodes - 1]),
        levels=(0, *range(words, nodes + 1)),
        edges=torch.stack([children.flatten(), (words + inner).repeat_interleave(2)], dim=1),
        edge_levels=(0, *range(0, 2 * words - 1, 2)),
        leaves=torch.arange(words)[None],
        lengths=torch.tensor([words]),
    )


def _size(spec: Spec) -> tuple[int, ...]:
    if isinstance(spec, ImageSpec):
        return spec.channels, spec.height, spec.width
    if isinstance(spec, SequenceSpec) and spec.features is not None:
        return EXAMPLE_WORDS, spec.features
    return (EXAMPLE_WORDS,)


def natural_spec(channels: int, height: int, width: int, classes: int) -> ImageSpec:
    """A spec of that size whose classes are called by their numbers."""
    names = tuple(str(number) for number in range(classes))
    return ImageSpec(channels, height, width, names, mean=(0.5,) * channels, std=(0.5,) * channels)


@torch.no_grad()
def _layers(model: nn.Module, inputs: Tensor | Sequences | Trees, by_operators: bool = False) -> tuple[Layer, ...]:
    """The calls of layers; by_operators also counts what a package's modules multiply outside of layers."""
    layers: list[Layer] = []
    counted: set[int] = set()
    hooks = [
        module.register_forward_hook(_recorder(name, layers, counted))
        for name, module in model.named_modules()
        if _is_layer(module)
    ]
    operations = FlopCounterMode(display=False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it multiplies where nothing counts
    with operations if by_operators else nullcontext():
        model(inputs)
    torch.backends.mha.set_fastpath_enabled(fast)
    for hook in hooks:
        hook.remove()
    return tuple(_with_operations(layers, operations, type(model).__name__) if by_operators else layers)


def _with_operations(layers: Sequence[Layer], operations: FlopCounterMode, root: str) -> Iterator[Layer]:
    """The layers, those that count nothing themselves with the operations in them that no layer in them counts."""
    totals = {path: sum(count.values()) // 2 for path, count in operations.get_flop_counts().items()}
    calls = Counter(layer.name for layer in layers)
    macs = Counter[str]()
    for layer in layers:
        macs[layer.name] += layer.macs
    for name in sorted(calls, key=lambda name: name.count("."), reverse=True):  # what lies in others first
        within = sum(count for other, count in macs.items() if other.startswith(f"{name}."))
        macs[name] = macs[name] or totals.get(f"{root}.{name}", within) - within
    return (replace(layer, macs=macs[layer.name] // calls[layer.name]) for layer in layers)


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, nn.Identity | nn.RNNBase):  # dlkit.layers.recurrent.Pass counts torch's recurrent layers
        return False
    own = next(module.parameters(recurse=False), None) is not None or hasattr(module, "multiply_adds")
    return own or next(module.children(), None) is None


def _recorder(name: str, layers: list[Layer], counted: set[int]) -> Callable[[nn.Module, Any, Any], None]:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output  # torch's attention gives its weights too
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
