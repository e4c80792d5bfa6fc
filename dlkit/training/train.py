"""train: a recipe becomes a run folder; starting and resuming are the same call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dlkit import atomic_io, signals
from dlkit.config import yaml_file
from dlkit.config.resolve import Resolved, Setting, names_photos, resolve, with_changes
from dlkit.config.schema import Recipe
from dlkit.data.fingerprint import write_files
from dlkit.errors import DivergedError, DlkitError, StoppedError
from dlkit.plots.learning_curves import learning_curve
from dlkit.runs import provenance, run_creation, run_folder
from dlkit.runs.data_of_run import recipe_of_run
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint, precision, state, tracking
from dlkit.training.assembly import assemble, batches, begin, new_run
from dlkit.training.batch_size import with_largest_batch
from dlkit.training.compatibility import changed_settings, identity, same_data, same_log, same_machine
from dlkit.training.distributed import world_of_environment
from dlkit.training.inputs import Materials, Prepared, Say, gather, prepare, ready, refuse_fitted, silent
from dlkit.training.loop import Run, Surroundings, fit, out_of_patience
from dlkit.training.photo_recipe import resolve_for_photos
from dlkit.training.preflight import glance, tell_little_room
from dlkit.training.progress import TrainingBar
from dlkit.training.schedules import describe_change
from dlkit.training.tracking import tracked


def _nothing(found: Any) -> None:
    """What nobody watches."""


@dataclass(frozen=True)
class Watch:
    """Who follows a training beside its folder. Whatever one of these raises ends it."""

    materials: Callable[[Materials], object] = _nothing  # before there is a network
    begun: Callable[[Mapping[str, Any]], object] = _nothing  # run.json, as it will be
    line: Callable[[dict[str, Any]], object] = _nothing  # each line of metrics.jsonl
    epochs: int | None = None  # to stop after; the schedule stays the recipe's
    steps: int | None = None  # to stop after, as by a signal: StoppedError has the exit code 0


PAUSED = -128  # in place of a signal's number
NOBODY = Watch()


def train(
    model: str | None = None,
    *,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    recipe: str | Path | None = None,
    epochs: int | None = None,
    batch_size: int | Literal["auto"] | None = None,
    lr: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: Mapping[str, object] | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    say: Say = lambda text: None,
) -> RunFolder:
    """Train a network and return its run folder: `dlkit train` from Python.

    `settings` are recipe keys by their dotted names: {"optimizer.name": "sgd", "train.ema": 0.999}.

    Raises:
        UsageError, DataError, …: see dlkit.errors; nothing is left half-written.
    """
    named = {
        "data.dir": None if data_dir is None else str(data_dir),
        "train.epochs": epochs,
        "train.batch_size": None if batch_size == "auto" else batch_size,
        "optimizer.lr": lr,
        "train.seed": seed,
        "train.device": device,
    }
    given = {key: value for key, value in named.items() if value is not None}
    resolved = _resolved(model, dataset, recipe, {**(settings or {}), **given}, say)
    for note in resolved.notes:
        say(note)
    return train_recipe(
        resolved.recipe, name=name, runs_dir=Path(runs_dir), argv=[], say=say, progress=False,
        auto_batch=batch_size == "auto",
    )  # fmt: skip


def _resolved(
    model: str | None, dataset: str | None, recipe: str | Path | None, values: Mapping[str, object], say: Say
) -> Resolved:
    """The recipe; on photos of the user's own the one that suits them."""
    named = {key: name for key, name in (("model.name", model), ("data.name", dataset)) if name is not None}
    chosen = [Setting(key, value, f"{key}={value}") for key, value in {**named, **values}.items()]
    if recipe is None and names_photos(chosen):
        return resolve_for_photos(chosen, say)
    return resolve(model, dataset, recipe=recipe, flags=values)


