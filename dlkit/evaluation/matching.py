"""A split as a trained model can take it: classes matched by name, images of the model's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlkit.config.recipe import Data
from dlkit.errors import DataError, DlkitError
from dlkit.evaluation.record import read_evaluation
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec, Spec
from dlkit.training import leaks

if TYPE_CHECKING:
    from dlkit.data.splits import Samples

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A split as the model can take it, and what a person should know of it."""

    samples: Samples
    fingerprint: str
    warnings: tuple[str, ...]
    left_out: Mapping[str, str]  # images that cannot be read, where they may be left out, and what is wrong with each

    def with_warnings(self, warnings: tuple[str, ...], say: Say) -> Part:
        """The same with more warnings, which are reported."""
        for warning in warnings:
            say(f"warning: {warning}")
        return replace(self, warnings=(*self.warnings, *warnings))


def matched(run: RunFolder, data: Data, split: str, spec: Spec, say: Say) -> Part:
    """The split: its targets count the model's classes, its images have the model's size."""
    from dlkit.data.fingerprint import fingerprint
    from dlkit.data.library import splits

    found = splits(data, say=say)
    check_kind(found.spec, spec, data.name)

    from dlkit.data import loader  # imports torch: after all that may be refused without it

    parts = loader.split(found, data.validation, run.recipe().train.seed)
    if split not in parts:
        raise DataError(
            f"data set {data.name!r} has no {split} split. It has: {', '.join(parts)}; give one by --split."
        )
    samples, left_out = readable(parts[split], split, data, say)
    now = fingerprint(samples, found.spec.classes)
    leaked = leaks.warnings(run.info().get("starts_from", ()), {split: samples}, data)
    mapped = by_name(samples, found.spec.classes, spec.classes, data.name)
    warnings = [*found.warnings, *leaked, *_changes(run, data.name, split, now), *missing_classes(mapped, split, spec)]
    for warning in warnings:
        say(f"warning: {warning}")
    return Part(fitted(mapped, spec), now, tuple(warnings), left_out)


def readable(samples: Samples, split: str, data: Data, say: Say) -> tuple[Samples, dict[str, str]]:
    """The samples, without the images that cannot be read where data.on_bad_image is skip, and these."""
    if data.on_bad_image == "error":
        return samples, {}
    from dlkit.data.images.readable import usable

    kept, left_out = usable({split: samples}, say, data.max_pixels)
    return kept[split], left_out


def check_kind(theirs: Spec, ours: Spec, dataset: str) -> None:
    """Raises: DataError where a data set does not hold what the model reads or is asked for."""
    told = [f"{spec.kind} and {'their classes' if spec.classes else 'a number for each'}" for spec in (theirs, ours)]
    if told[0] != told[1]:
        raise DataError(f"data set {dataset!r} has {told[0]}, and the model is for {told[1]}.")


def by_name(samples: Samples, theirs: tuple[str, ...], ours: tuple[str, ...], dataset: str) -> Samples:
    """The same samples, their targets counting our classes: classes are one where their names are.

    Raises:
        DataError: a sample's class is not one of ours.
    """
    import numpy as np

    from dlkit.data.splits import TreeSamples

    if theirs == ours:
        return samples
    places = {name: place for place, name in enumerate(ours)}
    unknown = [theirs[target] for target in np.unique(samples.targets).tolist() if theirs[target] not in places]
    if unknown:
        raise DataError(
            f"data set {dataset!r} has {_listed(unknown)}, which the model does not know: it has {_listed(ours)}."
        )
    lookup = np.array([places.get(name, -1) for name in theirs], dtype=np.int64)
    if isinstance(samples, TreeSamples):  # a class that no tree has may stand at a node within one: it is then no label
        samples = replace(samples, labels=np.where(samples.labels < 0, -1, lookup[samples.labels]))
    return replace(samples, targets=lookup[samples.targets])


def _changes(run: RunFolder, dataset: str, split: str, now: str) -> list[str]:
    """A warning where the data are not what they were: in training, or (test) when they were last evaluated."""
    if dataset == run.recipe().data.name:
        trained = run.info().get("data", {}).get(split, {}).get("sha256", now)
        if trained != now:
            return [f"the {split} split is not what it was when the run was trained: {trained[:12]}…, now {now[:12]}…."]
    try:
        before = read_evaluation(run)
    except DlkitError:  # damaged; it is about to be written again
        before = {}
    same = before.get("dataset") == dataset and before.get("split") == split
    if same and before.get("fingerprint", now) != now:
        return [f"the {split} split is not what it was at the last evaluation."]
    return []


def missing_classes(samples: Samples, split: str, spec: Spec) -> list[str]:
    """A warning where the split has no sample of a class."""
    present = set(samples.targets.tolist())
    missing = [name for place, name in enumerate(spec.classes) if place not in present]
    return [f"the {split} split has no sample of {_listed(missing)}."] if missing else []


def fitted(samples: Samples, spec: Spec) -> Samples:
    """Images in memory brought to the model's channels and size; files are when they are read."""
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


def _listed(names: list[str] | tuple[str, ...]) -> str:
    """class 'a' · classes 'a', 'b', 'c' and 4 more."""
    shown = ", ".join(repr(name) for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{'class' if len(names) == 1 else 'classes'} {shown}{more}"
