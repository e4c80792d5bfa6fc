"""What answers prepared images or text, whatever computes it: torch here, other runtimes on the shelf of exporters.

No torch is imported before a network is handed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dlkit.errors import ModelFileError
from dlkit.specs import ImageSpec, Spec

if TYPE_CHECKING:
    import torch
    from torch import nn

Pixels = npt.NDArray[np.uint8]  # (N, C, H, W), as dlkit.data.framing prepares them
LogProbabilities = npt.NDArray[np.float64]  # (N, K)
Classifier = Callable[[Any], LogProbabilities]  # of Pixels, or of a list of dlkit.data.encoded.Text

SUM_TOLERANCE = 1e-3  # an int8 softmax is rounded


def torch_classifier(module: nn.Module, device: torch.device, spec: Spec) -> Classifier:
    """A network in eval mode, on that device."""
    import torch

    from dlkit.data.batches import normalize
    from dlkit.data.text_classifier import TextClassifier

    if not isinstance(spec, ImageSpec):
        return TextClassifier(module, device, spec)

    def classify(pixels: Pixels) -> LogProbabilities:
        with torch.inference_mode():
            logits: torch.Tensor = module(normalize(torch.from_numpy(pixels).to(device), spec))
            log_probabilities: LogProbabilities = logits.cpu().double().log_softmax(dim=1).numpy()
        return log_probabilities

    return classify


def normalized(pixels: Pixels, spec: ImageSpec) -> npt.NDArray[np.float32]:
    """uint8 images (N, C, H, W) → float32, as dlkit.data.batches.normalize makes them, without torch."""
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    scaled: npt.NDArray[np.float32] = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return scaled


def log_probabilities(answers: npt.NDArray[np.float32], shape: tuple[int, int], kind: str) -> LogProbabilities:
    """A runtime's "probabilities" or "logits", which should have that shape (N, K), as log probabilities in float64.

    Raises:
        ModelFileError: they have another shape, are not finite, or are no probabilities.
    """
    if answers.shape != shape:
        raise ModelFileError(f"its answers have the shape {answers.shape}, not {shape}: one number a class.")
    values = answers.astype(np.float64)
    if not np.isfinite(values).all():
        raise ModelFileError("its answers are not finite.")
    if kind == "logits":
        shifted = values - values.max(axis=1, keepdims=True)
        logs: LogProbabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return logs
    if values.size and (values.min() < 0 or abs(values.sum(axis=1) - 1).max() > SUM_TOLERANCE):
        raise ModelFileError("its answers are no probabilities: they do not sum to 1.")
    logs = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    return logs
