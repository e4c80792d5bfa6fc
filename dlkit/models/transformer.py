"""A transformer encoder: every step attends to all others, layer after layer.

Vaswani et al., "Attention is all you need", 2017 (1706.03762), sections 3.1 to 3.5: multi-head self-attention, position
by sinusoids, the encoder alone. A sequence is read by its words or vectors, an image row by row (`vit` reads patches).
Differs from the paper: normalization stands before each branch and once more at the end (Dosovitskiy et al. 2020,
section 3.1); the classes are read from the steps by `pooling`: mean, max, last, attention. An image's rows and vectors
are brought to `width` by a linear layer. `dropout` is as in section 5.4, attention_dropout of the attention weights,
embedding_dropout of the word vectors before their positions are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

import torch
from torch import Tensor, nn

from dlkit.data.text.padding import Sequences
from dlkit.errors import UsageError
from dlkit.layers.activation import activation as activation_named
from dlkit.layers.attention import padding_mask
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.encoder import EncoderBlock
from dlkit.layers.init import initialize
from dlkit.layers.options import check_whole
from dlkit.layers.pooling import pooling as pooling_named
from dlkit.layers.steps import embedding, step_size, steps_of
from dlkit.specs import ImageSpec, SequenceSpec

TAKES = ("images", "sequences")
NATURAL = (1, 28, 28, 10)  # channels, height, width, classes


def sinusoids(steps: int, width: int, like: Tensor) -> Tensor:
    """(steps, width): PE(t, 2i) = sin(t / 10000^(2i/width)), PE(t, 2i + 1) = cos(the same). Section 3.5."""
    t = torch.arange(steps, device=like.device, dtype=torch.float)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, device=like.device) * (-log(10_000) / width))
    return torch.stack([(t * rates).sin(), (t * rates).cos()], dim=2).flatten(1)[:, :width].to(like.dtype)


class Transformer(nn.Module):
    """forward: images (N, C, H, W) or Sequences -> logits (N, K). scale: what the word vectors are multiplied by."""

    feature_map = None

    def __init__(
        self,
        embedding: nn.Module,
        project: nn.Module,
        scale: float,
        blocks: Sequence[EncoderBlock],
        norm: nn.Module,
        pool: nn.Module,
        output: nn.Module,
        *,
        embedding_dropout: nn.Module,
        dropout: nn.Module,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.embedding_dropout = embedding_dropout
        self.project = project
        self.scale = scale
        self.dropout = dropout
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.pool = pool
        self.output = output

    def forward(self, inputs: Tensor | Sequences) -> Tensor:
        values, lengths = steps_of(inputs)
        x = self.project(self.embedding_dropout(self.embedding(values))) * self.scale  # (N, T, D)
        T, D = x.shape[1:]
        x = self.dropout(x + sinusoids(T, D, x))
        mask = None if lengths is None else padding_mask(lengths, T)
        for block in self.blocks:
            x = block(x, mask)
        logits: Tensor = self.output(self.pool(self.norm(x), lengths))
        return logits


def build(
    spec: ImageSpec | SequenceSpec,
    *,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    mlp_size: int = 512,
    pooling: str = "mean",
    activation: str = "relu",
    init: str = "xavier",
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
) -> nn.Module:
    check_whole("width", width)
    check_whole("layers", layers, most=256)
    check_whole("heads", heads)
    check_whole("mlp_size", mlp_size)
    if width % heads:
        raise UsageError(f"model option heads is {heads}, which does not divide width {width}.")
    dropout_of(attention_dropout, "attention_dropout")
    tokens = not isinstance(spec, ImageSpec) and spec.vocabulary is not None
    model = Transformer(
        embedding(spec, width),
        nn.Identity() if tokens else nn.Linear(step_size(spec, width), width),
        sqrt(width) if tokens else 1.0,  # section 3.4
        [
            EncoderBlock(width, heads, mlp_size, activation_named(activation), dropout, attention_dropout)
            for _ in range(layers)
        ],
        nn.LayerNorm(width, eps=1e-6),
        pooling_named(pooling, width, bidirectional=False),
        nn.Linear(width, spec.outputs),
        embedding_dropout=dropout_of(embedding_dropout, "embedding_dropout"),
        dropout=dropout_of(dropout),
    )
    initialize(model, init, activation)
    return model
