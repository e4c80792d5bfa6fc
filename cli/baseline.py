"""`dlkit baseline`: a classical classifier, to compare a network with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import console
from .console import Format
from .recipe_flags import given_settings


def baseline_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="svm|tree|knn|logistic", help="What to fit.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="Data to fit it to; see `dlkit dataset list`.")],
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the data lies, for --dataset folder.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Fit to this many images, of each class its share (svm: 10000, else all)."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the recipe: model.options.neighbors=5. May repeat."),
    ] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", "-j", metavar="N", help="Processes that decode a folder's images.")
    ] = None,
    validation: Annotated[str | None, typer.Option(metavar="X", help="Share of train kept for validation.")] = None,
    seed: Annotated[
        str | None, typer.Option(metavar="N", help="Of the validation split and whatever else is drawn.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the run folder; else MODEL-DATASET-TIME.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where run folders go.")] = Path("runs"),
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Fit a support vector machine, a decision tree, nearest neighbours or a logistic regression, by scikit-learn.

    Prints the path of a run folder, which eval and predict read like any other and which needs no scikit-learn.
    """
    from dlkit.config.resolve import resolve

    from .train import _write as write_run

    recipe = resolve(settings=given_settings(context)).recipe
    from dlkit.experiments.baseline import fit_baseline

    run = fit_baseline(recipe, limit=limit, name=name, runs_dir=runs_dir, argv=sys.argv, say=console.say)
    write_run(run, format, json)
