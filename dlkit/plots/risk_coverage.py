"""Error rate over coverage: what is gained by abstaining from the least confident answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlkit.plots.style import BLUE, INK, ORANGE, figure, legend

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

POINTS = 2000  # drawn, at most


def write_risk_coverage(
    coverage: npt.NDArray[np.float64],
    risk: npt.NDArray[np.float64],
    title: str,
    path: Path,
    accepted: float | None = None,
    max_error: float | None = None,
) -> None:
    with figure(path, 4.6, 3.2) as drawing:
        draw_risk_coverage(drawing, coverage, risk, title, accepted, max_error)


def draw_risk_coverage(
    drawing: Figure,
    coverage: npt.NDArray[np.float64],
    risk: npt.NDArray[np.float64],
    title: str,
    accepted: float | None = None,
    max_error: float | None = None,
) -> None:
    """The curve (N,), (N,); with a threshold, the share that it accepts and the greatest error that it allows."""
    axes, step = drawing.subplots(), max(1, len(coverage) // POINTS)
    (curve,) = axes.plot(100 * coverage[::-step], 100 * risk[::-step], color=BLUE)
    lines, labels = [curve], ["error rate of the accepted answers"]
    if accepted is not None and max_error is not None:
        lines.append(axes.axvline(100 * accepted, color=INK, linestyle=":", linewidth=1))
        lines.append(axes.axhline(100 * max_error, color=ORANGE, linestyle="--", linewidth=1))
        labels += ["accepted by the threshold", "greatest error rate"]
    axes.set(title=title, xlabel="accepted answers (%)", ylabel="error rate (%)", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    legend(axes, lines, labels, loc="upper left")
