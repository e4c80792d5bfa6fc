"""`dlkit sweep`: which settings of a recipe train best."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlkit import catalog
from dlkit.errors import UsageError

from . import console
from .console import Format
from .recipe_flags import resolved, takes_recipe

if TYPE_CHECKING:
    from dlkit.recipe import Recipe

PLAN_COLUMNS = ("key", "kind", "values")


@takes_recipe
def sweep_command(
    context: typer.Context,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUES", help="What varies: LOW..HIGH, log:LOW..HIGH or A,B,C. May repeat."),
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", help="Trainings in all, with those that are there.")] = 20,
    pruning: Annotated[
        bool, typer.Option("--prune/--no-prune", help="End a trial that is worse than the median of those before.")
    ] = True,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the sweep's folder; else sweep-MODEL-DATASET.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where that folder goes.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would vary, and stop.")] = False,
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Search for the settings that train best; prints the trials, the best first, and writes the best as a recipe.

    MODEL may be a recipe's name or file. Each trial is a run in the sweep's folder, compared by --monitor at its best
    epoch; the same command goes on where it stopped, and a larger --trials adds to what is there.

    Example: dlkit sweep lenet5-mnist --param optimizer.lr=log:1e-4..1e-1 --param optimizer.name=sgd,adam --trials 20
    """
    _take_recipe_for_model(context)
    recipe, shown = resolved(context), console.resolve(format, json)
    if dry_run:
        _show_plan(recipe, param or [], shown)
    else:
        _sweep(recipe, param or [], trials, pruning, name, runs_dir, shown)


def _take_recipe_for_model(context: typer.Context) -> None:
    """Where the first argument is no model but a recipe, put it in that place."""
    given = context.params
    word = given["model"]
    if word is None or word in catalog.entries("models") or word.startswith("timm/"):
        return
    from dlkit import recipe_file

    shipped = recipe_file.shipped_names()
    if word not in shipped and "/" not in word and Path(word).suffix not in (".yaml", ".yml"):
        hint = catalog.did_you_mean(word, [*shipped, *catalog.entries("models")])
        raise UsageError(f"no recipe and no model is called {word!r}. {hint}")
    if given["recipe"] is not None:
        raise UsageError(f"{word} and --recipe {given['recipe']} are two recipes. Give one.")
    given["recipe"], given["model"] = word, None


def _sweep(
    recipe: Recipe,
    parameters: list[str],
    trials: int,
    pruning: bool,
    name: str | None,
    runs_dir: Path,
    format: Format,
) -> None:
    from dlkit.verbs.sweep import BEST, sweep

    found = sweep(
        recipe, parameters, trials=trials, pruning=pruning, name=name, runs_dir=runs_dir, argv=sys.argv,
        say=console.say, progress=console.shows_progress(),
    )  # fmt: skip
    if format in (Format.json, Format.jsonl):
        console.write_document(found.document(), format)
    else:
        console.write_rows(found.rows, found.columns, format)
    assert found.best is not None
    if found.importance:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in found.importance.items())
        console.note(f"what mattered: {shares}")
    metric = f"{recipe.train.monitor} {found.best.value:.4f}"
    console.note(f"best: {found.best.run}, {metric}; dlkit train --recipe {found.folder / BEST} repeats it")


def _show_plan(recipe: Recipe, parameters: list[str], format: Format) -> None:
    from dlkit.recipe_space import space

    rows = [{"key": found.key, "kind": found.kind, "values": found.text} for found in space(recipe, parameters)]
    console.write_rows(rows, PLAN_COLUMNS, format)
