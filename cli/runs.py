"""runs: list and show what has been trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import console
from .console import Format

runs_app = typer.Typer(help="Runs: list, show.")

COLUMNS = ("name", "model", "dataset", "status", "epochs", "metric", "best", "when")

RunsDir = Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="Where the run folders are.")]
AsFormat = Annotated[Format, typer.Option("--format", help="Of the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Same as --format json.")]


@runs_app.command("list")
def list_command(runs_dir: RunsDir = Path("runs"), format: AsFormat = Format.auto, json: AsJson = False) -> None:
    """List the runs, oldest first."""
    from dlkit.verbs.runs import listing

    rows = ({"schema": "dlkit.runs/1", **asdict(summary)} for summary in listing(runs_dir, console.say))
    console.write_rows(rows, COLUMNS, console.resolve(format, json))


@runs_app.command("show")
def show_command(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A name or a folder; else the newest.")] = None,
    runs_dir: RunsDir = Path("runs"),
    format: AsFormat = Format.auto,
    json: AsJson = False,
) -> None:
    """Show one run: how it ended, what it reached, on what machine."""
    from dlkit.engine import run_folder
    from dlkit.verbs.runs import details

    found = run_folder.find(run, runs_dir)
    if run is None:
        console.note(f"run: {found.path}")
    console.write_document(details(found), console.resolve(format, json))
