"""The modules of a network whose outputs are maps in space, and what they give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.registry import did_you_mean

COARSEST = 7  # cells a side, what networks for 224 pixels end with; fewer tell too little of where
REACH = 4  # cells, beyond which a Gaussian has less than a thousandth of its height


def spatial_layers(model: nn.Module, images: Tensor) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of every module that gives maps, by its path, in the order of the last call of each."""
    found: dict[str, tuple[int, int, int]] = {}

    def note(path: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            found.pop(path, None)
            found[path] = (output.shape[1], output.shape[2], output.shape[3])

    named = [(path, module) for path, module in model.named_modules() if path]
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, path=path: note(path, output))
        for path, module in named
    ]
    try:
        with torch.no_grad():
            model(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return found


def chosen_layer(model: nn.Module, images: Tensor, layer: str | None) -> str:
    """The layer that was named, or the model's own last maps; where those are coarser than 7×7, the last that are not.

    Raises:
        UsageError: there is no such layer, or the network has no maps at all.
    """
    found = spatial_layers(model, images)
    if layer is not None:
        if layer not in found:
            raise UsageError(f"--layer {layer!r} is none that gives maps. {did_you_mean(layer, found)}")
        return layer
    known: str | None = getattr(model, "feature_map", next(reversed(found), None))
    if known is None or known not in found:
        raise UsageError("the network has no maps in space to look at. Take the method integrated_gradients.")
    if min(found[known][1:]) >= COARSEST:
        return known
    before = list(found)[: list(found).index(known) + 1]
    coarse = [path for path in before if min(found[path][1:]) < COARSEST]
    fine = [path for path in before if path not in coarse and not any(path.startswith(f"{c}.") for c in coarse)]
    return fine[-1] if fine else known


@contextmanager
def kept_maps(model: nn.Module, path: str) -> Iterator[list[Tensor]]:
    """Within, each call of that module adds the maps that it gives (N, C, H, W) to the list.

    The network goes on with a copy: what comes next may overwrite it, as a ReLU in place does.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.ndim != 4:
            return None
        kept.append(output)
        return output.clone()

    hook = model.get_submodule(path).register_forward_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()


def maps_and_gradients(model: nn.Module, images: Tensor, targets: Tensor, path: str) -> tuple[Tensor, Tensor]:
    """What a layer gives, (N, C, h, w), and the gradient of the targets' logits by it."""
    with torch.enable_grad(), kept_maps(model, path) as kept:
        logits = model(images.detach().clone().requires_grad_())
        if not logits.requires_grad:
            raise UsageError("the model's answer has no gradient. Take the method occlusion.")
        maps = kept[-1]
        (gradients,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), maps)
    return maps.detach(), gradients


def enlarged(maps: Tensor, height: int, width: int) -> Tensor:
    """(N, h, w) -> (N, H, W), the cells spread evenly over the image."""
    H, W = maps.shape[1:]
    return placed(maps, _evenly(H, height), _evenly(W, width), height, width)


def placed(maps: Tensor, rows: Places, columns: Places, height: int, width: int) -> Tensor:
    """(N, h, w) -> (N, H, W): each pixel the mean of the cells around it, by a Gaussian of one cell's deviation.

    A cell sees more than its square, and what activates several cells lies between them: a bilinear map, which peaks at
    a cell, misses a small object by one. Beyond the outermost cells their values go on, less a quarter for each cell's
    width, so that the peak is on the map.
    """
    return _shares(rows, height, maps.shape[1]).to(maps) @ maps @ _shares(columns, width, maps.shape[2]).to(maps).T


def _shares(places: Places, pixels: int, cells: int) -> Tensor:
    """(pixels, cells): how much of each cell's value a row or column of pixels is given."""
    at = (torch.arange(pixels) - places.first) / places.stride  # in cells
    on_the_map = at.clamp(0, cells - 1)
    around = torch.arange(-REACH, cells + REACH)  # those beyond the map are its outermost again
    shares = torch.exp(-(on_the_map[:, None] - around).square() / 2)
    shares *= ((1 - (at - on_the_map).abs() / 4).clamp(min=0) / shares.sum(1))[:, None]
    return shares.new_zeros(pixels, cells).index_add_(1, around.clamp(0, cells - 1), shares)


@dataclass(frozen=True)
class Places:
    """Where the cells of a map look: cell i at pixel first + stride · i."""

    first: float
    stride: float


def cell_places(model: nn.Module, images: Tensor, path: str) -> tuple[Places, Places]:
    """Where a layer's rows and columns look, found from which pixels move the middle ones.

    A convolution without padding leaves the border out, and one of stride 2 looks up and to the left of the middle of
    its cell: in a ResNet by half a cell, 16 pixels. Cells that see the whole image are placed by their gradient's mean.
    """
    noise = torch.randn((2, *images.shape[1:]), generator=torch.Generator().manual_seed(0)).to(images)
    with torch.enable_grad(), kept_maps(model, path) as kept:
        inputs = noise.requires_grad_()
        model(inputs)
        maps = kept[-1]
        weighed = maps * torch.randn(maps.shape, generator=torch.Generator().manual_seed(1)).to(maps)
        found = []
        for axis in (2, 3):
            cells, pixels = maps.shape[axis], images.shape[axis]
            looks = {
                cell: _looks_at(weighed.select(axis, cell).sum(), inputs, axis)
                for cell in (cells // 2, cells // 2 - 1)
                if cell >= 0
            }
            found.append(_fitted(looks, cells, pixels))
    return found[0], found[1]


def _looks_at(value: Tensor, inputs: Tensor, axis: int) -> Tensor:
    """How much each row (axis 2) or column (3) of the inputs moves a value."""
    (gradient,) = torch.autograd.grad(value, inputs, retain_graph=True)
    return gradient.double().square().sum([other for other in range(4) if other != axis]).cpu()


def _fitted(looks: dict[int, Tensor], cells: int, pixels: int) -> Places:
    even = _evenly(cells, pixels)
    ends = {cell: weights.nonzero()[:, 0] for cell, weights in looks.items()}
    if any(len(found) == 0 for found in ends.values()):
        return even
    inside = all(found[0] > 0 and found[-1] < pixels - 1 for found in ends.values())
    (cell, middle), *others = ((cell, float(found[0] + found[-1]) / 2) for cell, found in ends.items())
    if inside and others and middle > others[0][1]:
        stride = middle - others[0][1]
        return Places(middle - stride * cell, stride)
    central = list(looks)[: 2 - cells % 2]  # one or two, so that what the image's border cuts off weighs on both sides
    mean = sum(float((looks[c] * torch.arange(pixels)).sum() / looks[c].sum()) for c in central) / len(central)
    return Places(mean - even.stride * sum(central) / len(central), even.stride)


def _evenly(cells: int, pixels: int) -> Places:
    stride = pixels / cells
    return Places((stride - 1) / 2, stride)
