"""A confusion matrix as a figure, with the counts if there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dlkit.plots.style import BLUE, ORANGE, figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Counts = npt.NDArray[np.int64]  # (K, K): rows are the true classes, columns the predicted ones

MAX_COUNTED = 20  # classes; beyond, cells are too small for counts
MAX_CELLS = 1000  # along a side; beyond, a cell shows the highest share of several classes
MAX_NAMES = 50  # beside an axis
SIDE, CHARACTER = 7.0, 0.075  # inches
MAX_NAME = 24  # characters


def write_confusion_matrix(counts: Counts, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a matrix whose cells are shaded by their share of the row, so that rare errors are seen: √share."""
    side = SIDE
    if len(classes) <= MAX_COUNTED:
        side = max(2.5, len(classes) * _cell_width(counts))
    with figure(path, side, side) as drawing:
        draw_confusion_matrix(drawing, counts, classes, title)


def draw_confusion_matrix(drawing: Figure, counts: Counts, classes: Sequence[str], title: str) -> None:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.ticker import PercentFormatter

    axes, side = drawing.subplots(), drawing.get_figwidth()
    shares = _pooled(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    diagonal = np.eye(len(shares), dtype=bool)
    extent = (-0.5, len(classes) - 0.5, len(classes) - 0.5, -0.5)
    for index, (label, color, hidden) in enumerate((("correct", BLUE, ~diagonal), ("wrong", ORANGE, diagonal))):
        shades = LinearSegmentedColormap.from_list(label, ["white", color])
        image = axes.imshow(
            np.ma.masked_where(hidden, shares), shades, PowerNorm(0.5, 0, 1), extent=extent, interpolation="nearest"
        )
        box = drawing.add_axes((1 + (0.2 + index) / side, 0, 0.15 / side, min(1, 3 / side)))
        bar = drawing.colorbar(image, cax=box, label=f"share of the row, {label}")
        bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1])
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bar.ax.grid(False)
    axes.grid(False)
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    _name_classes(axes, classes, _cell_width(counts))
    if len(classes) <= MAX_COUNTED:
        for row, column in np.argwhere(counts > 0).tolist():
            color = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)


def _name_classes(axes: Axes, classes: Sequence[str], cell: float) -> None:
    names = [shorten(name, MAX_NAME) for name in classes]
    indices = range(0, len(names), -(-len(names) // MAX_NAMES))
    shown = [names[index] for index in indices]
    is_narrow = len(names) > MAX_COUNTED or max(map(len, names)) * CHARACTER > cell
    axes.set_xticks(indices, shown, rotation=90 if is_narrow else 0)
    axes.set_yticks(indices, shown)
    if len(names) > MAX_COUNTED:
        axes.tick_params(labelsize=7)


def _cell_width(counts: Counts) -> float:
    return max(0.42, len(str(counts.max())) * CHARACTER + 0.1)


def _pooled(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """At most MAX_CELLS rows and columns; a cell is the maximum of those that it replaces."""
    if len(shares) <= MAX_CELLS:
        return shares
    starts = np.arange(MAX_CELLS) * len(shares) // MAX_CELLS
    return np.maximum.reduceat(np.maximum.reduceat(shares, starts, axis=0), starts, axis=1)
