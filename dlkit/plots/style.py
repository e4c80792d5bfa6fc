"""The one style of all figures, and the one way to a PNG, SVG or PDF file. Imports matplotlib only when it draws.

Curves differ in color, dashes and marker, so that they are distinguished in print and by color-blind readers. No global
state: no pyplot, no change of matplotlib's settings beyond the drawing. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import atomic_io, cache
from dlkit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
FORMATS = (".png", ".svg", ".pdf")
INK, GRAY, GRID = "#212529", "#6c757d", "#d9dde1"
BLUE, ORANGE = "#175ca3", "#d55e00"
COLORS = (BLUE, ORANGE, "#009e73", "#b8528c", "#3aa0dc", "#8a6d00", "#222222")
DASHES = ("-", "--", "-.", ":")
MARKERS = "os^DvPX*"
MARKED_POINTS = 12  # of a curve, about
MAX_LABEL = 40  # characters
JOINERS = "\u200c\u200d"  # within emoji sequences, Persian and Indic words
FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Hiragino Sans", "Microsoft YaHei")  # used if installed
RC: Any = {
    "figure.dpi": DPI, "savefig.dpi": DPI, "savefig.bbox": "tight", "savefig.pad_inches": 0.1,
    "figure.subplot.left": 0, "figure.subplot.right": 1, "figure.subplot.bottom": 0, "figure.subplot.top": 1,
    "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.edgecolor": GRAY, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": GRID, "grid.linewidth": 0.6, "lines.linewidth": 1.5, "lines.markersize": 4, "legend.frameon": False,
    "svg.hashsalt": "dlkit", "pdf.fonttype": 42,
    "text.parse_math": False,  # a class may be named $x$
}  # fmt: skip
METADATA: dict[str, dict[str, Any]] = {  # no dates, no versions
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": "dlkit"},
    ".pdf": {"CreationDate": None, "Producer": "dlkit", "Creator": "dlkit"},
}


def check_format(path: Path) -> None:
    """Raises: UsageError if a figure cannot be written under this name."""
    if path.suffix.lower() not in FORMATS:
        other = path.with_suffix(".png") if path.name else Path("figure.png")
        raise UsageError(f"-o {path}: figures are written as .png, .svg or .pdf. Name it {other}, for example.")


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on, written to `path` when the block ends; its folder is created if needed.

    Width and height, in inches, are those of the axes; the file is as large as they and the labels around them.

    Raises:
        UsageError: unknown file format.
        StorageError: the disk refuses.
    """
    check_format(path)
    with atomic_io.storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    buffer, ending = io.BytesIO(), path.suffix.lower()
    with styled(width, height) as drawing:
        yield drawing
        drawing.savefig(buffer, format=ending[1:], metadata=METADATA[ending])
    atomic_io.write_bytes(path, buffer.getvalue())


@contextmanager
def styled(width: float = 6.0, height: float = 4.0) -> Iterator[Figure]:
    """A figure in dlkit's style, of matplotlib's defaults and not the user's; the style ends with the block."""
    with _silence():
        _import_matplotlib()
        import matplotlib
        from matplotlib import font_manager
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        defaults: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
        installed = set(font_manager.get_font_names())
        fonts = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
        with matplotlib.rc_context({**defaults, **RC, "font.family": fonts}):
            drawing = Figure(figsize=(width, height))
            FigureCanvasAgg(drawing)
            yield drawing


def _import_matplotlib() -> None:
    """Import matplotlib with its font cache in dlkit's cache folder, unless the user has chosen a folder."""
    if "matplotlib.font_manager" in sys.modules or "MPLCONFIGDIR" in os.environ:
        return
    folder = cache.home() / "matplotlib"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # matplotlib uses a temporary folder then
        return
    os.environ["MPLCONFIGDIR"] = str(folder)
    try:
        import matplotlib
        import matplotlib.font_manager

        matplotlib.get_cachedir()  # it remembers the folder
    finally:
        del os.environ["MPLCONFIGDIR"]


@contextmanager
def _silence() -> Iterator[None]:
    """No messages about font caches and missing letters."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
            yield
    finally:
        logger.setLevel(level)


def line_style(index: int, points: int) -> dict[str, Any]:
    """Color, dashes and marker of a curve: no two of the first 28 are alike, even without color."""
    step = max(1, points // MARKED_POINTS)
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[(index + index // len(COLORS)) % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markevery": (index % step, step),
    }


def legend(axes: Axes | Figure, handles: Sequence[Any], labels: Sequence[str], **options: Any) -> None:
    """A legend with these labels unchanged, even if one starts with an underscore."""
    box = axes.legend(handles, [" "] * len(labels), **options)
    for text, label in zip(box.get_texts(), labels, strict=True):
        text.set_text(shorten(label))


def shorten(name: str, limit: int = MAX_LABEL) -> str:
    """A name on one line without control characters, with its middle omitted if it is too long."""
    printable = "".join(letter if letter.isprintable() or letter in JOINERS else "?" for letter in name)
    if len(printable) <= limit:
        return printable
    end = (limit - 1) // 2
    return f"{printable[: limit - 1 - end]}…{printable[len(printable) - end :]}"
