"""`dlkit sweep`: hyperparameter search."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlkit import registry
from dlkit.errors import UsageError

from . import console
from .console import Format
from .recipe_flags import resolved, takes_recipe

if TYPE_CHECKING:
    from dlkit.config.schema import Recipe
    from dlkit.experiments.sweep import Sweep

PLAN_COLUMNS = ("key", "kind", "values")


class Sampler(StrEnum):
    tpe = "tpe"
    random = "random"
    grid = "grid"


class Pruner(StrEnum):
    median = "median"
    hyperband = "hyperband"
    none = "none"


@takes_recipe
def sweep_command(
    context: typer.Context,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUES", help="A parameter: LOW..HIGH, log:LOW..HIGH or A,B,C. May repeat."),
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", help="Total number of trials, existing ones included.")] = 20,
    sampler: Annotated[
        Sampler, typer.Option(help="The sampler of new trials; choices and integers without replacement.")
    ] = Sampler.tpe,
    enqueue: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE,…", help="Values to try first. May repeat.")
    ] = None,
    seeds_per_trial: Annotated[
        int, typer.Option(metavar="N", help="Train each trial under N seeds; its value is the mean.")
    ] = 1,
    pruner: Annotated[
        Pruner | None, typer.Option(help="The pruner of worse trials (default: median).", show_default=False)
    ] = None,
    pruning: Annotated[
        bool | None, typer.Option("--prune/--no-prune", help="The same as --pruner median or --pruner none.")
    ] = None,
    confirm: Annotated[
        int, typer.Option(metavar="N", help="Train the N best trials again, each under three fresh seeds.")
    ] = 0,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train trials with other data, packages or settings again.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the folder (default: sweep-MODEL-DATASET).")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the runs.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the search space, and exit.")] = False,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Search for the best hyperparameters; prints the trials, the best first, and writes the best as a recipe.

    MODEL may be a recipe's name or file. Each trial is a run in the sweep's folder, compared by --monitor at its best
    epoch; the same command continues where it stopped, a larger --trials adds trials, a smaller one removes none.
    The best of many is optimistic: the output estimates by how much, and --confirm measures it.
    """
    _take_recipe_for_model(context)
    recipe, shown = resolved(context), console.resolve(format, json)
    if dry_run:
        _show_plan(recipe, param or [], shown)
        return
    from dlkit.experiments.sweep import sweep

    result = sweep(
        recipe, param or [], trials=trials, sampler=sampler.value, pruner=_pruner(pruner, pruning).value,
        seeds_per_trial=seeds_per_trial, enqueue=enqueue or [], confirm=confirm, retrain=retrain, name=name,
        runs_dir=runs_dir, argv=sys.argv, say=console.say, progress=console.shows_progress(),
    )  # fmt: skip
    _show(result, shown)


def _pruner(pruner: Pruner | None, pruning: bool | None) -> Pruner:
    if pruner is not None and pruning is not None:
        raise UsageError("--pruner and --prune/--no-prune are the same setting. Use one.")
    if pruner is not None:
        return pruner
    return Pruner.none if pruning is False else Pruner.median


def _take_recipe_for_model(context: typer.Context) -> None:
    """Use the first argument as the recipe if it is not a model."""
    params = context.params
    word = params["model"]
    if word is None or registry.is_model(word) or Path(word).is_dir():
        return
    from dlkit.config import yaml_file

    shipped = yaml_file.shipped_names()
    if word not in shipped and "/" not in word and Path(word).suffix not in (".yaml", ".yml"):
        hint = registry.did_you_mean(word, [*shipped, *registry.entries("models")])
        raise UsageError(f"recipe or model {word!r} not found. {hint}")
    if params["recipe"] is not None:
        raise UsageError(f"{word} and --recipe {params['recipe']} are two recipes. Use one.")
    params["recipe"], params["model"] = word, None


def _show(result: Sweep, format: Format) -> None:
    from dlkit.experiments.sweep import BEST

    best, metric = result.best, result.recipe.train.monitor
    assert best is not None
    if format in (Format.json, Format.jsonl):
        console.write_document(result.document(), format)
    else:
        console.write_rows(result.rows, result.columns, format)
    for sentence in result.sentences:
        (console.write_text if format == Format.table else console.note)(sentence)
    console.note(f"best: {best.run}, {metric} {best.value:.4f}; dlkit train --recipe {result.folder / BEST} repeats it")


def _show_plan(recipe: Recipe, parameters: list[str], format: Format) -> None:
    from dlkit.config.search_space import space

    rows = [{"key": p.key, "kind": p.kind, "values": p.text} for p in space(recipe, parameters)]
    console.write_rows(rows, PLAN_COLUMNS, format)
