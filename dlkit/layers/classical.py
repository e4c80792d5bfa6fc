"""The common part of the classical classifiers: images as rows of numbers, and the optional scikit-learn."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dlkit.data.batches import normalize
from dlkit.errors import UsageError
from dlkit.specs import ImageSpec

Images = npt.NDArray[np.uint8]  # (n, C, H, W)
Targets = npt.NDArray[np.int64]  # (n,)
Rows = npt.NDArray[np.float32]  # (n, C · H · W)


def rows(images: Images, spec: ImageSpec) -> Rows:
    """The normalized images, one per row, as a network takes them."""
    found: Rows = normalize(torch.from_numpy(images), spec).flatten(1).numpy()
    return found


def sklearn(module: str) -> Any:
    """A module of scikit-learn.

    Raises:
        UsageError: it is not installed; the message has the command.
    """
    try:
        return import_module(f"sklearn.{module}")
    except ImportError:
        raise UsageError(
            "this needs scikit-learn, which is not installed: python -m pip install 'dlkit[baseline]'"
        ) from None


def fitted_classes(targets: Targets, classes: int) -> None:
    """Raises: UsageError if a class has no sample to fit."""
    if len(np.unique(targets)) < classes:
        raise UsageError(f"{classes - len(np.unique(targets))} classes have no image to fit. Use a larger --limit.")
