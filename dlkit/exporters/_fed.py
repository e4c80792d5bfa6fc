"""What the exported graphs share when they are run: prepared images or text, as the arrays that go in. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit.data.classifier import Classifier, LogProbabilities, Pixels, log_probabilities, normalized
from dlkit.exported import About
from dlkit.specs import ImageSpec, SequenceSpec

Feeds = Mapping[str, npt.NDArray[Any]]  # by the name of the graph's input
Compute = Callable[[Feeds], npt.NDArray[np.float32]]


def answering(about: About, compute: Compute) -> Classifier:
    """What answers with a runtime's `compute`."""
    if isinstance(about.spec, ImageSpec):
        spec = about.spec
        return lambda pixels: _checked(compute({"images": _images(pixels, spec, about)}), len(pixels), about)
    from dlkit.data.encoded import Vocabulary, parts

    assert isinstance(about.spec, SequenceSpec), "no graph reads trees"
    vocabulary, longest = Vocabulary(about.spec.words), about.spec.longest

    def classify(texts: Sequence[Any]) -> LogProbabilities:
        found = []
        for part in parts(texts):
            tokens, lengths = vocabulary.padded(part, longest)
            found.append(_checked(compute({"tokens": tokens, "lengths": lengths}), len(part), about))
        return np.concatenate(found)

    return classify


def _images(pixels: Pixels, spec: ImageSpec, about: About) -> npt.NDArray[Any]:
    if about.feed == "normalised":
        return normalized(pixels, spec)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _checked(answers: npt.NDArray[np.float32], count: int, about: About) -> LogProbabilities:
    return log_probabilities(answers, (count, len(about.spec.classes)), about.output)
