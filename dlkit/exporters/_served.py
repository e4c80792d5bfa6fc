"""What the formats made by torch's tracer share: the network as it is served, and how the tracer is run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dlkit.data.batches import normalize
from dlkit.specs import ImageSpec


class Served(nn.Module):
    def __init__(self, network: nn.Module, spec: ImageSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:  # (N, H, W, C) uint8 -> (N, K)
        logits: Tensor = self.network(normalize(images.permute(0, 3, 1, 2), self.spec))
        return logits.softmax(dim=1)


def example(spec: ImageSpec, raw: bool) -> Tensor:
    """Two images to trace a network with: of one alone the tracer would take the number for fixed."""
    if raw:
        return torch.zeros(2, spec.channels, spec.height, spec.width)
    return torch.zeros(2, spec.height, spec.width, spec.channels, dtype=torch.uint8)


@contextmanager
def tracing() -> Iterator[None]:
    """Without what torch's tracer has to say of its own ways; what it cannot do it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # what torch still uses itself
            warnings.filterwarnings("ignore", category=FutureWarning)
            # nn.LSTM and its like keep a list of their weights, which the tracer replaces for a while
            for message in (".*_flat_weights.* assigned during export", "The .grad attribute of a Tensor that is not"):
                warnings.filterwarnings("ignore", message=message, category=UserWarning)
            yield
    finally:
        logging.disable(before)


def reason(error: BaseException) -> str:
    """What everything began with, in one sentence."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    if "specialized it to be a constant" in text:
        return FIXED
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return first[:300].rstrip(".:") + "."


FIXED = "its code takes the number of images for a fixed one, as len() of a tensor does; tensor.shape[0] would not."
