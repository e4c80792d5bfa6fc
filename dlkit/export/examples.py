"""The examples on which an exported file is compared with its run: a split of the run's own data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.data.images import decode
from dlkit.data.images.resize_crop import prepare
from dlkit.data.splits import ImageFiles, MemoryImages, Samples, SequenceSamples, TreeSamples
from dlkit.data.text.encoding import Text, decode_samples
from dlkit.errors import DataError
from dlkit.inference.classifier import Pixels
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    from dlkit.training.restore import Restored

MIN_EXAMPLES = 256  # compared, if the split has as many

Inputs = Pixels | list[Text]  # of a classifier
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class VerificationExamples:
    """The splits of a data set, and the name of the one on which files are verified."""

    spec: Spec
    dataset: str
    split: str
    splits: Mapping[str, Samples]

    @classmethod
    def load(cls, restored: Restored, data_dir: Path | str | None, say: Say) -> VerificationExamples:
        """The validation split, else test, else train; reports if it has fewer than 256 examples."""
        from dlkit.data import library, loader
        from dlkit.evaluation.matching import readable
        from dlkit.runs.data_of_run import data_of_run

        recipe = restored.recipe
        available = library.splits(data_of_run(restored.run, recipe.data, data_dir), log=say)
        if available.spec.classes != restored.spec.classes:
            raise DataError(f"data set {recipe.data.name!r} no longer has the classes of the run {restored.run.name}.")
        splits = loader.split(available, recipe.data.validation, recipe.train.seed)
        split = next(name for name in ("validation", "test", "train") if name in splits)
        splits |= {name: readable(splits[name], name, recipe.data, say)[0] for name in {split, "train"}}
        if len(splits[split]) < MIN_EXAMPLES:
            kind = restored.spec.kind
            say(f"note: only {len(splits[split])} {kind} are compared: the {split} split has fewer than {MIN_EXAMPLES}")
        return cls(restored.spec, recipe.data.name, split, splits)

    def take(self, split: str, limit: int) -> tuple[Inputs, npt.NDArray[np.int64]]:
        """Up to `limit` examples, spread evenly over the split, and their classes; prepared images are (N, C, H, W)."""
        from dlkit.evaluation.matching import resize_samples

        samples = resize_samples(self._samples(split, limit), self.spec)
        return prepare_inputs(samples, self.spec, np.arange(len(samples))), samples.targets

    def originals(self, limit: int) -> Iterator[tuple[Pixels, Pixels]]:
        """Original images, (1, C, H, W) of any size, each with its preprocessed form.

        Images of the network's size are enlarged first: otherwise their resizing would not be tested.
        """
        spec = self.spec
        assert isinstance(spec, ImageSpec)
        for number, image in enumerate(_decode_images(self._samples(self.split, limit), spec)):
            if image.size == (spec.width, spec.height):
                larger = (spec.width + number % 37, spec.height + number % 23)
                image = image.resize(larger, Image.Resampling.BICUBIC)
            pixels = np.asarray(image).reshape(image.height, image.width, spec.channels)
            yield pixels.transpose(2, 0, 1)[None], prepare(image, spec)[None]

    def _samples(self, split: str, limit: int) -> Samples:
        from dlkit.data import loader

        count = len(self.splits[split])
        index = np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64)
        return loader.take(self.splits[split], index)


def prepare_inputs(samples: Samples, spec: Spec, index: npt.NDArray[np.int64]) -> Inputs:
    """The samples at these indices as inputs of a classifier."""
    if isinstance(samples, SequenceSamples | TreeSamples):
        return decode_samples(samples, index)
    if isinstance(samples, MemoryImages):
        return samples.images[index]
    assert isinstance(samples, ImageFiles) and isinstance(spec, ImageSpec)
    return np.stack([decode.load(samples.paths[i], spec) for i in index])


def _decode_images(samples: Samples, spec: ImageSpec) -> Iterator[Image.Image]:
    if isinstance(samples, ImageFiles):
        yield from (decode.decode(path, spec.channels, max_pixels=spec.max_pixels) for path in samples.paths)
        return
    assert isinstance(samples, MemoryImages)
    for values in samples.images:  # (C, H, W)
        yield Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0)))
