"""The real examples on which an exported file is compared with its run: a split of the run's own data set."""

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

ENOUGH = 256  # at least so many are compared, where the split has them

Inputs = Pixels | list[Text]  # what a classifier answers
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Examples:
    """Where the examples come from."""

    spec: Spec
    dataset: str
    split: str
    parts: Mapping[str, Samples]  # by split

    @classmethod
    def of(cls, restored: Restored, data_dir: Path | str | None, say: Say) -> Examples:
        """The validation split, else test, else train; fewer than 256 examples are said."""
        from dlkit.data import loader
        from dlkit.data.library import splits
        from dlkit.evaluation.matching import readable
        from dlkit.runs.data_of_run import data_of_run

        recipe = restored.recipe
        found = splits(data_of_run(restored.run, recipe.data, data_dir), log=say)
        if found.spec.classes != restored.spec.classes:
            raise DataError(f"data set {recipe.data.name!r} no longer has the classes of the run {restored.run.name}.")
        parts = loader.split(found, recipe.data.validation, recipe.train.seed)
        split = next(name for name in ("validation", "test", "train") if name in parts)
        parts |= {name: readable(parts[name], name, recipe.data, say)[0] for name in {split, "train"}}
        if len(parts[split]) < ENOUGH:
            kind = restored.spec.kind
            say(f"the {split} split has {len(parts[split])} {kind}: fewer than {ENOUGH} are compared")
        return cls(restored.spec, recipe.data.name, split, parts)

    def take(self, split: str, most: int) -> tuple[Inputs, npt.NDArray[np.int64]]:
        """Up to `most` examples, spread evenly over the split, and their classes; images are prepared, (N, C, H, W)."""
        from dlkit.evaluation.matching import resize_samples

        samples = resize_samples(self._samples(split, most), self.spec)
        return inputs_of(samples, self.spec, np.arange(len(samples))), samples.targets

    def originals(self, most: int) -> Iterator[tuple[Pixels, Pixels]]:
        """The images as they are, (1, C, H, W) of any size, each with what is prepared of it.

        Those that have the network's size already are enlarged first: nothing of them would be resized.
        """
        spec = self.spec
        assert isinstance(spec, ImageSpec)
        for number, picture in enumerate(_pictures(self._samples(self.split, most), spec)):
            if picture.size == (spec.width, spec.height):
                larger = (spec.width + number % 37, spec.height + number % 23)
                picture = picture.resize(larger, Image.Resampling.BICUBIC)
            pixels = np.asarray(picture).reshape(picture.height, picture.width, spec.channels)
            yield pixels.transpose(2, 0, 1)[None], prepare(picture, spec)[None]

    def _samples(self, split: str, most: int) -> Samples:
        from dlkit.data import loader

        count = len(self.parts[split])
        places = np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)
        return loader.take(self.parts[split], places)


def inputs_of(samples: Samples, spec: Spec, places: npt.NDArray[np.int64]) -> Inputs:
    """The samples at these places as a classifier takes them."""
    if isinstance(samples, SequenceSamples | TreeSamples):
        return decode_samples(samples, places)
    if isinstance(samples, MemoryImages):
        return samples.images[places]
    assert isinstance(samples, ImageFiles) and isinstance(spec, ImageSpec)
    return np.stack([decode.load(samples.paths[place], spec) for place in places])


def _pictures(samples: Samples, spec: ImageSpec) -> Iterator[Image.Image]:
    if isinstance(samples, ImageFiles):
        yield from (decode.decode(path, spec.channels, max_pixels=spec.max_pixels) for path in samples.paths)
        return
    assert isinstance(samples, MemoryImages)
    for values in samples.images:  # (C, H, W)
        yield Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0)))