def train_recipe(
    recipe: Recipe,
    *,
    name: str | None,
    runs_dir: Path,
    argv: Sequence[str],
    say: Say,
    progress: bool,
    auto_batch: bool = False,
    watch: Watch = NOBODY,
) -> RunFolder:
    """Train a new run; with `auto_batch` of the largest batch that fits, which its recipe.yaml then names."""
    refuse_fitted(recipe)
    tracking.need(recipe.train.track)
    world = world_of_environment()
    with ExitStack() as stack:
        stack.enter_context(signals.handled())
        reserved = stack.enter_context(reserve(recipe, name, runs_dir, say)) if world.leads else None
        device = stack.enter_context(ready(recipe, world, recipe.train.threads))
        name = world.same(reserved.name if reserved else "")
        say = say if world.leads else silent
        say(f"device: {precision.describe(device)}")
        materials = gather(recipe, device, world, runs_dir, say)
        if auto_batch:
            materials = with_largest_batch(materials, say)
            recipe = materials.recipe
        watch.materials(materials)
        if world.leads:
            glance(materials, runs_dir, say)
        run, scratch = new_run(materials, say)
        folder = RunFolder(runs_dir / name)
        if reserved:
            info = {**identity(recipe, materials.data, run), "from_scratch": scratch}
            if materials.start is not None:
                info |= {"starts_from": list(materials.start.source.trained_on)}
            info |= {"git": provenance.git_state(), "argv": provenance.without_passwords(argv)}
            watch.begun(info)
        with signals.stop_flag():
            if reserved:
                run_creation.create(reserved, recipe, info, partial(save_first, run, materials.data))
            world.wait()
            say(f"run: {folder.path}")
            return go_on(run, folder, recipe, materials.data, say, progress, watch)


@contextmanager
def reserve(recipe: Recipe, name: str | None, runs_dir: Path, say: Say) -> Iterator[run_creation.Reservation]:
    """The name of a new run, held until its training ends; what killed processes left in the folder is removed."""
    base = name or run_creation.default_name(recipe)
    with run_creation.reserve(runs_dir, base, numbered=name is None) as reservation:
        run_creation.remove_abandoned(runs_dir, say)
        yield reservation


def resume_run(
    folder: RunFolder,
    *,
    changes: Mapping[str, object],
    inexact: bool,
    say: Say,
    progress: bool,
    argv: Sequence[str] = (),
    watch: Watch = NOBODY,
) -> RunFolder:
    """Go on with a run from its newest whole checkpoint; it ends bit for bit like one that was never stopped.

    `changes` are recipe keys of recipe.MAY_CHANGE_ON_RESUME with their new values.

    Raises:
        ModelFileError: no whole checkpoint, or another torch, thread count, device kind or world size (then `inexact`).
        DataError: the data is not what it was.
    """
    world = world_of_environment()
    with ExitStack() as stack:
        stack.enter_context(signals.handled())
        if world.leads:
            stack.enter_context(folder.locked())
        info, stored = folder.info(), folder.trained_recipe()
        recipe = recipe_of_run(folder, with_changes(stored, changes))
        refuse_fitted(recipe)
        tracking.need(recipe.train.track)
        device = stack.enter_context(ready(recipe, world, info["threads"]))
        say = say if world.leads else silent
        say(f"run: {folder.path}")
        say(f"device: {precision.describe(device)}")
        for edit in changed_settings(info, stored):
            say(f"warning: recipe.yaml was edited: {edit}; going on with that")
        data = replace(prepare(recipe, say), spec=folder.spec())
        same_data(folder, info, data)
        model, _ = begin(recipe, data, None, silent)
        run = assemble(recipe, data, device, world, model, info.get("from_scratch", []), folder.path.parent, silent)
        differs = same_machine(info, identity(recipe, data, run), inexact, say)
        found = checkpoint.newest(folder.checkpoints, info["run_id"], say)
        state.restore(run, found)
        differs |= not same_log(folder, found, inexact, say)
        stack.enter_context(signals.stop_flag())
        if world.leads:
            tell_little_room(run, folder.path, say)
            tidy(folder, run, recipe, say)
            resumed = {
                "at": run_folder.now(), "step": run.step, "argv": provenance.without_passwords(argv),
                "changes": {change.name: [change.before, change.now] for change in changed_settings(info, recipe)},
            }  # fmt: skip
            now = {"resumes": [*info.get("resumes", []), resumed], "recipe": recipe.model_dump(mode="json")}
            folder.update(status="running", inexact=info["inexact"] or differs, **now)
        say(f"resuming at step {run.step:,}, epoch {min(run.epochs_done + 1, recipe.train.epochs)}")
        if change := changed_learning_rate(run, stored, recipe):
            say(change)
        return go_on(run, folder, recipe, data, say, progress, watch)


def changed_learning_rate(run: Run, before: Recipe, now: Recipe) -> str | None:
    """How another number of epochs changes the learning rate of a run that goes on, if it does."""
    epochs = before.train.epochs, now.train.epochs
    return describe_change(now.schedule, now.optimizer.lr, run.steps_per_epoch, run.step, *epochs)


