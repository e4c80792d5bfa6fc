"""train: a recipe becomes a run folder; starting and resuming are the same call."""

from __future__ import annotations

import copy
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from dlkit import catalog, durable, recipe_file
from dlkit import recipe as recipes
from dlkit.data.fingerprint import fingerprint
from dlkit.data.loader import TrainingData, batches_in_order, split
from dlkit.data.samples import Samples
from dlkit.data.text import known_words
from dlkit.data.vectors import read_vectors
from dlkit.engine import checkpoint, loss, optim, precision, run_folder, state, transfer, weights
from dlkit.engine.distributed import World, joined, world_of_environment
from dlkit.engine.freezing import choose_frozen
from dlkit.engine.loop import Run, Surroundings, fit, out_of_patience
from dlkit.engine.restore import build, renewed
from dlkit.engine.run_folder import RunFolder
from dlkit.engine.schedule import learning_rate
from dlkit.engine.signals import stop_flag
from dlkit.errors import (
    DataError,
    DivergedError,
    DlkitError,
    ModelFileError,
    OutOfMemoryError,
    StoppedError,
    UsageError,
)
from dlkit.recipe import Recipe
from dlkit.regularizers import Plan, Regularizer
from dlkit.specs import ImageSpec, Spec
from dlkit.verbs import dataset
from dlkit.verbs.plot import learning_curve

Say = Callable[[str], None]

VALIDATION_BATCH = 512  # images; larger than a step's, since nothing is kept for backward


@dataclass(frozen=True)
class Prepared:
    """The data of a run, read and split."""

    spec: Spec
    splits: Mapping[str, Samples]
    fingerprints: Mapping[str, str]


def train(
    model: str | None = None,
    *,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    recipe: str | Path | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
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
        "train.batch_size": batch_size,
        "optimizer.lr": lr,
        "train.seed": seed,
        "train.device": device,
    }
    given = {key: value for key, value in named.items() if value is not None}
    resolved = recipes.resolve(model, dataset, recipe=recipe, flags={**(settings or {}), **given})
    return train_recipe(resolved.recipe, name=name, runs_dir=Path(runs_dir), argv=[], say=say, progress=False)


def train_recipe(
    recipe: Recipe, *, name: str | None, runs_dir: Path, argv: Sequence[str], say: Say, progress: bool
) -> RunFolder:
    """Train a new run."""
    refuse_fitted(recipe)
    name = name or run_folder.new_name(runs_dir, recipe)
    world = world_of_environment()
    if world.leads:
        run_folder.check_new(runs_dir, name)
    with ready(recipe, world, recipe.train.threads) as device:
        name = world.same(name)
        say = say if world.leads else _silent
        say(f"device: {precision.describe(device)}")
        start = starting_point(recipe, runs_dir, say)  # before the data: it may be refused
        data = alike(prepare(recipe, say), start, say)
        model, scratch = begin(recipe, data, start, say)
        if recipe.data.vectors is not None:
            start_embedding(model, data.spec, Path(recipe.data.vectors), say)
        run = assemble(recipe, data, device, world, model, scratch, runs_dir, say)
        folder = RunFolder(runs_dir / name)
        if world.leads:
            info = {**identity(recipe, data, device, world, run), "from_scratch": scratch, "argv": list(argv)}
            folder = run_folder.create(runs_dir, name, recipe, info, partial(save, run))
        world.wait()
        say(f"run: {folder.path}")
        with folder.locked() if world.leads else nullcontext():
            return go_on(run, folder, recipe, data, say, progress)


def resume_run(
    folder: RunFolder,
    *,
    changes: Mapping[str, object],
    inexact: bool,
    say: Say,
    progress: bool,
    argv: Sequence[str] = (),
) -> RunFolder:
    """Go on with a run from its newest whole checkpoint; it ends bit for bit like one that was never stopped.

    `changes` are recipe keys of recipe.MAY_CHANGE_ON_RESUME with their new values.

    Raises:
        ModelFileError: no whole checkpoint, or another torch, thread count, device kind or world size (then `inexact`).
        DataError: the data is not what it was.
    """
    world = world_of_environment()
    with ExitStack() as stack:
        if world.leads:
            stack.enter_context(folder.locked())
        info = folder.info()
        recipe = recipes.changed(folder.recipe(), changes)
        refuse_fitted(recipe)
        device = stack.enter_context(ready(recipe, world, info["threads"]))
        say = say if world.leads else _silent
        say(f"run: {folder.path}")
        say(f"device: {precision.describe(device)}")
        data = replace(prepare(recipe, say), spec=folder.spec())
        same_data(info, data)
        model, _ = begin(recipe, data, None, _silent)
        run = assemble(recipe, data, device, world, model, info.get("from_scratch", []), folder.path.parent, _silent)
        differs = same_machine(info, identity(recipe, data, device, world, run), inexact, say)
        state.restore(run, checkpoint.newest(folder.checkpoints, info["run_id"], say))
        if world.leads:
            tidy(folder, run, recipe, say)
            resumes = [*info.get("resumes", []), {"at": run_folder.now(), "step": run.step, "argv": list(argv)}]
            folder.update(status="running", resumes=resumes, inexact=info["inexact"] or differs)
        say(f"resuming at step {run.step:,}, epoch {min(run.epochs_done + 1, recipe.train.epochs)}")
        return go_on(run, folder, recipe, data, say, progress)


