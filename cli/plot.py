"""plot: learning curves of one run or of several, in the terminal or as a picture."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console
from .console import Format

if TYPE_CHECKING:
    from dlkit.plots.curves import Recorded

CHART_HEIGHT = 14  # rows of a drawing, where the terminal is high enough
AROUND = 6  # rows of title, axis, names and the next prompt


def plot_command(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Names or folders; else the newest.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw a .png, .svg or .pdf; prints its path.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="METRIC", help="val/top1, train/loss, lr, …; may repeat."),
    ] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="Where the run folders are.")] = Path(
        "runs"
    ),
    format: Annotated[Format, typer.Option(help="Of the numbers; auto draws on a terminal.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Plot metrics over epochs: of one run its loss and accuracy, of several the validation's, overlaid.

    On a terminal it is drawn there; in a pipe the numbers are written: step, epoch, run, metric, value. A run may still
    be in training.

    Example: dlkit plot first second --metric val/top1 -o compared.pdf
    """
    if output is not None:
        from dlkit.plots.style import check_format

        check_format(output)
    from dlkit.plots import curves
    from dlkit.runs import run_folder

    names: list[str | None] = list(dict.fromkeys(runs)) if runs else [None]
    folders = [run_folder.find(name, runs_dir, trained=False) for name in names]
    if not runs:
        console.say(f"important: run: {folders[0].path}")
    recorded, metrics = curves.recorded(folders, console.say), metric or []
    for sentence in curves.without(recorded, metrics):
        console.note(sentence)
    if output is not None:
        _draw(recorded, metrics, output)
    elif format == Format.auto and not json and console.on_terminal():
        _show(recorded, metrics)
    else:
        console.write_rows(curves.rows(recorded, metrics), curves.COLUMNS, console.resolve(format, json))


def _draw(recorded: list[Recorded], metrics: list[str], output: Path) -> None:
    from dlkit.plots import curves, learning_curves

    one_legend = len(recorded) > 1 or bool(metrics)
    learning_curves.write_curves(curves.panels(recorded, metrics), output, one_legend=one_legend)
    console.write_text(str(output))


def _show(recorded: list[Recorded], metrics: list[str]) -> None:
    from dlkit.plots import curves
    from dlkit.plots.terminal import chart

    size, panels = shutil.get_terminal_size(), curves.panels(recorded, metrics)
    room = (size.lines - 2) // len(panels) - AROUND
    for panel in panels:
        height = min(CHART_HEIGHT, max(room, CHART_HEIGHT // 2))
        console.write_chart(chart(panel, size.columns, height, unicode=console.takes_unicode()))
