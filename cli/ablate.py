"""`dlkit ablate`: what each part of a recipe is worth."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit.errors import PartialError

from . import console
from .console import Format
from .train import given_settings

if TYPE_CHECKING:
    from dlkit.recipe import Recipe

COLUMNS = ("part", "top1_with", "top1_without", "effect_pp", "low_pp", "high_pp", "pairs")
PLAN_COLUMNS = ("run", "seed", "changes", "state")


class MeasuredOn(StrEnum):
    validation = "validation"
    test = "test"


def ablate_command(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="What to train; see `dlkit models list`.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Data to train on; see `dlkit dataset list`.")
    ] = None,
    drop: Annotated[
        str, typer.Option(metavar="PART,…", help="What to leave out, one at a time: dropout,augment,weight_decay.")
    ] = "",
    seeds: Annotated[int, typer.Option(metavar="N", help="Trainings of each, under as many seeds.")] = 1,
    split: Annotated[
        MeasuredOn, typer.Option(help="Where top-1 is counted: validation (last checkpoint) or test (best).")
    ] = MeasuredOn.validation,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the data lies, for --dataset folder.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(metavar="FILE|NAME", help="A recipe; see `dlkit recipes list`.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe: optimizer.eps=1e-7. May repeat."),
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Times through the training data.")] = None,
    batch_size: Annotated[str | None, typer.Option("--batch-size", "-b", metavar="N", help="Images a step.")] = None,
    lr: Annotated[str | None, typer.Option(metavar="X", help="Learning rate.")] = None,
    opt: Annotated[str | None, typer.Option(metavar="NAME", help="The optimizer.")] = None,
    sched: Annotated[str | None, typer.Option(metavar="NAME", help="The schedule.")] = None,
    weight_decay: Annotated[
        str | None, typer.Option("--weight-decay", "--wd", metavar="X", help="Decay of the weights.")
    ] = None,
    label_smoothing: Annotated[
        str | None, typer.Option(metavar="X", help="Share of the target spread over all classes.")
    ] = None,
    clip_grad: Annotated[str | None, typer.Option(metavar="X", help="Greatest norm of the gradient.")] = None,
    model_ema: Annotated[str | None, typer.Option(metavar="DECAY", help="Average the weights: 0.999.")] = None,
    amp: Annotated[str | None, typer.Option(metavar="MODE", help="Mixed precision: off, auto, bf16 or fp16.")] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", "-j", metavar="N", help="Processes that decode a folder's images.")
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="The first seed.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    aa: Annotated[
        str | None, typer.Option(metavar="POLICY", help="Automatic augmentation: none, trivial or rand.")
    ] = None,
    dropout: Annotated[str | None, typer.Option(metavar="P", help="The model's dropout, where it has one.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the ablation's folder; else ablation-MODEL-DATASET.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where that folder goes.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trainings, and stop.")] = False,
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Train with everything and without each part of a recipe; prints what each brings to top-1, with its interval.

    Parts: dropout, augment (or one key of it), weight_decay, label_smoothing, norm, lrn, init, ema, clip_grad, a
    regularizer by its name, and the like; a part that the recipe does not use is refused with those that it does.
    Effects are in percentage points: above 0 the part helps. Each training is a run in the ablation's folder; the same
    command goes on where it stopped. Exit 3 where a training diverged and its pair was left out.
    """
    from dlkit.recipe import resolve

    resolved = resolve(recipe=recipe, settings=given_settings(context))
    console.note(f"recipe: {resolved.source}")
    names = [part.strip() for part in drop.split(",") if part.strip()]
    shown = console.resolve(format, json)
    if dry_run:
        _show_plan(resolved.recipe, names, seeds, name, runs_dir, shown)
    else:
        _ablate(resolved.recipe, names, seeds, split, name, runs_dir, shown)


def _ablate(
    recipe: Recipe, drop: list[str], seeds: int, split: MeasuredOn, name: str | None, runs_dir: Path, format: Format
) -> None:
    from dlkit.verbs.ablate import ablate

    found = ablate(
        recipe, drop, seeds=seeds, split=split.value, name=name, runs_dir=runs_dir, argv=sys.argv, say=console.say,
        progress=console.shows_progress(),
    )  # fmt: skip
    document = found.document()
    if format in (Format.json, Format.jsonl):
        console.write_document(document, format)
    else:
        console.write_rows(document["effects"], COLUMNS, format)
    if found.diverged:
        lost = f"{len(found.diverged)} of {len(found.runs)} trainings diverged"
        raise PartialError(f"{lost}, and their pairs were left out: {', '.join(found.diverged)}.")


def _show_plan(recipe: Recipe, drop: list[str], seeds: int, name: str | None, runs_dir: Path, format: Format) -> None:
    from dlkit.recipe_parts import chosen
    from dlkit.verbs.ablate import default_name, planned, state_of

    folder = runs_dir / (name or default_name(recipe))
    console.note(f"ablation: {folder}")
    trainings, changes = planned(recipe, drop, seeds), chosen(recipe, drop)
    rows: list[dict[str, Any]] = [
        {
            "run": training.name,
            "seed": training.seed,
            "changes": ", ".join(f"{key}={value}" for key, value in changes.get(training.left_out or "", {}).items()),
            "state": state_of(training, folder),
        }
        for training in trainings
    ]
    console.write_rows(rows, PLAN_COLUMNS, format)
