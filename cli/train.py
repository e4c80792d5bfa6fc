"""train: the command that turns a recipe into a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlkit.config.keys import unknown_key
from dlkit.errors import GateError, UsageError

from . import console
from .console import Format
from .help import Command
from .recipe_flags import given_settings, resolved, spelled, takes_recipe

if TYPE_CHECKING:
    from dlkit.config.resolve import Setting
    from dlkit.config.schema import Recipe
    from dlkit.runs.run_folder import RunFolder

NEWEST = "latest"  # what --resume alone stands for

ONLY_NEW = ("recipe", "name", "seeds", "retrain", "dry_run", "check")  # flags that make no sense with --resume


class TrainCommand(Command):
    """A command whose --resume may stand alone, and which tells a misspelt --set before anything slow is imported."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for place in range(end):
            alone = place + 1 == end or args[place + 1].startswith("-")
            if args[place] == "--resume" and alone:
                args[place] = f"--resume={NEWEST}"
        if sum(argument.startswith("wds:") for argument in args) > 1:
            raise UsageError("the shell has expanded the braces. Quote them: --dataset 'wds:shards-{000..099}.tar'.")
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for text in given.get("set_", ()):
            message = unknown_key(text.partition("=")[0].split("."))
            if message and "=" in text:
                raise UsageError(f"{message} (--set {text})")
        return super().parse_args(ctx, args)


CLASS = TrainCommand


@takes_recipe
def train_command(
    context: typer.Context,
    resume: Annotated[
        str | None, typer.Option(metavar="[RUN]", help="Go on with a run; alone, with the newest.")
    ] = None,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="Resume even where the result may differ in bits.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the run folder; else MODEL-DATASET-TIME.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Train a group: N runs in one folder, under N seeds.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="With --seeds: train again what other data or packages made.")
    ] = False,
    runs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where run folders go.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the whole recipe and the plan, and stop.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Try it: loss, gradients, one batch, memory, time, disk; and stop.")
    ] = False,
    format: Annotated[Format, typer.Option(help="Of the answer.")] = Format.auto,
    json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> None:
    """Train a network; prints the path of its run folder.

    Precedence: flag, then --set, then the recipe, then defaults. Without --recipe, the one that dlkit has for the model
    and the data set is used.

    --batch-size auto runs steps of growing size: on a GPU it takes the largest that leaves a tenth of the memory free,
    on a CPU the largest that is quicker an image than half of it and whose memory is there; at most a sixteenth of the
    training data. The number found is in the run's recipe.yaml. --check trains nothing that is kept and prints a table;
    it exits 12 where a check failed. A glance of it comes before every training, and says only what is wrong.

    --seeds N trains seed0, seed1, … in one folder and goes on where it stopped; dlkit runs compare A --against B then
    tests two such groups over their seeds.
    """
    if resume is not None:
        _write(_resume(resume, runs_dir, given_settings(context), inexact, _flags_in(context, ONLY_NEW)), format, json)
        return
    if inexact:
        raise UsageError("--inexact goes with --resume.")
    if retrain and seeds is None:
        raise UsageError("--retrain goes with --seeds.")
    auto_batch = takes_auto_batch(context)
    chosen = resolved(context)
    if seeds is not None and not dry_run and not check:
        if auto_batch:
            raise UsageError("--batch-size auto does not go with --seeds: all of a group have one. Give a number.")
        _train_group(chosen, seeds, name, runs_dir, retrain, format, json)
    elif dry_run:
        if auto_batch:
            console.note("batch size: auto is found when it trains")
        _show_plan(chosen, name, runs_dir)
    elif check:
        _check(chosen, runs_dir, auto_batch, console.resolve(format, json))
    else:
        _write(_train(chosen, name, runs_dir, auto_batch), format, json)


def takes_auto_batch(context: typer.Context) -> bool:
    """Whether --batch-size is auto; no setting of the recipe, it is taken off the command line."""
    auto = bool(context.params["batch_size"] == "auto")
    if auto:
        context.params["batch_size"] = None
    return auto


