"""Tracing of a network with torch.export, for the formats that hold a graph."""

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
from dlkit.export.formats._recurrent import opaque_recurrent_layers
from dlkit.export_metadata import ExportMetadata
from dlkit.specs import ImageSpec, Link, SequenceSpec, Spec

Shapes = tuple[dict[int, Dim], ...]


class ImageGraph(nn.Module):
    """Preprocessing, network and link; with `outputs` the graph also returns the network's outputs."""

    def __init__(self, network: nn.Module, spec: ImageSpec, link: Link, outputs: bool) -> None:
        super().__init__()
        self.network, self.spec, self.link, self.outputs = network, spec, link, outputs

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # (N, H, W, C) uint8 -> (N, K)
        logits: Tensor = self.network(normalize(images.permute(0, 3, 1, 2), self.spec))
        return (probabilities(logits, self.link), logits) if self.outputs else probabilities(logits, self.link)


class TextGraph(nn.Module):
    """The network and its link (None returns logits); tokens beyond a text's length are padding and have no effect."""

    def __init__(self, network: nn.Module, link: Link | None, outputs: bool) -> None:
        super().__init__()
        self.network, self.link, self.outputs = network, link, outputs

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # (N, T), (N,) -> (N, K)
        logits: Tensor = self.network(Sequences(tokens, lengths))
        if self.link is None:
            return logits
        return (probabilities(logits, self.link), logits) if self.outputs else probabilities(logits, self.link)


def trace(model: nn.Module, about: ExportMetadata, raw: bool, outputs: bool = False) -> ExportedProgram:
    """The network as a graph, from original inputs to probabilities; with raw, from preprocessed inputs to logits."""
    inputs, shapes = _example(about.spec, raw)
    return torch.export.export(_graph_module(model, about, raw, outputs), inputs, dynamic_shapes=shapes, strict=False)


def _graph_module(model: nn.Module, about: ExportMetadata, raw: bool, outputs: bool) -> nn.Module:
    if isinstance(about.spec, ImageSpec):
        return model if raw else ImageGraph(model, about.spec, about.link, outputs).eval()
    return TextGraph(model, None if raw else about.link, outputs).eval()


def _example(spec: Spec, raw: bool) -> tuple[tuple[Tensor, ...], Shapes]:
    """A batch of two inputs for tracing (of one, the tracer would fix the batch size), and its dynamic dimensions."""
    if isinstance(spec, ImageSpec):
        sides = (spec.channels, spec.height, spec.width) if raw else (spec.height, spec.width, spec.channels)
        return (torch.zeros(2, *sides, dtype=torch.float32 if raw else torch.uint8),), ({0: Dim("N")},)
    assert isinstance(spec, SequenceSpec), "a graph cannot represent trees"
    return (torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 2])), ({0: Dim("N"), 1: Dim("T")}, {0: Dim("N")})


@contextmanager
def tracing() -> Iterator[None]:
    """Within this context torch's tracer logs and warns nothing; failures are exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), opaque_recurrent_layers():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch's own code
            warnings.filterwarnings("ignore", category=FutureWarning)
            # recurrent layers hold a list of their weights, which the tracer replaces temporarily
            for message in (".*_flat_weights.* assigned during export", "The .grad attribute of a Tensor that is not"):
                warnings.filterwarnings("ignore", message=message, category=UserWarning)
            yield
    finally:
        logging.disable(before)


def failure_reason(error: BaseException) -> str:
    """The root cause of a tracing error in one sentence."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    if "specialized it to be a constant" in text:
        return FIXED_SIZE
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return first[:300].rstrip(".:") + "."


FIXED_SIZE = (
    "its code fixes the batch size or the number of steps, for example by len() of a tensor or a loop over it; "
    "tensor.shape does not."
)
