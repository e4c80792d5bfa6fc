"""The classifier of an exported graph: feeds prepared images or text to a runtime. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit.data.link import log_probabilities
from dlkit.export_metadata import ExportMetadata
from dlkit.inference.classifier import (
    LogProbabilities,
    NetworkOutput,
    Outputs,
    Pixels,
    checked_outputs,
    log_of,
    normalized,
)
from dlkit.specs import ImageSpec, SequenceSpec

Feeds = Mapping[str, npt.NDArray[Any]]  # by the name of the graph's input
Compute = Callable[[Feeds, str], npt.NDArray[np.float32]]  # from the inputs, and the name of the output


@dataclass(frozen=True, eq=False)
class GraphClassifier:
    """Classifies by a runtime's function `compute`."""

    about: ExportMetadata
    compute: Compute

    def __call__(self, inputs: Any) -> LogProbabilities:
        """The log of the graph's probabilities; for a graph that outputs logits, the link applied to them."""
        if self.about.output == "logits":
            return self.answer(inputs).log_probabilities
        return log_of(self._values(inputs, self.about.output), self.about.link)

    def answer(self, inputs: Any) -> NetworkOutput:
        name = self.about.outputs
        if name is None:
            logs = self(inputs)
            return NetworkOutput(logs, logs)
        outputs = self._values(inputs, name)
        return NetworkOutput(outputs, log_probabilities(outputs, self.about.link))

    def _values(self, inputs: Any, name: str) -> Outputs:
        width = len(self.about.spec.classes)
        values = [
            checked_outputs(self.compute(feeds, name), (count, width)) for feeds, count in _feeds(inputs, self.about)
        ]
        return np.concatenate(values)


def _feeds(inputs: Any, about: ExportMetadata) -> Iterator[tuple[Feeds, int]]:
    """Inputs of the graph with their batch sizes: one batch of images, or a batch for each length of texts."""
    if isinstance(about.spec, ImageSpec):
        yield {"images": _images(inputs, about.spec, about)}, len(inputs)
        return
    from dlkit.data.text.encoding import Vocabulary, split_batches

    assert isinstance(about.spec, SequenceSpec), "no graph takes trees"
    vocabulary = Vocabulary(about.spec.words)
    for part in split_batches(inputs):
        tokens, lengths = vocabulary.encode_batch(part, about.spec.longest)
        yield {"tokens": tokens, "lengths": lengths}, len(part)


def _images(pixels: Pixels, spec: ImageSpec, about: ExportMetadata) -> npt.NDArray[Any]:
    if about.feed == "normalised":
        return normalized(pixels, spec)
    if about.feed == "any_size" and pixels.shape[2:] == (spec.height, spec.width) and not spec.legacy_resize:
        pixels = _pad_for_crop(pixels, spec)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _pad_for_crop(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Prepared images (N, C, H, W) with the border that the graph's center crop removes."""
    sides = [(round(side / spec.crop), side) for side in (spec.height, spec.width)]
    before = [round((larger - side) / 2) for larger, side in sides]
    borders = [(start, larger - side - start) for start, (larger, side) in zip(before, sides, strict=True)]
    return np.pad(pixels, [(0, 0), (0, 0), *borders])
