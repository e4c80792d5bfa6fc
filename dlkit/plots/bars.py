"""Effects as bars from zero with their intervals, as an ablation measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlkit.plots.style import BLUE, GRAY, INK, ORANGE, figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW = 0.34  # inches
MAX_NAME = 28  # characters


@dataclass(frozen=True)
class Bar:
    """An effect and its interval; value is None if none was measured, low and high if the interval is unknown."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None


def write_effects(bars: Sequence[Bar], title: str, x_label: str, path: Path) -> None:
    with figure(path, 4.6, ROW * (len(bars) + 0.2)) as drawing:
        draw_effects(drawing, bars, title, x_label)


def draw_effects(drawing: Figure, bars: Sequence[Bar], title: str, x_label: str) -> None:
    """A row for each bar: blue above zero, orange and hatched below it, with the interval as an error bar."""
    axes = drawing.subplots()
    for row, bar in enumerate(bars):
        text = "not measured"
        if bar.value is not None:
            color, hatch = (BLUE, "") if bar.value > 0 else (ORANGE, "////")
            axes.barh(row, bar.value, 0.6, color=color, hatch=hatch, edgecolor="white", linewidth=0)
            text = f"{bar.value:+.2f}"
        if bar.value is not None and bar.low is not None and bar.high is not None:
            error = [[bar.value - bar.low], [bar.high - bar.value]]
            axes.errorbar(bar.value, row, xerr=error, color=INK, capsize=3, linewidth=1.2)
        axes.text(1.01, row, text, va="center", color=GRAY if bar.value is None else INK,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(bars)), [shorten(bar.label, MAX_NAME) for bar in bars])
    axes.set(title=title, xlabel=x_label, ylim=(len(bars) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
