"""The loss of a learning rate range test over the learning rate, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlkit.plots.style import BLUE, GRAY, ORANGE, figure, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = tuple[float, float]


def write_lr_range(
    losses: Sequence[Point], smoothed: Sequence[Point], suggestion: float | None, title: str, path: Path
) -> None:
    """Draw points (lr, loss), and the suggested learning rate as a vertical line."""
    with figure(path, 5.8, 3.3) as drawing:
        draw_lr_range(drawing, losses, smoothed, suggestion, title)


def draw_lr_range(
    drawing: Figure, losses: Sequence[Point], smoothed: Sequence[Point], suggestion: float | None, title: str
) -> None:
    from matplotlib.ticker import FuncFormatter

    axes = drawing.subplots()
    highest = max(loss for _, loss in smoothed)
    (batch,) = axes.semilogx(*zip(*losses, strict=True), color=GRAY, linewidth=0.7, linestyle=":")
    (mean,) = axes.semilogx(*zip(*smoothed, strict=True), color=BLUE, linewidth=2)
    handles, labels = [batch, mean], ["loss of a batch", "smoothed loss"]
    if suggestion is not None:
        handles.append(axes.axvline(suggestion, color=ORANGE, linestyle="--"))
        labels.append(f"suggested learning rate {suggestion:g}")
    axes.set(title=title, xlabel="learning rate", ylabel="loss")
    axes.set_ylim(min(0.0, *(loss for _, loss in losses)), 1.1 * highest)  # the last losses may be far out
    axes.set_xlim(losses[0][0], losses[-1][0])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    legend(axes, handles, labels)
