"""`dlkit reproduce`: whether a run comes out again, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dlkit.errors import VerificationError

from . import console
from .console import Format


def reproduce_command(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A name or a folder; else the newest.")] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Compare the first N alone; the schedule stays the whole run's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the new run folder; else RUN-reproduced.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Where the run's data lies now, if it has moved.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where the run folders are.")] = Path("runs"),
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Train a run again from its recipe, and compare data and weights with what it wrote down of them.

    Data first: a changed file is found before training. Then the weights' SHA-256, an epoch at a time; the first
    difference ends it with exit 6, which names it: a setting, a data file, an epoch, and packages, threads or hardware
    that are not what they were.
    """
    from dlkit.experiments.reproduce import reproduce
    from dlkit.runs import run_folder

    found = run_folder.find(run, runs_dir)
    if run is None:
        console.say(f"important: run: {found.path}")
    result = reproduce(
        found, epochs=epochs, name=name, runs_dir=runs_dir, data_dir=data_dir, argv=sys.argv, say=console.say,
        progress=console.shows_progress(),
    )  # fmt: skip
    chosen = Format.json if json else format
    if chosen in (Format.json, Format.jsonl):
        console.write_document(result.document(), chosen)
    elif result.equal:
        console.write_text(result.verdict())
    if not result.equal:
        raise VerificationError(result.verdict())
