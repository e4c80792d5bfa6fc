"""`dlkit reproduce`: train a run again and compare it bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dlkit.errors import VerificationError

from . import console
from .console import Format


def reproduce_command(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A name or a folder (default: the newest run).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Compare only the first N; the schedule is the complete run's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the new run (default: RUN-reproduced).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="The run's data folder, if it has moved.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the runs.")] = Path("runs"),
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Train a run again from its recipe, and compare data and weights with the recorded hashes.

    The data is compared first, so that a changed file is found before training. Then the weights' SHA-256 after each
    epoch. The first difference ends the command with exit 6 and is reported: a setting, a data file or an epoch, with
    any changes of packages, threads or hardware.
    """
    from dlkit.experiments.reproduce import reproduce
    from dlkit.runs import run_folder

    folder = run_folder.find(run, runs_dir)
    if run is None:
        console.say(f"important: run: {folder.path}")
    result = reproduce(
        folder, epochs=epochs, name=name, runs_dir=runs_dir, data_dir=data_dir, argv=sys.argv, say=console.say,
        progress=console.shows_progress(),
    )  # fmt: skip
    format = Format.json if json else format
    if format in (Format.json, Format.jsonl):
        console.write_document(result.document(), format)
    elif result.equal:
        console.write_text(result.verdict())
    if not result.equal:
        raise VerificationError(result.verdict())
