"""Some of a data set's classes: data.classes, or `dlkit train photos --classes cat,dog`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from dlkit.data.splits import ImageFiles, MemoryImages, Samples, Splits
from dlkit.errors import UsageError
from dlkit.registry import did_you_mean
from dlkit.specs import ImageSpec, Spec

AnySpec = TypeVar("AnySpec", bound=Spec)


def select_in_spec(spec: AnySpec, names: Sequence[str] | None) -> AnySpec:
    """The spec with these classes alone, in the data set's order; all of them without `names`.

    Raises:
        UsageError: fewer than two, or one that the data set does not have.
    """
    if names is None or not isinstance(spec, ImageSpec):  # the recipe refuses classes of other data
        return spec
    for name in names:
        if name not in spec.classes:
            raise UsageError(f"data.classes: the data has no class {name!r}. {did_you_mean(name, spec.classes)}")
    if len(set(names)) < 2:
        raise UsageError("data.classes names one class only; a classifier needs two. Write --classes cat,dog.")
    return replace(spec, classes=tuple(name for name in spec.classes if name in names))


def select_classes(splits: Splits, names: Sequence[str] | None) -> Splits:
    """The data set with the samples of these classes alone; raises what `select_in_spec` raises."""
    spec = select_in_spec(splits.spec, names)
    if spec == splits.spec:
        return splits
    targets = np.full(len(splits.spec.classes), -1, np.int64)  # old class → new class
    targets[[splits.spec.classes.index(name) for name in spec.classes]] = np.arange(len(spec.classes))
    groups = None if splits.groups is None else splits.groups[targets[splits.train.targets] >= 0]
    train, validation, test = (_selected(part, targets) for part in (splits.train, splits.validation, splits.test))
    assert train is not None
    return replace(splits, spec=spec, train=train, validation=validation, test=test, groups=groups)


def _selected(samples: Samples | None, targets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Samples | None:
    if not isinstance(samples, ImageFiles | MemoryImages):
        return samples
    index = np.flatnonzero(targets[samples.targets] >= 0)
    kept = targets[samples.targets[index]]
    if isinstance(samples, MemoryImages):
        return MemoryImages(samples.images[index], kept)
    return ImageFiles([samples.paths[position] for position in index.tolist()], kept)
