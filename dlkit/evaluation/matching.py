"""Fit a split to a trained model: classes matched by name, images of the model's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlkit import registry
from dlkit.config.schema import Data
from dlkit.data.classes import missing_classes, quote_names
from dlkit.errors import DataError, DlkitError
from dlkit.evaluation.record import read_evaluation
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec, Spec
from dlkit.training import leaks

if TYPE_CHECKING:
    from dlkit.data.splits import Samples

Log = Callable[[str], None]


@dataclass(frozen=True)
class EvalSplit:
    """A split whose classes and image sizes are the model's."""

    samples: Samples
    fingerprint: str
    warnings: tuple[str, ...]
    left_out: Mapping[str, str]  # skipped images by path, with the reason

    def with_warnings(self, warnings: tuple[str, ...], log: Log) -> EvalSplit:
        """Add warnings and log them."""
        for warning in warnings:
            log(f"warning: {warning}")
        return replace(self, warnings=(*self.warnings, *warnings))


def load_split(run: RunFolder, data: Data, split: str, spec: Spec, log: Log) -> EvalSplit:
    """Load a split; targets index the model's classes, images have the model's size."""
    from dlkit.data.fingerprint import fingerprint
    from dlkit.data.library import splits

    found = splits(data, log=log)
    check_kind(found.spec, spec, data.name)

    from dlkit.data import loader  # imports torch: after all checks that need none

    parts = loader.split(found, data.validation, run.recipe().train.seed)
    if split not in parts:
        raise DataError(_no_split(data, split, list(parts)))
    samples, left_out = readable(parts[split], split, data, log)
    now = fingerprint(samples, found.spec.classes)
    leaked = leaks.warnings(run.info().get("starts_from", ()), {split: samples}, data)
    mapped = by_name(samples, found.spec.classes, spec.classes, data.name)
    warnings = [
        *found.warnings,
        *leaked,
        *_changes(run, data.name, split, now),
        *missing_classes(mapped.targets.tolist(), split, spec.classes),
    ]
    for warning in warnings:
        log(f"warning: {warning}")
    return EvalSplit(resize_samples(mapped, spec), now, tuple(warnings), left_out)


def _no_split(data: Data, split: str, others: list[str]) -> str:
    """What is wrong if the data has no such split, and what to do."""
    way = f"Measure another with --split {others[-1]}"
    if split == "test" and "test" in registry.entry("datasets", data.name).options:
        way += ", or train again with --test-split 0.2, which keeps a fifth for eval"
    return f"data set {data.name!r} has no {split} split, only {' and '.join(others)}. {way}."


def readable(samples: Samples, split: str, data: Data, log: Log) -> tuple[Samples, dict[str, str]]:
    """The readable samples, and the unreadable ones if data.on_bad_image is "skip"."""
    if data.on_bad_image == "error":
        return samples, {}
    from dlkit.data.images.readable import skip_bad_images

    kept, left_out = skip_bad_images({split: samples}, log, data.max_pixels)
    return kept[split], left_out


def check_kind(theirs: Spec, ours: Spec, dataset: str) -> None:
    """Raises: DataError if a data set has other inputs or targets than the model."""
    theirs_kind, ours_kind = (f"{spec.kind} with {'classes' if spec.classes else 'numbers'}" for spec in (theirs, ours))
    if theirs_kind != ours_kind:
        raise DataError(f"data set {dataset!r} has {theirs_kind} as targets; the model is for {ours_kind} as targets.")


def by_name(samples: Samples, theirs: tuple[str, ...], ours: tuple[str, ...], dataset: str) -> Samples:
    """The samples with targets that index our classes, matched by name.

    Raises:
        DataError: a sample's class is not among ours.
    """
    import numpy as np

    from dlkit.data.splits import TreeSamples

    if theirs == ours:
        return samples
    indices = {name: index for index, name in enumerate(ours)}
    unknown = [theirs[target] for target in np.unique(samples.targets).tolist() if theirs[target] not in indices]
    if unknown:
        raise DataError(
            f"data set {dataset!r} has {quote_names(unknown)}, unknown to the model, which has {quote_names(ours)}."
        )
    lookup = np.array([indices.get(name, -1) for name in theirs], dtype=np.int64)
    if isinstance(samples, TreeSamples):  # inner nodes may have a class that no root has: unlabeled
        samples = replace(samples, labels=np.where(samples.labels < 0, -1, lookup[samples.labels]))
    return replace(samples, targets=lookup[samples.targets])


def _changes(run: RunFolder, dataset: str, split: str, now: str) -> list[str]:
    """A warning if the split has changed since training or since the last evaluation."""
    if dataset == run.recipe().data.name:
        trained = run.info().get("data", {}).get(split, {}).get("sha256", now)
        if trained != now:
            return [f"the {split} split has changed since training: SHA-256 {trained[:12]}…, now {now[:12]}…."]
    try:
        before = read_evaluation(run)
    except DlkitError:  # damaged, and about to be overwritten
        before = {}
    same = before.get("dataset") == dataset and before.get("split") == split
    if same and before.get("fingerprint", now) != now:
        return [f"the {split} split has changed since the last evaluation."]
    return []


def resize_samples(samples: Samples, spec: Spec) -> Samples:
    """Resize images in memory to the model's channels and size; files are resized when they are read."""
    import numpy as np
    from PIL import Image

    from dlkit.data.images.resize_crop import prepare
    from dlkit.data.splits import MemoryImages

    if not isinstance(samples, MemoryImages) or not isinstance(spec, ImageSpec):
        return samples
    channels, height, width = samples.images.shape[1:]
    if channels == spec.channels and spec.is_prepared(width, height):
        return samples
    mode = "L" if spec.channels == 1 else "RGB"
    pictures = (
        Image.fromarray(image.squeeze(0) if len(image) == 1 else image.transpose(1, 2, 0)) for image in samples.images
    )
    return replace(samples, images=np.stack([prepare(picture.convert(mode), spec) for picture in pictures]))