def refuse_fitted(recipe: Recipe) -> None:
    """Raises: UsageError where the model is no network that steps train."""
    name = recipe.model.name
    if hasattr(catalog.load("models", name), "fit"):
        raise UsageError(f"{name} is not trained in steps: dlkit baseline {name} --dataset {recipe.data.name} fits it.")


@contextmanager
def ready(recipe: Recipe, world: World, threads: int | None) -> Iterator[torch.device]:
    """The device, the threads and the process group that a recipe asks for, while the block runs."""
    device = precision.choose_device(recipe.train.device, world.local_rank)
    precision.use_threads(threads)
    precision.compute_alike(device)
    try:
        with joined(world, device):
            yield device
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(recipe, error) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            "a batch, or part of one, holds a single image whose maps are one pixel large: batch norm has nothing to "
            "average. Choose another --batch-size, --accumulate or --validation, or model.options.norm=group."
        ) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise out_of_memory(recipe, error) from error


def tidy(folder: RunFolder, run: Run, recipe: Recipe, say: Say) -> None:
    """Put a run's folder back to its checkpoint: no line of metrics beyond it, nothing left by a killed process."""
    for left in durable.remove_leftovers(folder.checkpoints) + durable.remove_leftovers(folder.path):
        say(f"removed {left}, left by a killed process")
    durable.keep_lines(folder.path / "metrics.jsonl", run.metrics_lines)
    prune(run, folder)
    if recipe != folder.recipe():
        durable.write_text(folder.path / "recipe.yaml", recipe_file.dump(recipe))


def prepare(recipe: Recipe, say: Say) -> Prepared:
    """Read the data set and cut its validation split."""
    found = dataset.splits(recipe.data, say=say)
    for warning in found.warnings:
        say(f"warning: {warning}")
    parts = split(found, recipe.data.validation, recipe.train.seed)
    used = {name: part for name, part in parts.items() if name != "test"}  # test is for eval alone
    say("data: " + recipe.data.name + ", " + ", ".join(f"{len(part):,} {name}" for name, part in used.items()))
    spec = known_words(found.spec, parts["train"])  # without those of the validation samples
    return Prepared(spec, used, {name: fingerprint(part, found.spec.classes) for name, part in used.items()})


def starting_point(recipe: Recipe, runs_dir: Path, say: Say) -> transfer.Start | None:
    """The weights that a recipe starts from, read; checked as far as they can be without the data."""
    model = recipe.model
    if model.weights is None:
        return None
    source = weights.find(model.weights, model.name, runs_dir, say)
    start = transfer.Start(model.name, source, source.read(), model.init_layers)
    transfer.check(start, recipe.train.freeze)
    return start


def alike(data: Prepared, start: transfer.Start | None, say: Say) -> Prepared:
    """The data, prepared as the weights that training starts from were."""
    return data if start is None else replace(data, spec=transfer.read_alike(data.spec, start, say))


def begin(recipe: Recipe, data: Prepared, start: transfer.Start | None, say: Say) -> tuple[nn.Module, list[str]]:
    """The network, its weights drawn by the recipe's seed or taken over; and what of it then starts from scratch."""
    torch.manual_seed(recipe.train.seed)
    model = build(recipe.model.name, data.spec, dict(recipe.model.options))
    if start is None:
        return model, []
    options = catalog.resolved_options("models", recipe.model.name, recipe.model.options)
    return model, transfer.inherit(model, start, data.spec, options, say)


def start_embedding(model: nn.Module, spec: Spec, vectors: Path, say: Say) -> None:
    """Start the embedding's rows from the vectors of a file, where it has the words.

    Raises:
        UsageError: the network has no embedding.
        DataError: there is no such file, or its vectors are not as wide as the embedding.
    """
    embedding = getattr(model, "embedding", None)
    if isinstance(spec, ImageSpec) or not isinstance(embedding, nn.Embedding):
        raise UsageError("recipe.data.vectors starts an embedding of words, and this model has none. Leave it out.")
    places, rows = read_vectors(vectors, spec.words, embedding.embedding_dim)
    with torch.no_grad():
        embedding.weight[torch.from_numpy(places) + 2] = torch.from_numpy(rows)
    say(f"vectors: {vectors} has {len(places):,} of the {len(spec.words):,} words; the others start at random")


