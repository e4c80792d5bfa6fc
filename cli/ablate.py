"""`dlkit ablate`: the effect of each part of a recipe."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit.errors import PartialError

from . import console
from .console import Format
from .recipe_flags import resolved, split_names, takes_recipe

if TYPE_CHECKING:
    from dlkit.config.schema import Recipe

ON_TERMINAL = ("part", "effect_pp", "low_pp", "high_pp", "over", "p_value", "p_holm", "verdict")  # 80 columns
PLAN_COLUMNS = ("run", "seed", "changes", "state")


class AblationSplit(StrEnum):
    validation = "validation"
    test = "test"


@takes_recipe
def ablate_command(
    context: typer.Context,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="PART,…", help="Parts to remove, one at a time: dropout,augment. May repeat."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Number of seeds per variant.")] = 1,
    split: Annotated[
        AblationSplit, typer.Option(help="Evaluate on validation (last checkpoint) or test (best).")
    ] = AblationSplit.validation,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the folder (default: ablation-MODEL-DATASET).")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the runs.")] = Path("runs"),
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train runs with other data, packages or settings again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trainings, and exit.")] = False,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Train with all parts of a recipe and without each; prints the effect of each part on top-1, with its interval.

    Parts: dropout, augment (or one key of it), weight_decay, label_smoothing, norm, lrn, init, ema, clip_grad, a
    regularizer by its name, and similar; an unknown part is an error that lists those of the recipe.
    Effects are in percentage points: above 0 the part helps. With one seed the interval and the test cover the images
    (of this one training), with more the seeds; p_holm is corrected for the number of parts. Each training is a run in
    the ablation's folder; the same command continues where it stopped, and refuses if the data, the packages or the
    recipe have changed. Exit 3 if a training diverged and its pair was skipped.
    """
    recipe = resolved(context)
    names = split_names(drop)
    shown = console.resolve(format, json)
    if dry_run:
        _show_plan(recipe, names, seeds, name, runs_dir, shown)
    else:
        _ablate(recipe, names, seeds, split, name, runs_dir, retrain, shown)


def _ablate(
    recipe: Recipe,
    drop: list[str],
    seeds: int,
    split: AblationSplit,
    name: str | None,
    runs_dir: Path,
    retrain: bool,
    format: Format,
) -> None:
    from dlkit.experiments.ablate import COLUMNS, ablate

    ablation = ablate(
        recipe, drop, seeds=seeds, split=split.value, name=name, runs_dir=runs_dir, retrain=retrain, argv=sys.argv,
        say=console.say, progress=console.shows_progress(),
    )  # fmt: skip
    document = ablation.document()
    if format in (Format.json, Format.jsonl):
        console.write_document(document, format)
    elif format == Format.table:
        console.write_rows(map(_round, document["effects"]), ON_TERMINAL, format)
    else:
        console.write_rows(document["effects"], COLUMNS, format)
    if ablation.diverged:
        count = f"{len(ablation.diverged)} of {len(ablation.runs)} trainings diverged"
        raise PartialError(f"{count}, and their pairs were skipped: {', '.join(ablation.diverged)}.")


def _round(effect: dict[str, Any]) -> dict[str, Any]:
    digits = {"p_value": 4, "p_holm": 4, "effect_pp": 2, "low_pp": 2, "high_pp": 2}
    return {
        key: round(value, digits.get(key, 9)) if isinstance(value, float) else value for key, value in effect.items()
    }


def _show_plan(recipe: Recipe, drop: list[str], seeds: int, name: str | None, runs_dir: Path, format: Format) -> None:
    from dlkit.config.ablation_parts import select
    from dlkit.experiments.ablate import default_name, plan_trainings
    from dlkit.experiments.trainings import state_of
    from dlkit.runs.run_folder import RunFolder

    folder = runs_dir / (name or default_name(recipe))
    console.note(f"ablation: {folder}")
    trainings, changes = plan_trainings(recipe, drop, seeds), select(recipe, drop)
    rows: list[dict[str, Any]] = [
        {
            "run": training.name,
            "seed": training.seed,
            "changes": ", ".join(
                f"{key}={value}" for key, value in changes.get(training.removed_part or "", {}).items()
            ),
            "state": state_of(RunFolder(folder / training.name)),
        }
        for training in trainings
    ]
    console.write_rows(rows, PLAN_COLUMNS, format)
