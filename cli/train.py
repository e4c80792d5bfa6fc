"""train: the command that turns a recipe into a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from dlkit.errors import UsageError
from dlkit.recipe_keys import unknown_key

from . import console
from .console import Format

if TYPE_CHECKING:
    from dlkit.engine.run_folder import RunFolder
    from dlkit.recipe import Recipe, Setting

NEWEST = "latest"  # what --resume alone stands for

# flag → recipe key; the values of the second table are text as they stand, those of the first are read as YAML
FLAGS = {
    "epochs": "train.epochs", "batch_size": "train.batch_size", "lr": "optimizer.lr", "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay", "label_smoothing": "loss.label_smoothing", "clip_grad": "train.clip_grad",
    "warmup_epochs": "schedule.warmup_epochs", "model_ema": "train.ema", "compile": "train.compile",
    "channels_last": "train.channels_last", "workers": "data.workers", "seed": "train.seed",
    "patience": "train.patience", "accumulate": "train.accumulate", "validation": "data.validation",
    "dropout": "model.options.dropout", "mixup": "regularizers.mixup.alpha", "cutmix": "regularizers.cutmix.alpha",
    "layer_decay": "optimizer.layer_decay",
}  # fmt: skip
TEXT_FLAGS = {
    "model": "model.name", "dataset": "data.name", "data_dir": "data.dir", "weights": "model.weights",
    "init_layers": "model.init_layers", "freeze": "train.freeze",
    "opt": "optimizer.name", "sched": "schedule.name", "amp": "train.amp", "device": "train.device",
    "monitor": "train.monitor", "aa": "data.augment.policy",
    "text_column": "data.options.text_column", "label_column": "data.options.label_column",
}  # fmt: skip
ONLY_NEW = ("recipe", "name", "dry_run")  # flags that make no sense with --resume


class TrainCommand(TyperCommand):
    """A command whose --resume may stand alone, and which tells a misspelt --set before anything slow is imported."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for place in range(end):
            alone = place + 1 == end or args[place + 1].startswith("-")
            if args[place] == "--resume" and alone:
                args[place] = f"--resume={NEWEST}"
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for text in given.get("set_", ()):
            message = unknown_key(text.partition("=")[0].split("."))
            if message and "=" in text:
                raise UsageError(f"{message} (--set {text})")
        return super().parse_args(ctx, args)


