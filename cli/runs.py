"""runs: what has been trained: list it, show it, compare it, tidy it up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import console
from .compare import CompareCommand, compare_command
from .console import Format

runs_app = typer.Typer(help="Runs: list, show, compare, prune, rm.")

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


runs_app.command("compare", cls=CompareCommand)(compare_command)


@runs_app.command("rm")
def rm_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or folders.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    runs_dir: RunsDir = Path("runs"),
    format: AsFormat = Format.auto,
    json: AsJson = False,
) -> None:
    """Delete runs, with all that is in their folders."""
    from dlkit.engine import run_folder
    from dlkit.verbs.tidy import remove

    found = [run_folder.find(run, runs_dir) for run in runs]  # all must be there before the first goes
    _write_removed([asdict(remove(run, dry_run=dry_run)) for run in found], dry_run, format, json)


@runs_app.command("prune")
def prune_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    runs_dir: RunsDir = Path("runs"),
    format: AsFormat = Format.auto,
    json: AsJson = False,
) -> None:
    """Delete finished runs' checkpoints other than the best and the last, and what killed processes left behind."""
    from dlkit.verbs.tidy import prune

    _write_removed([asdict(removed) for removed in prune(runs_dir, dry_run=dry_run)], dry_run, format, json)


def _write_removed(rows: list[dict[str, object]], dry_run: bool, format: Format, json: bool) -> None:
    documents = ({"schema": "dlkit.removed/1", **row} for row in rows)
    console.write_rows(documents, ("path", "bytes"), console.resolve(format, json))
    freed = sum(int(str(row["bytes"])) for row in rows)
    console.note(f"{'would free' if dry_run else 'freed'} {freed / 2**20:,.1f} MiB")