def assemble(
    recipe: Recipe,
    data: Prepared,
    device: torch.device,
    world: World,
    model: nn.Module,
    scratch: Sequence[str],
    runs_dir: Path,
    say: Say,
) -> Run:
    """Everything a step needs, built from the recipe around its network."""
    frozen = choose_frozen(model, recipe.train.freeze, recipe.train.unfreeze, scratch, say)
    frozen.freeze_for_good(model)
    dtype = precision.autocast_dtype(recipe.train.amp, device)
    wanted = recipe.train.channels_last
    if precision.wants_channels_last(model, device, dtype) if wanted is None else wanted:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    steps = -(-len(data.splits["train"]) // recipe.train.batch_size)
    regularizers = regularize(model, recipe, data, steps, scratch, runs_dir)
    averaged = next((part.averaged for part in regularizers if part.averaged is not None), None)
    if recipe.train.ema:
        averaged = copy.deepcopy(model).requires_grad_(False)
    return Run(
        model=model,
        network=torch.compile(model) if recipe.train.compile else model,
        optimizer=optim.build(model, recipe.optimizer, device),
        loss=loss.build(recipe.loss),
        lr=learning_rate(recipe.schedule, recipe.optimizer.lr, steps * recipe.train.epochs, steps),
        regularizers=regularizers,
        settings=recipe.train,
        device=device,
        dtype=dtype,
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        world=world,
        averaged=averaged,
        freezing=frozen,
        classifies=bool(data.spec.classes),
        counted="nodes" if data.spec.kind == "trees" else data.spec.kind,
    )


def regularize(
    model: nn.Module, recipe: Recipe, data: Prepared, steps_per_epoch: int, scratch: Sequence[str], runs_dir: Path
) -> list[Regularizer]:
    """The recipe's regularizers that are on, by their names' order, each having had its turn at the model."""
    found = {
        name: catalog.load("regularizers", name).build(**catalog.resolved_options("regularizers", name, options))
        for name, options in sorted(recipe.regularizers.items())
        if catalog.is_on(name, options)
    }

    def weights_of(source: str) -> Mapping[str, torch.Tensor]:
        if source == "start":  # on a resume the checkpoint brings their values
            return {name: tensor for name, tensor in model.state_dict().items() if name not in scratch}
        return renewed(weights.find(source, recipe.model.name, runs_dir, _silent).read(), model)

    plan = Plan(
        data.spec,
        len(data.splits["train"]),
        steps_per_epoch,
        recipe.train.epochs,
        regularizers=frozenset(found),
        weights=weights_of,
    )
    for regularizer in found.values():
        regularizer.on_model(model, plan)
    return list(found.values())


def go_on(run: Run, folder: RunFolder, recipe: Recipe, data: Prepared, say: Say, progress: bool) -> RunFolder:
    """Run the loop from where the run stands to its end, and note in run.json how it ended."""
    training, validation = batches(run, recipe, data)
    leads = run.world.leads
    with ExitStack() as stack:
        stop = stack.enter_context(stop_flag())
        total = training.steps_per_epoch * recipe.train.epochs
        bar = stack.enter_context(
            tqdm(total=total, initial=run.step, disable=not (progress and leads), unit="step", leave=False)
        )
        around = Surroundings(
            save=partial(save, folder=folder) if leads else _unsaved,
            log=folder.append_metrics if leads else _unlogged,
            stop=stop,
            say=say,
            advance=bar.update,
            plain=not progress,
        )
        try:
            fit(run, training, validation, around)
        except BaseException as error:
            note_end(folder, run, error)
            raise
    if leads:
        finish(run, folder, say)
    return folder


def batches(run: Run, recipe: Recipe, data: Prepared) -> tuple[TrainingData, Callable[[], Iterator[Any]] | None]:
    """The training data, and a function that starts over the validation split."""
    channels_last = any(
        parameter.ndim == 4 and not parameter.is_contiguous() for parameter in run.model.parameters()
    ) or bool(recipe.train.channels_last)
    training = TrainingData(
        samples=data.splits["train"],
        spec=data.spec,
        augment=recipe.data.augment,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        device=run.device,
        workers=recipe.data.workers,
        rank=run.world.rank,
        world_size=run.world.size,
        channels_last=channels_last,
    )
    if "validation" not in data.splits:
        return training, None
    return training, lambda: batches_in_order(
        data.splits["validation"],
        data.spec,
        max(VALIDATION_BATCH, recipe.train.batch_size),
        run.device,
        recipe.data.workers,
        rank=run.world.rank,
        world_size=run.world.size,
        channels_last=channels_last,
    )


def save(run: Run, folder: RunFolder) -> None:
    """A checkpoint of this step; then the old ones go."""
    checkpoint.save(folder.checkpoints, folder.info()["run_id"], run.step, state.tensors(run), state.values(run))
    prune(run, folder)


def prune(run: Run, folder: RunFolder) -> None:
    """Keep the newest checkpoints and the best."""
    checkpoint.prune(folder.checkpoints, run.settings.keep, run.best.step if run.best else None)


def finish(run: Run, folder: RunFolder, say: Say) -> None:
    """The learning curve, and the end noted in run.json."""
    learning_curve(folder.metrics(), folder.path / "plots" / "learning_curve.png")
    best = None if run.best is None else {"epoch": run.best.epoch, "step": run.best.step, "value": run.best.value}
    end = {"status": "finished", "ended": run_folder.now(), "epochs": run.epochs_done}
    folder.update(**end, monitor=run.settings.monitor, best=best)
    if out_of_patience(run) and run.epochs_done < run.settings.epochs:
        say(f"stopped early: {run.settings.monitor} has not improved for {run.stale} epochs")
    if run.best is not None:
        say(f"best: {run.settings.monitor} {run.best.value:.4f} at epoch {run.best.epoch}")


def note_end(folder: RunFolder, run: Run, error: BaseException) -> None:
    """Say in run.json how the run ended, unless the disk refuses that too."""
    if not run.world.leads:
        return
    status = {StoppedError: "stopped", DivergedError: "diverged"}.get(type(error), "failed")
    try:
        folder.update(status=status, ended=run_folder.now(), epochs=run.epochs_done, error=str(error).split("\n")[0])
    except DlkitError:
        return


def identity(recipe: Recipe, data: Prepared, device: torch.device, world: World, run: Run) -> dict[str, Any]:
    """What run.json says of the machine, the data and the preprocessing."""
    return {
        "model": recipe.model.name,
        "dataset": recipe.data.name,
        "seed": recipe.train.seed,
        "device": device.type,
        "device_name": precision.describe(device),
        "threads": torch.get_num_threads(),
        "world_size": world.size,
        "precision": str(run.dtype or torch.float32).removeprefix("torch."),
        "versions": versions(),
        "platform": platform.platform(),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "data": {name: {"samples": len(part), "sha256": data.fingerprints[name]} for name, part in data.splits.items()},
        "spec": data.spec.to_json(),
        "inexact": False,
    }


def versions() -> dict[str, str]:
    packages = ("dlkit", "torch", "numpy", "pillow", "safetensors", "pydantic")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def same_data(info: Mapping[str, Any], data: Prepared) -> None:
    """Refuse to go on with other data than the run began with."""
    for name, sha256 in data.fingerprints.items():
        before = info["data"].get(name, {})
        if before.get("sha256") != sha256:
            count = len(data.splits[name])
            raise DataError(
                f"the {name} split is not what this run began with ({before.get('samples')} samples, SHA-256 "
                f"{str(before.get('sha256'))[:12]}…; now {count}, {sha256[:12]}…). Put it back, or train a new run."
            )


def same_machine(before: Mapping[str, Any], now: Mapping[str, Any], inexact: bool, say: Say) -> bool:
    """Whether bits may differ from here on; refused unless the caller said so."""
    pairs = [(key, before[key], now[key]) for key in ("threads", "device", "world_size", "precision")]
    pairs.append(("torch", before["versions"]["torch"], now["versions"]["torch"]))
    differences = ", ".join(f"{key} was {old}, is {new}" for key, old, new in pairs if old != new)
    if differences and not inexact:
        raise ModelFileError(f"this run cannot go on bit for bit: {differences}. --inexact goes on all the same.")
    if differences:
        say(f"warning: going on inexactly: {differences}")
    return bool(differences)


def out_of_memory(recipe: Recipe, error: BaseException) -> OutOfMemoryError:
    batch = recipe.train.batch_size
    return OutOfMemoryError(
        f"out of memory with batches of {batch} ({str(error).splitlines()[0][:120]}). Try --batch-size "
        f"{max(batch // 2, 1)}, or --accumulate {recipe.train.accumulate * 2} for the same step computed in parts."
    )


def _silent(text: str) -> None:
    """Ranks other than 0 say nothing."""


def _unsaved(run: Run) -> None:
    """Ranks other than 0 write nothing."""


def _unlogged(line: dict[str, Any]) -> None:
    """Ranks other than 0 write nothing."""