def tidy(folder: RunFolder, run: Run, recipe: Recipe, say: Say) -> None:
    """Put a run's folder back to its checkpoint: no line of metrics beyond it, nothing left by a killed process."""
    for place in (folder.path, folder.checkpoints, folder.path / "plots"):
        for left in atomic_io.remove_leftovers(place):
            say(f"removed {left}, left by a killed process")
    run_creation.remove_abandoned(folder.path.parent, say)
    atomic_io.keep_lines(folder.path / "metrics.jsonl", run.metrics_lines)
    prune(run, folder)
    if run.epochs_done:
        run_folder.link_latest(folder)
    if recipe != folder.recipe():
        atomic_io.write_text(folder.path / "recipe.yaml", yaml_file.dump(recipe))


def go_on(
    run: Run, folder: RunFolder, recipe: Recipe, data: Prepared, say: Say, progress: bool, watch: Watch = NOBODY
) -> RunFolder:
    """Run the loop from where the run stands to its end, and note in run.json how it ended."""
    training, validation = batches(run, recipe, data)
    leads = run.world.leads
    if training.unused_samples:
        say(
            f"batch norm cannot train on the last batch of an epoch, it is too small: {training.unused_samples} of "
            f"{len(training.samples):,} samples sit out each epoch, others in the next"
        )

    def record(line: dict[str, Any]) -> None:
        folder.append_metrics(line)
        track(line)
        watch.line(line)

    with ExitStack() as stack:
        stop = stack.enter_context(signals.stop_flag())
        track = stack.enter_context(tracked(folder, recipe.train.track if leads else (), say))
        bar = stack.enter_context(TrainingBar(run, progress and leads))
        around = Surroundings(
            save=partial(save, folder=folder) if leads else _nothing,
            log=record if leads else _nothing,
            stop=lambda: stop() or (PAUSED if watch.steps is not None and run.step >= watch.steps else 0),
            say=say,
            advance=bar.advance,
            plain=not progress,
            epochs=watch.epochs,
        )
        try:
            fit(run, training, validation, around)
        except BaseException as error:
            with stop.held():
                note_end(folder, run, error)
            raise
    if leads:
        with stop.held():  # a plot takes less than a second, and the status has to be written
            finish(run, folder, say)
    if stop():
        raise StoppedError(f"stopped by {signals.name(stop())} after the last step; everything is saved.", stop())
    return folder


def save_first(run: Run, data: Prepared, folder: RunFolder) -> None:
    """What a new run's folder begins with: the list of its files and a checkpoint."""
    if data.files:
        write_files(folder.data_files, data.files)
    save(run, folder)


def save(run: Run, folder: RunFolder) -> None:
    """A checkpoint of this step; then the old ones go."""
    log = folder.metrics_digest(run.metrics_lines)
    checkpoint.save(folder.checkpoints, folder.info()["run_id"], run.step, state.tensors(run), state.values(run), log)
    prune(run, folder)
    if run.epochs_done:
        run_folder.link_latest(folder)


def prune(run: Run, folder: RunFolder) -> None:
    """Keep the newest checkpoints and the best."""
    checkpoint.prune(folder.checkpoints, run.settings.keep, run.best.step if run.best else None)


def finish(run: Run, folder: RunFolder, say: Say) -> None:
    """The learning curve, and the end noted in run.json."""
    learning_curve(folder.metrics(say), folder.path / "plots" / "learning_curve.png")
    best = None if run.best is None else {"epoch": run.best.epoch, "step": run.best.step, "value": run.best.value}
    whole = run.epochs_done >= run.settings.epochs or out_of_patience(run)
    end = {"status": "finished" if whole else "stopped", "ended": run_folder.now(), "epochs": run.epochs_done}
    folder.update(**end, monitor=run.settings.monitor, best=best)
    if out_of_patience(run) and run.epochs_done < run.settings.epochs:
        say(f"stopped early: {run.settings.monitor} has not improved for {run.stale} epochs")
    if run.best is not None:
        say(f"best: {run.settings.monitor} {run.best.value:.4f} at epoch {run.best.epoch}")


def note_end(folder: RunFolder, run: Run, error: BaseException) -> None:
    """Say in run.json how the run ended, unless the disk refuses that too."""
    if not run.world.leads:
        return
    stopped = isinstance(error, StoppedError | KeyboardInterrupt)
    status = "stopped" if stopped else "diverged" if isinstance(error, DivergedError) else "failed"
    try:
        folder.update(status=status, ended=run_folder.now(), epochs=run.epochs_done, error=str(error).split("\n")[0])
    except DlkitError:
        return
