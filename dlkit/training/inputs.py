"""A recipe's device and its data, as every verb that trains needs them before there is a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from dlkit import registry
from dlkit.config.schema import Recipe
from dlkit.data import library
from dlkit.data.checks import duplicates
from dlkit.data.classes import missing_classes
from dlkit.data.download.http import UnreachableError
from dlkit.data.fingerprint import Files, file_digests, fingerprint, fingerprint_of_files
from dlkit.data.images.readable import explain_bad_images, skip_bad_images
from dlkit.data.loader import split
from dlkit.data.processes import use_timeout
from dlkit.data.splits import ImageFiles, Samples, SequenceSamples, TreeSamples
from dlkit.data.text.corpus import restrict_vocabulary, unknown_share
from dlkit.errors import DataError, OutOfMemoryError, UsageError
from dlkit.specs import ImageSpec, Spec
from dlkit.training import leaks, memory, precision, transfer, weights
from dlkit.training.distributed import World, joined

Say = Callable[[str], None]

NAMED, LONGEST_NAME = 5, 30  # classes in the line about the data, and letters of each
TOLD_FILES = 100_000  # more take long enough to read that it is said


@dataclass(frozen=True)
class Prepared:
    """The data of a run, read and split."""

    spec: Spec
    splits: Mapping[str, Samples]
    fingerprints: Mapping[str, str]
    files: Files = field(default_factory=dict)  # of the splits that are files
    left_out: Mapping[str, str] = field(default_factory=dict)  # path of a bad image → what is wrong with it


@dataclass(frozen=True)
class Materials:
    """All that a run is built from, as often as one likes and each time with the same bits."""

    recipe: Recipe
    data: Prepared
    start: transfer.Start | None
    device: torch.device
    world: World
    runs_dir: Path


def gather(recipe: Recipe, device: torch.device, world: World, runs_dir: Path, say: Say) -> Materials:
    """The weights to start from and the data, read."""
    start = starting_point(recipe, runs_dir, say)  # before the data: it may be refused
    data = prepare(recipe, say)
    if start is not None:  # prepared as those weights' data were
        data = replace(data, spec=transfer.read_alike(data.spec, start, say))
        if world.leads:
            for warning in leaks.warnings(start.source.trained_on, data.splits, recipe.data, data.files):
                say(f"warning: {warning}")
    return Materials(recipe, data, start, device, world, runs_dir)


def refuse_fitted(recipe: Recipe) -> None:
    """Raises: UsageError where the model is no network that steps train."""
    name = recipe.model.name
    if hasattr(registry.load("models", name), "fit"):
        raise UsageError(f"{name} is not trained in steps: dlkit baseline {name} --dataset {recipe.data.name} fits it.")


@contextmanager
def ready(recipe: Recipe, world: World, threads: int | None) -> Iterator[torch.device]:
    """The device, the threads and the process group that a recipe asks for, while the block runs."""
    device = precision.choose_device(recipe.train.device, world.local_rank)
    precision.use_threads(threads)
    use_timeout(recipe.data.loader_timeout)
    precision.compute_alike(device)
    memory.keep_freed()
    try:
        with joined(world, device), explain_bad_images(recipe.data):
            yield device
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(recipe, error) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            "batch norm cannot train on one sample whose maps are one pixel large. "
            "Choose another --batch-size or --accumulate, or model.options.norm=group where the model has it."
        ) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise out_of_memory(recipe, error) from error


def prepare(recipe: Recipe, say: Say) -> Prepared:
    """Read the data set and cut its validation split."""
    found = library.splits(recipe.data, log=say)
    for warning in found.warnings:
        say(f"warning: {warning}")
    parts = split(found, recipe.data.validation, recipe.train.seed)
    if found.validation is None and "validation" in parts:
        for warning in missing_classes(parts["validation"].targets.tolist(), "validation", found.spec.classes):
            say(f"warning: {warning}")
    used = {name: part for name, part in parts.items() if name != "test"}  # test is for eval alone
    counts = ", ".join(f"{len(part):,} {name}" for name, part in used.items())
    say(f"data: {recipe.data.name}, {counts}{_classes_line(found.spec.classes)}")
    left_out: dict[str, str] = {}
    if recipe.data.on_bad_image == "skip":
        used, left_out = skip_bad_images(used, say, recipe.data.max_pixels)
    spec = restrict_vocabulary(found.spec, parts["train"])  # without those of the validation samples
    classes = found.spec.classes
    files = listed_files(recipe, used, classes, say)
    log_vocabulary(spec, used, say)
    for warning in (*duplicates.duplicate_notes(files), *duplicates.text_leak_notes(used)):
        if warning not in found.warnings:
            say(f"warning: {warning} To see which: dlkit dataset check.")
    fingerprints = {
        name: fingerprint_of_files(files[name], classes) if name in files else fingerprint(part, classes)
        for name, part in used.items()
    }
    return Prepared(spec, used, fingerprints, files, left_out)


def log_vocabulary(spec: Spec, parts: Mapping[str, Samples], log: Say) -> None:
    """Log the size of the vocabulary of a text data set, and how much of its validation split is unknown."""
    if isinstance(spec, ImageSpec) or not spec.words:
        return
    validation = parts.get("validation")
    share = ""
    if isinstance(validation, SequenceSamples | TreeSamples):
        share = f"; {unknown_share(validation, spec.words):.1%} of the words in validation are unknown"
    log(f"vocabulary: {len(spec.words):,} words{share}")


def _classes_line(classes: tuple[str, ...]) -> str:
    """The number of classes and the first of them; nothing if the data asks for a number."""
    if not classes:
        return ""
    names = ", ".join(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in classes[:NAMED])
    return f"; {len(classes):,} classes: {names}{', …' if len(classes) > NAMED else ''}"


def listed_files(recipe: Recipe, parts: Mapping[str, Samples], classes: tuple[str, ...], say: Say) -> Files:
    """Every file of these splits with its digest, by its path below the folder of the data."""
    found = {name: part for name, part in parts.items() if isinstance(part, ImageFiles)}
    paths = [str(path) for part in found.values() for path in part.paths]
    if len(paths) > TOLD_FILES:
        say(f"data: reading {len(paths):,} files, for their digests")
    root = str(Path(recipe.data.dir)) if recipe.data.dir else os.path.commonpath(paths) if paths else ""
    return {name: file_digests(part, classes, root) for name, part in found.items()}


def starting_point(recipe: Recipe, runs_dir: Path, say: Say) -> transfer.Start | None:
    """The weights that a recipe starts from, read; checked as far as they can be without the data."""
    model = recipe.model
    if model.weights is None:
        return None
    source = weights.find(model.weights, model.name, runs_dir, say)
    try:
        tensors = source.read()
    except UnreachableError as error:
        ways_out = "Train from scratch with --no-pretrained, or start from a file of yours with --weights FILE."
        raise UnreachableError(f"{error} {ways_out}") from error
    start = transfer.Start(model.name, source, tensors, model.init_layers)
    transfer.check(start, recipe.train.freeze)
    return start


def out_of_memory(recipe: Recipe, error: BaseException) -> OutOfMemoryError:
    batch, parts = recipe.train.batch_size, recipe.train.accumulate * 2
    return OutOfMemoryError(
        f"out of memory with batches of {batch} ({str(error).splitlines()[0][:120]}). Try --batch-size "
        f"{max(batch // 2, 1)}, or --accumulate {parts}, which computes a batch in parts: batch norm then has the "
        "statistics of each part, which changes the training; group norm (model.options.norm=group) does not."
    )


def silent(text: str) -> None:
    """The `say` of ranks other than 0, and of trials."""
