"""The interface of a classifier in any runtime, and checks of its outputs. No torch."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dlkit.errors import ModelFileError
from dlkit.specs import ImageSpec, Link

Pixels = npt.NDArray[np.uint8]  # (N, C, H, W), prepared by dlkit.data.images.resize_crop
Outputs = npt.NDArray[np.float64]  # (N, K), of the network
LogProbabilities = npt.NDArray[np.float64]  # (N, K)

SUM_TOLERANCE = 1e-3  # an int8 softmax is rounded


class Classifier(Protocol):
    """Classifies a batch: Pixels, or a list of dlkit.data.text.encoding.Text."""

    def __call__(self, inputs: Any, /) -> LogProbabilities: ...

    def answer(self, inputs: Any, /) -> NetworkOutput: ...


class NetworkOutput(NamedTuple):
    """A network's outputs, by which classes are ranked, and the log probabilities that its link computes from them.

    For a graph whose only output is its softmax, the outputs are the log probabilities, which have the same order.
    """

    outputs: Outputs
    log_probabilities: LogProbabilities


def normalized(pixels: Pixels, spec: ImageSpec) -> npt.NDArray[np.float32]:
    """uint8 images (N, C, H, W) → float32, like dlkit.data.batches.normalize, without torch."""
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    scaled: npt.NDArray[np.float32] = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return scaled


def checked_outputs(values: npt.NDArray[np.float32], shape: tuple[int, int]) -> Outputs:
    """The outputs of a runtime in float64, checked for their shape (N, K).

    Raises:
        ModelFileError: it has another shape, or is not finite.
    """
    if values.shape != shape:
        raise ModelFileError(f"its outputs have the shape {values.shape}, not {shape}: one number per class.")
    outputs = values.astype(np.float64)
    if not np.isfinite(outputs).all():
        raise ModelFileError("its outputs are not finite.")
    return outputs


def log_of(probabilities: Outputs, link: Link) -> LogProbabilities:
    """The log of a graph's probabilities.

    Raises:
        ModelFileError: they are not probabilities.
    """
    if probabilities.size and not 0 <= probabilities.min() <= probabilities.max() <= 1 + SUM_TOLERANCE:
        raise ModelFileError("its outputs are not probabilities: they are not between 0 and 1.")
    if link != "sigmoid" and probabilities.size and abs(probabilities.sum(axis=1) - 1).max() > SUM_TOLERANCE:
        raise ModelFileError("its outputs are not probabilities: they do not sum to 1.")
    logs: LogProbabilities = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return logs
