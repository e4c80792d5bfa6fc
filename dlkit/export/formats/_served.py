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
from dlkit.data.link import probabilities
from dlkit.data.text.padding import Sequences
from dlkit.export.formats._recurrent import kept_whole
from dlkit.export_metadata import About
from dlkit.specs import ImageSpec, Link, SequenceSpec, Spec

Shapes = tuple[dict[int, Dim], ...]


class ServedImages(nn.Module):
    """With outputs, the network's outputs follow the probabilities."""

    def __init__(self, network: nn.Module, spec: ImageSpec, link: Link, outputs: bool) -> None:
        super().__init__()
        self.network, self.spec, self.link, self.outputs = network, spec, link, outputs

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # (N, H, W, C) uint8 -> (N, K)
        logits: Tensor = self.network(normalize(images.permute(0, 3, 1, 2), self.spec))
        return (probabilities(logits, self.link), logits) if self.outputs else probabilities(logits, self.link)


class ServedText(nn.Module):
    """What stands behind a length is padding; whatever it holds, the answer is the same. No link leaves logits."""

    def __init__(self, network: nn.Module, link: Link | None, outputs: bool) -> None:
        super().__init__()
        self.network, self.link, self.outputs = network, link, outputs

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # (N, T), (N,) -> (N, K)
        logits: Tensor = self.network(Sequences(tokens, lengths))
        if self.link is None:
            return logits
        return (probabilities(logits, self.link), logits) if self.outputs else probabilities(logits, self.link)


def traced(model: nn.Module, about: About, raw: bool, outputs: bool = False) -> ExportedProgram:
    """The network as a graph, from what a person has to probabilities; with raw, from what it reads to logits."""
    inputs, shapes = _example(about.spec, raw)
    return torch.export.export(_served(model, about, raw, outputs), inputs, dynamic_shapes=shapes, strict=False)


def _served(model: nn.Module, about: About, raw: bool, outputs: bool) -> nn.Module:
    if isinstance(about.spec, ImageSpec):
        return model if raw else ServedImages(model, about.spec, about.link, outputs).eval()
    return ServedText(model, None if raw else about.link, outputs).eval()


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
