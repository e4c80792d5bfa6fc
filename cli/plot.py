"""`dlkit plot`: learning curves of one or several runs, in the terminal or as a figure."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console
from .console import Format

if TYPE_CHECKING:
    from dlkit.plots.curves import MetricHistory

CHART_HEIGHT = 14  # rows of the plot area, if the terminal is tall enough
EXTRA_ROWS = 6  # of title, axis, legend and the next prompt


def plot_command(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Names or folders (default: the newest run).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write a .png, .svg or .pdf; prints its path."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="METRIC", help="val/top1, train/loss, lr, …; may repeat."),
    ] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="The folder of the runs.")] = Path("runs"),
    format: Annotated[Format, typer.Option(help="Output format; auto draws on a terminal.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Plot metrics over epochs: loss and accuracy of a single run, or the validation metrics of several.

    Draws in the terminal; in a pipe it writes numbers: step, epoch, run, metric, value. A run may still be training.
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
    histories, metrics = curves.load_histories(folders, console.say), metric or []
    for sentence in curves.missing_metrics(histories, metrics):
        console.note(sentence)
    if output is not None:
        _write_figure(histories, metrics, output)
    elif format == Format.auto and not json and console.on_terminal():
        _draw_in_terminal(histories, metrics)
    else:
        console.write_rows(curves.rows(histories, metrics), curves.COLUMNS, console.resolve(format, json))


def _write_figure(histories: list[MetricHistory], metrics: list[str], output: Path) -> None:
    from dlkit.plots import curves, learning_curves

    one_legend = len(histories) > 1 or bool(metrics)
    learning_curves.write_curves(curves.make_panels(histories, metrics), output, one_legend=one_legend)
    console.write_text(str(output))


def _draw_in_terminal(histories: list[MetricHistory], metrics: list[str]) -> None:
    from dlkit.plots import curves
    from dlkit.plots.terminal import chart

    size, panels = shutil.get_terminal_size(), curves.make_panels(histories, metrics)
    available = (size.lines - 2) // len(panels) - EXTRA_ROWS
    for panel in panels:
        height = min(CHART_HEIGHT, max(available, CHART_HEIGHT // 2))
        console.write_chart(chart(panel, size.columns, height, unicode=console.takes_unicode()))
