"""The modules of a network whose outputs are feature maps, and the positions of their cells in the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.explanation.methods._gradients import NO_GRADIENT
from dlkit.registry import did_you_mean

MIN_CELLS = 7  # per side, the last maps of networks for 224 pixels; coarser maps localize too little
RADIUS = 4  # cells, at which a Gaussian has fallen below a thousandth of its height


def spatial_layers(model: nn.Module, images: Tensor) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of every module that outputs feature maps, by its path, in the order of each one's last call."""
    shapes: dict[str, tuple[int, int, int]] = {}

    def record(path: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            shapes.pop(path, None)
            shapes[path] = (output.shape[1], output.shape[2], output.shape[3])

    hooks = [
        module.register_forward_hook(lambda module, inputs, output, path=path: record(path, output))
        for path, module in model.named_modules()
        if path
    ]
    try:
        with torch.no_grad():
            model(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def select_layer(model: nn.Module, images: Tensor, layer: str | None) -> str:
    """The requested layer, or the model's own last maps; if those are coarser than 7×7, the last that are not.

    Raises:
        UsageError: there is no such layer, or the network has no feature maps.
    """
    shapes = spatial_layers(model, images)
    if layer is not None:
        if layer not in shapes:
            raise UsageError(f"--layer {layer!r}: no such layer with feature maps. {did_you_mean(layer, shapes)}")
        return layer
    last: str | None = getattr(model, "feature_map", next(reversed(shapes), None))
    if last is None or last not in shapes:
        raise UsageError("the network has no feature maps. Use the method integrated_gradients.")
    if min(shapes[last][1:]) >= MIN_CELLS:
        return last
    candidates = list(shapes)[: list(shapes).index(last) + 1]
    coarse = [path for path in candidates if min(shapes[path][1:]) < MIN_CELLS]
    fine = [path for path in candidates if path not in coarse and not any(path.startswith(f"{c}.") for c in coarse)]
    return fine[-1] if fine else last


@contextmanager
def record_maps(model: nn.Module, path: str) -> Iterator[list[Tensor]]:
    """Within this context each call of the module appends its output maps (N, C, H, W) to the list.

    The network continues with a copy, because the next module may overwrite its input, as an in-place ReLU does.
    """
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.ndim != 4:
            return None
        recorded.append(output)
        return output.clone()

    hook = model.get_submodule(path).register_forward_hook(record)
    try:
        yield recorded
    finally:
        hook.remove()


def maps_and_gradients(model: nn.Module, images: Tensor, targets: Tensor, path: str) -> tuple[Tensor, Tensor]:
    """A layer's output, (N, C, h, w), and the gradient of the targets' logits with respect to it."""
    with torch.enable_grad(), record_maps(model, path) as recorded:
        logits = model(images.detach().clone().requires_grad_())
        if not logits.requires_grad:
            raise UsageError(NO_GRADIENT)
        maps = recorded[-1]
        (gradients,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), maps)
    return maps.detach(), gradients


@dataclass(frozen=True)
class CellAxis:
    """The positions of a map's rows or columns in the image: the center of cell i is at pixel first + stride · i."""

    first: float
    stride: float


def upsample_evenly(maps: Tensor, height: int, width: int) -> Tensor:
    """(N, h, w) -> (N, H, W), the cells spread evenly over the image."""
    H, W = maps.shape[1:]
    return upsample(maps, _even_axis(H, height), _even_axis(W, width), height, width)


def upsample(maps: Tensor, rows: CellAxis, columns: CellAxis, height: int, width: int) -> Tensor:
    """(N, h, w) -> (N, H, W): each pixel is a Gaussian average of the cells around it, with a deviation of one cell.

    A cell's receptive field is larger than its square, and an object that activates several cells lies between them: a
    bilinear map, which peaks at a cell's center, misses a small object by one cell. Beyond the outermost cells their
    values continue, reduced by a quarter for each cell's width, so that the peak lies on the map.
    """
    row_weights, column_weights = _weights(rows, height, maps.shape[1]), _weights(columns, width, maps.shape[2])
    return row_weights.to(maps) @ maps @ column_weights.to(maps).T


def _weights(axis: CellAxis, pixels: int, cells: int) -> Tensor:
    """(pixels, cells): the weight of each cell in a row or column of pixels."""
    position = (torch.arange(pixels) - axis.first) / axis.stride  # in cells
    inside = position.clamp(0, cells - 1)
    neighbors = torch.arange(-RADIUS, cells + RADIUS)  # those beyond the map repeat its outermost cells
    weights = torch.exp(-(inside[:, None] - neighbors).square() / 2)
    weights *= ((1 - (position - inside).abs() / 4).clamp(min=0) / weights.sum(1))[:, None]
    return weights.new_zeros(pixels, cells).index_add_(1, neighbors.clamp(0, cells - 1), weights)


def locate_cells(model: nn.Module, images: Tensor, path: str) -> tuple[CellAxis, CellAxis]:
    """The positions of a layer's rows and columns, derived from the pixels that influence the middle ones.

    A convolution without padding leaves out the border, and the center of a stride-2 convolution is above and to the
    left of the middle of its cell: in a ResNet by half a cell, 16 pixels. Cells that depend on the whole image are
    located by the mean of their gradient.
    """
    noise = torch.randn((2, *images.shape[1:]), generator=torch.Generator().manual_seed(0)).to(images)
    with torch.enable_grad(), record_maps(model, path) as recorded:
        inputs = noise.requires_grad_()
        model(inputs)
        maps = recorded[-1]
        weighted = maps * torch.randn(maps.shape, generator=torch.Generator().manual_seed(1)).to(maps)
        axes = []
        for dim in (2, 3):
            cells, pixels = maps.shape[dim], images.shape[dim]
            influence = {
                cell: _influence(weighted.select(dim, cell).sum(), inputs, dim)
                for cell in (cells // 2, cells // 2 - 1)
                if cell >= 0
            }
            axes.append(_fit_axis(influence, cells, pixels))
    return axes[0], axes[1]


def _influence(value: Tensor, inputs: Tensor, dim: int) -> Tensor:
    """How strongly each row (dim 2) or column (3) of the inputs influences a value."""
    (gradient,) = torch.autograd.grad(value, inputs, retain_graph=True)
    return gradient.double().square().sum([other for other in range(4) if other != dim]).cpu()


def _fit_axis(influence: dict[int, Tensor], cells: int, pixels: int) -> CellAxis:
    even = _even_axis(cells, pixels)
    extents = {cell: weights.nonzero()[:, 0] for cell, weights in influence.items()}
    if any(len(extent) == 0 for extent in extents.values()):
        return even
    inside = all(extent[0] > 0 and extent[-1] < pixels - 1 for extent in extents.values())
    (cell, center), *others = ((cell, float(extent[0] + extent[-1]) / 2) for cell, extent in extents.items())
    if inside and others and center > others[0][1]:
        stride = center - others[0][1]
        return CellAxis(center - stride * cell, stride)
    central = list(influence)[: 2 - cells % 2]  # one or two, so that the image's border cuts off both sides equally
    means = [float((influence[c] * torch.arange(pixels)).sum() / influence[c].sum()) for c in central]
    return CellAxis(sum(means) / len(central) - even.stride * sum(central) / len(central), even.stride)


def _even_axis(cells: int, pixels: int) -> CellAxis:
    stride = pixels / cells
    return CellAxis((stride - 1) / 2, stride)
