"""A reliability diagram: how often answers of each confidence are correct.

Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017 (1706.04599), figure 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dlkit.plots.style import BLUE, GRAY, INK, ORANGE, figure, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Sums = npt.NDArray[np.float64]  # (3, bins): answers, confidence and correct answers, summed by bin of confidence


def write_calibration(sums: Sums, title: str, path: Path) -> None:
    with figure(path, 3.6, 4.6) as drawing:
        draw_calibration(drawing, sums, title)


def draw_calibration(drawing: Figure, sums: Sums, title: str) -> None:
    """The accuracy of each bin, its gap to the mean confidence hatched; below, how many answers a bin holds."""
    bins = sums.shape[1]
    filled = np.flatnonzero(sums[0])
    count = sums[0, filled]
    confidence, accuracy = sums[1, filled] / count, sums[2, filled] / count
    left, width = filled / bins, 1 / bins
    upper, lower = drawing.subplots(2, 1, sharex=True, height_ratios=(4, 1), gridspec_kw={"hspace": 0.08})
    bars = upper.bar(left, accuracy, width, align="edge", color=BLUE, edgecolor="white")
    gaps = upper.bar(
        left, confidence - accuracy, width, accuracy, align="edge", color="none", edgecolor=ORANGE, hatch="////"
    )
    (ideal,) = upper.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    upper.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    legend(upper, [bars, gaps, ideal], ["accuracy", "gap to the confidence", "perfect calibration"], loc="upper left")
    lower.bar(left, count, width, align="edge", color=GRAY, edgecolor="white")
    lower.set(xlabel="confidence", ylabel="answers")