def train_command(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="What to train; see `dlkit models list`.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Data to train on; see `dlkit dataset list`.")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where your own data lies, for --dataset folder and the like.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(metavar="NAME", help="Of --dataset text_csv: its texts.")] = None,
    label_column: Annotated[str | None, typer.Option(metavar="NAME", help="Of --dataset text_csv: its labels.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="FILE|NAME", help="A recipe; see `dlkit recipes list`.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe: optimizer.eps=1e-7. May repeat."),
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Times through the training data.")] = None,
    batch_size: Annotated[str | None, typer.Option("--batch-size", "-b", metavar="N", help="Images a step.")] = None,
    lr: Annotated[str | None, typer.Option(metavar="X", help="Learning rate.")] = None,
    opt: Annotated[str | None, typer.Option(metavar="NAME", help="sgd, adam, adamw, adagrad or rmsprop.")] = None,
    sched: Annotated[
        str | None, typer.Option(metavar="NAME", help="Schedule: constant, step, cosine, onecycle or exponential.")
    ] = None,
    weight_decay: Annotated[
        str | None,
        typer.Option("--weight-decay", "--wd", metavar="X", help="Decay of the weights, not of biases and norms."),
    ] = None,
    momentum: Annotated[str | None, typer.Option(metavar="X", help="For sgd and rmsprop.")] = None,
    label_smoothing: Annotated[
        str | None, typer.Option(metavar="X", help="Share of the target spread over all classes.")
    ] = None,
    mixup: Annotated[
        str | None, typer.Option(metavar="ALPHA", help="Blend pairs of images: 0.2; see `dlkit recipes regularizers`.")
    ] = None,
    cutmix: Annotated[str | None, typer.Option(metavar="ALPHA", help="Paste boxes between images: 1.0.")] = None,
    clip_grad: Annotated[str | None, typer.Option(metavar="X", help="Greatest norm of the gradient.")] = None,
    warmup_epochs: Annotated[
        str | None, typer.Option(metavar="N", help="Epochs in which the learning rate rises.")
    ] = None,
    model_ema: Annotated[str | None, typer.Option(metavar="DECAY", help="Average the weights: 0.999.")] = None,
    amp: Annotated[str | None, typer.Option(metavar="MODE", help="Mixed precision: off, auto, bf16 or fp16.")] = None,
    compile: Annotated[bool | None, typer.Option("--compile", help="Compile the model with torch.compile.")] = None,
    channels_last: Annotated[
        bool | None,
        typer.Option("--channels-last/--no-channels-last", help="Memory layout; chosen for you where not given."),
    ] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", "-j", metavar="N", help="Processes that decode a folder's images.")
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Of all randomness.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    patience: Annotated[
        str | None, typer.Option(metavar="N", help="Stop after N epochs without a better --monitor.")
    ] = None,
    monitor: Annotated[
        str | None, typer.Option(metavar="METRIC", help="val/loss, val/top1, val/top5 or train/loss.")
    ] = None,
    aa: Annotated[
        str | None, typer.Option(metavar="POLICY", help="Automatic augmentation: none, trivial or rand.")
    ] = None,
    accumulate: Annotated[
        str | None, typer.Option(metavar="N", help="Compute a batch in N parts, to save memory.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="imagenet|RUN|FILE", help="Weights to start from: transfer learning.")
    ] = None,
    init_layers: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Of --weights, these parameters alone: 'features.*,conv1'."),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(metavar="PATTERN|N", help="Do not train these parameters, or the first N layers; with --weights."),
    ] = None,
    layer_decay: Annotated[
        str | None, typer.Option(metavar="X", help="Each layer learns at X times the lr of the one after it: 0.75.")
    ] = None,
    validation: Annotated[str | None, typer.Option(metavar="X", help="Share of train kept for validation.")] = None,
    dropout: Annotated[str | None, typer.Option(metavar="P", help="The model's dropout, where it has one.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="[RUN]", help="Go on with a run; alone, with the newest.")
    ] = None,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="Resume even where the result may differ in bits.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the run folder; else MODEL-DATASET-TIME.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where run folders go.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the whole recipe and the plan, and stop.")] = False,
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Train a network; prints the path of its run folder.

    Precedence: flag, then --set, then the recipe, then defaults. Without --recipe, the one that dlkit has for the model
    and the data set is used.
    """
    settings = given_settings(context)
    if resume is not None:
        _write(_resume(resume, runs_dir, settings, inexact, _flags_in(context, ONLY_NEW)), format, json)
        return
    from dlkit.recipe import resolve

    if inexact:
        raise UsageError("--inexact goes with --resume.")
    resolved = resolve(recipe=recipe, settings=settings)
    console.note(f"recipe: {resolved.source}")
    if dry_run:
        _show_plan(resolved.recipe, name, runs_dir)
    else:
        _write(_train(resolved.recipe, name, runs_dir), format, json)


def given_settings(context: typer.Context) -> list[Setting]:
    """What the command line sets in the recipe, with the words it was set with: --set first, so that flags win."""
    from dlkit.recipe import Setting, parse_setting
    from dlkit.recipe_file import parse_value

    settings = [parse_setting(text) for text in context.params.get("set_") or ()]
    for flag, key in (FLAGS | TEXT_FLAGS).items():
        value = context.params.get(flag)
        if value is None:
            continue
        origin = "" if flag in ("model", "dataset") else f"{_spelled(flag)} {value}"
        if flag in FLAGS and isinstance(value, str):
            value = parse_value(value, _spelled(flag))
        if flag == "freeze" and value.isdecimal():
            value = int(value)
        settings.append(Setting(key, value, origin))
    return settings


def _train(recipe: Recipe, name: str | None, runs_dir: Path) -> RunFolder:
    from dlkit.verbs.train import train_recipe

    return train_recipe(
        recipe, name=name, runs_dir=runs_dir, argv=sys.argv, say=console.say, progress=console.shows_progress()
    )


def _resume(resume: str, runs_dir: Path, settings: list[Setting], inexact: bool, misplaced: list[str]) -> RunFolder:
    from dlkit.engine import run_folder
    from dlkit.recipe import changes_on_resume

    if misplaced:
        raise UsageError(f"--resume goes on with a run as it is; it does not go with {misplaced[0]}.")
    if not resume:
        raise UsageError("--resume= names no run. --resume alone takes the newest; see `dlkit runs list`.")
    run = run_folder.find(None if resume == NEWEST else resume, runs_dir)
    changes = changes_on_resume(run.recipe(), settings)
    from dlkit.verbs.train import resume_run

    return resume_run(
        run, changes=changes, inexact=inexact, say=console.say, progress=console.shows_progress(), argv=sys.argv
    )


def _write(run: RunFolder, format: Format, json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process answers for all
        return
    format = Format.json if json else format
    if format in (Format.json, Format.jsonl):
        info = run.info()
        keys = ("name", "model", "dataset", "status", "epochs", "monitor", "best")
        console.write_document(
            {"schema": "dlkit.train/1", "run": str(run.path)} | {key: info.get(key) for key in keys}, format
        )
    else:
        console.write_text(str(run.path))


def _show_plan(recipe: Recipe, name: str | None, runs_dir: Path) -> None:
    """The recipe on stdout; on stderr the folder the run would have and, where the data set tells, its steps."""
    from dlkit.engine import run_folder
    from dlkit.recipe_file import dump
    from dlkit.verbs.runs import planned_steps

    name = name or run_folder.new_name(runs_dir, recipe)
    run_folder.check_new(runs_dir, name)
    console.note(f"run folder: {runs_dir / name}")
    steps = planned_steps(recipe)
    if steps is not None:
        console.note(f"steps: about {steps} an epoch, {steps * recipe.train.epochs} in all")
    console.write_text(dump(recipe))


def _flags_in(context: typer.Context, names: tuple[str, ...]) -> list[str]:
    """Those of the flags that the command line gives."""
    return [_spelled(name) for name in names if context.params.get(name)]


def _spelled(parameter: str) -> str:
    return "--" + parameter.replace("_", "-")
