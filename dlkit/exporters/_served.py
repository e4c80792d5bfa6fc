"""What the formats made by torch's tracer share: the network as it is served, and how the tracer is run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dlkit.data.batches import normalize
from dlkit.data.sequences import Sequences
from dlkit.exporters._recurrent import kept_whole
from dlkit.specs import ImageSpec, SequenceSpec, Spec

Shapes = tuple[dict[int, Dim], ...]


class ServedImages(nn.Module):
    def __init__(self, network: nn.Module, spec: ImageSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:  # (N, H, W, C) uint8 -> (N, K)
        logits: Tensor = self.network(normalize(images.permute(0, 3, 1, 2), self.spec))
        return logits.softmax(dim=1)


class ServedText(nn.Module):
    """What stands behind a length is padding; whatever it holds, the answer is the same."""

    def __init__(self, network: nn.Module, raw: bool) -> None:
        super().__init__()
        self.network = network
        self.raw = raw

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:  # (N, T), (N,) int64 -> (N, K)
        logits: Tensor = self.network(Sequences(tokens, lengths))
        return logits if self.raw else logits.softmax(dim=1)


def traced(model: nn.Module, spec: Spec, raw: bool) -> ExportedProgram:
    """The network as a graph, from what a person has to probabilities; with raw, from what it reads to logits."""
    inputs, shapes = _example(spec, raw)
    return torch.export.export(_served(model, spec, raw), inputs, dynamic_shapes=shapes, strict=False)


def _served(model: nn.Module, spec: Spec, raw: bool) -> nn.Module:
    if isinstance(spec, ImageSpec):
        return model if raw else ServedImages(model, spec).eval()
    return ServedText(model, raw).eval()


def _example(spec: Spec, raw: bool) -> tuple[tuple[Tensor, ...], Shapes]:
    """Two inputs to trace a network with, and which of their sides are of any length.

    Of one alone the tracer would take the number for fixed.
    """
    if isinstance(spec, ImageSpec):
        sides = (spec.channels, spec.height, spec.width) if raw else (spec.height, spec.width, spec.channels)
        return (torch.zeros(2, *sides, dtype=torch.float32 if raw else torch.uint8),), ({0: Dim("N")},)
    assert isinstance(spec, SequenceSpec), "a graph cannot hold what trees ask for"
    return (torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 2])), ({0: Dim("N"), 1: Dim("T")}, {0: Dim("N")})


@contextmanager
def tracing() -> Iterator[None]:
    """Without what torch's tracer has to say of its own ways; what it cannot do it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), kept_whole():
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


FIXED = (
    "its code takes the number of inputs or of their steps for a fixed one, as len() of a tensor or a loop over it "
    "does; tensor.shape would not."
)
