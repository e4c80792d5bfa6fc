"""`dlkit report`: a page that shows a run, or several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console


def report_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Runs' names or folders; the newest where none is given."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="An .html file, or a folder for it (default: the run's folder)."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
    explain: Annotated[
        int, typer.Option("--explain", metavar="N", help="Explain N mistakes and N right answers (images, texts).")
    ] = 3,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Where the runs' data lies now, if it has moved.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder that holds the runs.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print a document and not the path alone.")] = False,
) -> None:
    """Write a page that shows a run, and print its path; of several runs, also how they compare with the first.

    One HTML file that loads nothing from elsewhere: figures, learning curves, a confusion matrix whose cells open, the
    most confident mistakes, classes, calibration, explanations, recipe, layers, environment. `dlkit eval` comes first;
    what is missing is named on the page with the command that makes it. Default: report.html in the run's folder, of
    several runs comparison.html in the first one's.

    Example: dlkit eval && dlkit report --open
    """
    from dlkit.report.report import report

    found = report(
        runs or (), output=output, explain=explain, data_dir=data_dir, runs_dir=runs_dir, say=console.say
    )  # fmt: skip
    if json:
        console.write_document(found.document(), console.Format.json)
    else:
        console.write_text(str(found.path))
    if open_page:
        _open(found.path)


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        console.warn(f"there is no browser to be found here; open {path} yourself.")
