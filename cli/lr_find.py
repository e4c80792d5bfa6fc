"""`dlkit lr-find`: a learning rate for a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlkit.errors import DivergedError

from . import console
from .console import Format
from .recipe_flags import resolved, takes_recipe
from .train import takes_auto_batch

if TYPE_CHECKING:
    from dlkit.verbs.lr_find import RangeTest


@takes_recipe
def lr_find_command(
    context: typer.Context,
    lowest: Annotated[float, typer.Option(metavar="X", help="The learning rate to begin with.")] = 1e-5,
    highest: Annotated[float, typer.Option(metavar="X", help="The one to end with.")] = 10.0,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps from one to the other.")] = 200,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw the loss over the learning rate: a PNG.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where runs that --weights names are.")] = Path("runs"),
    format: Annotated[Format, typer.Option(help="Of the answer; json holds every step.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Find a learning rate: train a few steps with one that rises, and look where the loss falls and where it turns.

    Takes what train takes. The suggestion is a tenth of the rate at which the smoothed loss was smallest; beside it
    stands the one at which it fell fastest. More steps tell more; exit 8 where it never fell. Nothing is
    kept but what -o names.
    """
    auto_batch = takes_auto_batch(context)
    recipe = resolved(context)
    from dlkit.verbs.lr_find import draw, lr_find

    with console.progress(steps, "lr-find", "steps") as bar:
        found = lr_find(
            recipe, lowest=lowest, highest=highest, steps=steps, runs_dir=runs_dir, auto_batch=auto_batch,
            say=console.say, advance=bar.advance,
        )  # fmt: skip
    if output is not None:
        draw(found, output)
    _write(found, console.resolve(format, json))
    if found.suggestion is None:
        raise DivergedError("the loss never fell: no rate in this range trains. Try --lowest, or more --steps.")


def _write(found: RangeTest, format: Format) -> None:
    if format in (Format.json, Format.jsonl):
        console.write_document(found.document(), format)
        return
    if found.steepest is None or found.minimum is None:
        return
    rows = [
        {"what": what, "lr": float(f"{point.lr:.3g}"), "loss": round(point.smoothed, 4)}
        for what, point in (("steepest", found.steepest), ("minimum", found.minimum))
    ]
    console.write_rows([{"what": "suggestion", "lr": found.suggestion}, *rows], ("what", "lr", "loss"), format)
