"""`dlkit report`: an HTML page about a run, or several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console


def report_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Names or folders of runs (default: the newest)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="An .html file, or a folder for it (default: the run's folder)."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    explain: Annotated[
        int, typer.Option("--explain", metavar="N", help="Explain N mistakes and N correct predictions.")
    ] = 3,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The runs' data folder, if it has moved.")] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder of the runs.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document instead of the path.")] = False,
) -> None:
    """Write an HTML page about a run, and print its path; several runs are compared with the first.

    A single HTML file that loads nothing else: metrics, learning curves, a confusion matrix whose cells open, the most
    confident mistakes, classes, calibration, explanations, recipe, layers, environment. Run `dlkit eval` first; the
    page names what is missing with the command that creates it. Default: report.html in the run's folder, or
    comparison.html in the first one's for several runs.
    """
    from dlkit.report.report import report

    page = report(runs or (), output=output, explain=explain, data_dir=data_dir, runs_dir=runs_dir, say=console.say)
    if json:
        console.write_document(page.document(), console.Format.json)
    else:
        console.write_text(str(page.path))
    if open_page:
        _open(page.path)


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        console.warn(f"no browser found. Open {path} yourself.")