def _train(recipe: Recipe, name: str | None, runs_dir: Path, auto_batch: bool) -> RunFolder:
    from dlkit.training.train import train_recipe

    return train_recipe(
        recipe, name=name, runs_dir=runs_dir, argv=sys.argv, say=console.say, progress=console.shows_progress(),
        auto_batch=auto_batch,
    )  # fmt: skip


def _train_group(
    recipe: Recipe, seeds: int, name: str | None, runs_dir: Path, retrain: bool, format: Format, json: bool
) -> None:
    from dlkit.experiments.seeds import train_seeds

    group = train_seeds(
        recipe, seeds, name=name, runs_dir=runs_dir, retrain=retrain, argv=sys.argv, say=console.say,
        progress=console.shows_progress(),
    )  # fmt: skip
    format = Format.json if json else format
    if format in (Format.json, Format.jsonl):
        console.write_document(group.document(), format)
    else:
        console.write_text(str(group.folder))
    if (mean := group.estimate) is not None:
        metric = f"{recipe.train.monitor} {mean.value:.4f} (95 % {mean.low:.4f} to {mean.high:.4f})"
        console.note(f"mean of {len(group.seeds)} seeds: {metric}")


def _check(recipe: Recipe, runs_dir: Path, auto_batch: bool, format: Format) -> None:
    from dlkit.training.preflight import preflight

    found = preflight(recipe, runs_dir=runs_dir, auto_batch=auto_batch, say=console.say)
    document = found.document()
    if format in (Format.json, Format.jsonl):
        console.write_document(document, format)
    else:
        console.write_rows(document["checks"], ("check", "result", "found", "expected"), format)
    if found.failed:
        told = " ".join(str(check) for check in found.failed)
        raise GateError(f"{len(found.failed)} of {len(found.checks)} checks failed: {told}")


def _resume(resume: str, runs_dir: Path, settings: list[Setting], inexact: bool, misplaced: list[str]) -> RunFolder:
    from dlkit.config.resolve import changes_on_resume
    from dlkit.runs import run_folder

    if misplaced:
        raise UsageError(f"--resume goes on with a run as it is; it does not go with {misplaced[0]}.")
    if not resume:
        raise UsageError("--resume= names no run. --resume alone takes the newest; see `dlkit runs list`.")
    run = run_folder.find(None if resume == NEWEST else resume, runs_dir, trained=False)
    changes = changes_on_resume(run.recipe(), settings)
    from dlkit.training.train import resume_run

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
    _show_next(run)


def _show_next(run: RunFolder) -> None:
    """The commands that come next, on stderr."""
    spec, where = run.spec(), "" if run.path.parent == Path("runs") else f" --runs-dir {run.path.parent}"
    example = {"images": "new.jpg", "sequences": "new.txt"}.get(spec.kind, "")
    commands = [("eval", "how good it is on the test split"), ("report", "curves, mistakes and examples as a page")]
    if example and getattr(spec, "words", True):
        commands.insert(1, (f"predict {example}", "what it says about a new one"))
    width = max(len(command) for command, _ in commands) + len(where)
    for number, (command, purpose) in enumerate(commands):
        console.note(f"{'next:' if number == 0 else '     '} dlkit {command + where:{width}}  # {purpose}")


def _show_plan(recipe: Recipe, name: str | None, runs_dir: Path) -> None:
    """The recipe on stdout; on stderr the folder the run would have and, where the data set tells, its steps."""
    from dlkit.config.yaml_file import dump
    from dlkit.runs import run_creation
    from dlkit.runs.summary import planned_steps

    name = name or run_creation.free_name(runs_dir, run_creation.default_name(recipe))
    run_creation.check_new(runs_dir, name)
    console.note(f"run folder: {runs_dir / name}")
    steps = planned_steps(recipe)
    if steps is not None:
        console.note(f"steps: about {steps} an epoch, {steps * recipe.train.epochs} in all")
    console.write_text(dump(recipe))


def _flags_in(context: typer.Context, names: tuple[str, ...]) -> list[str]:
    """Those of the flags that the command line gives."""
    return [spelled(name) for name in names if context.params.get(name)]
