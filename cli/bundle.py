"""`dlkit dataset bundle` and `unbundle`: data sets for machines without a network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import console, formats
from .console import Format

SCHEMA = "dlkit.bundle/1"

FormatOption = Annotated[Format, typer.Option("--format", help="How the answer is written.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="The same as --format json.")]


def bundle_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Data sets that are here.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The tar file to write.")],
    format: FormatOption = Format.auto,
    json: JsonFlag = False,
) -> None:
    """Put downloaded data sets into one file, for a machine without a network; prints its path.

    Equal data sets give an equal file: its SHA-256 is said, and stands in --json.
    """
    from dlkit.data.download.bundle import bundle

    found = bundle(names, output, log=console.note)
    resolved = console.resolve(format, json)
    if resolved in (Format.json, Format.jsonl):
        console.write_document({"schema": SCHEMA, **asdict(found), "path": str(found.path)}, resolved)
        return
    console.note(f"SHA-256 {found.sha256}")
    console.write_text(formats.escape(str(found.path)))


def unbundle_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `dlkit dataset bundle` wrote.")],
    format: FormatOption = Format.auto,
    json: JsonFlag = False,
) -> None:
    """Take the data sets of a bundle into the cache, each verified; one that is here already is left alone.

    Where a byte was altered, nothing of the bundle is taken: exit 6.
    """
    from dlkit.data.download.bundle import unbundle

    rows = [
        {"schema": "dlkit.dataset/1", "name": found.name, "bytes": found.bytes, "folder": str(found.folder)}
        for found in unbundle(file, log=console.note)
    ]
    console.write_rows(rows, ("name", "bytes", "folder"), console.resolve(format, json))
