"""`dlkit lr-find`: a learning rate for a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlkit.errors import DivergedError, UsageError

from . import console
from .console import Format
from .recipe_flags import resolved, takes_recipe
from .train import takes_auto_batch

if TYPE_CHECKING:
    from dlkit.training.lr_find import RangeTest


@takes_recipe
def lr_find_command(
    context: typer.Context,
    lowest: Annotated[float, typer.Option(metavar="X", help="The learning rate to begin with.")] = 1e-5,
    highest: Annotated[float, typer.Option(metavar="X", help="The one to end with.")] = 10.0,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps from one to the other.")] = 200,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw the loss as a .png, .svg or .pdf.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where runs that --weights names are.")] = Path("runs"),
    format: Annotated[Format, typer.Option(help="Of the answer; json holds every step.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Find a learning rate: train for a few steps while it rises, and see where the loss falls and where it turns.

    Takes what train takes. The suggestion is the rate at which the loss fell fastest, before it first rose; beside it
    stands the one at which the smoothed loss was smallest. More steps give a clearer curve. Exit 8 if the loss never
    fell, 2 if it never rose: then nothing shows which rates are too large. Nothing is written but what -o names.
    """
    if output is not None:
        from dlkit.plots.style import check_format

        check_format(output)
    auto_batch = takes_auto_batch(context)
    recipe = resolved(context)
    from dlkit.training.lr_find import draw, lr_find

    with console.progress(steps, "lr-find", "steps") as bar:
        found = lr_find(
            recipe, lowest=lowest, highest=highest, steps=steps, runs_dir=runs_dir, auto_batch=auto_batch,
            say=console.say, advance=bar.advance,
        )  # fmt: skip
    if output is not None:
        draw(found, output)
    _write(found, console.resolve(format, json))
    if found.steepest is None:
        raise DivergedError("the loss never fell: no rate in this range trains. Try --lowest, or more --steps.")
    if not found.rose:
        raise UsageError(
            f"the loss never rose up to lr {highest:g}, so nothing shows which rates are too large. "
            f"Try --highest {10 * highest:g}, or fewer --steps if the network has overfitted the data."
        )


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
    suggestion = [{"what": "suggestion", "lr": found.suggestion}] if found.suggestion is not None else []
    console.write_rows([*suggestion, *rows], ("what", "lr", "loss"), format)
