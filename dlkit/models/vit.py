"""Vision Transformer: an image cut into patches, and self-attention between them.

Dosovitskiy et al., "An image is worth 16×16 words: transformers for image recognition at scale", 2020 (2010.11929).

Each patch becomes a vector by one linear map; a class token is prepended, a trained vector is added for each
position, and after `depth` encoder blocks the class token's state is mapped to the classes (equations 1 to 4).
`vit_b_16` is the paper's ViT-B/16, with torchvision's parameter names, so that its weights load unchanged;
`vit_small_16` and `vit_tiny_16` have DeiT's sizes (Touvron et al. 2021, 2012.12877). For images of about 32 pixels
there are `vit_small_4`, `vit_tiny_4` and `vit_mini_4`, which a CPU can train; for 64 pixels set patch_size=8. An image
that the patches do not divide is padded with zeros, the mean color. `dropout` is applied after the positions and in
each branch, `attention_dropout` to the attention weights; `drop_path` skips branches, later ones more often. The
positions of weights that were trained on images of another size are interpolated (section 3.2).

Differs from the paper: the output is initialized randomly with deviation 0.02, not with zeros, which would block the
gradient in the first step; the output is linear in pretraining, too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import isqrt, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.layers.activation import ACTIVATIONS
from dlkit.layers.activation import activation as activation_named
from dlkit.layers.drop_path import drop_paths
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.encoder import EncoderBlock
from dlkit.layers.init import SCHEMES, initialize
from dlkit.layers.options import check_choice, check_whole
from dlkit.layers.stem import check_size
from dlkit.specs import ImageSpec

VARIANTS = {
    "vit_b_16": {},
    "vit_small_16": {"width": 384, "heads": 6},
    "vit_tiny_16": {"width": 192, "heads": 3},
    "vit_small_4": {"patch_size": 4, "width": 384, "heads": 6},
    "vit_tiny_4": {"patch_size": 4, "width": 192, "heads": 3},
    "vit_mini_4": {"patch_size": 4, "width": 96, "heads": 3, "depth": 6},
}
NATURAL = (3, 224, 224, 1000)  # channels, height, width, classes
NATURAL_OF = dict.fromkeys(("vit_small_4", "vit_tiny_4", "vit_mini_4"), (3, 32, 32, 10))


class Encoder(nn.Module):
    """Positions, blocks, and a norm; (N, T, D) -> (N, T, D)."""

    def __init__(self, positions: int, width: int, blocks: list[EncoderBlock], dropout: nn.Module) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, positions, width).normal_(std=0.02))
        self.dropout = dropout
        self.layers = nn.Sequential(
            OrderedDict((f"encoder_layer_{number}", block) for number, block in enumerate(blocks))
        )
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln(self.layers(self.dropout(x + self.pos_embedding)))
        return x


class VisionTransformer(nn.Module):
    """`grid` is (rows, columns) of patches; its positions follow the class token's row by row."""

    feature_map: str | None = None  # its attention: dlkit.layers.attention.record_attention
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        classes: int,
        *,
        patch_size: int,
        blocks: list[EncoderBlock],
        dropout: nn.Module,
    ) -> None:
        super().__init__()
        hidden = blocks[0].ln_1.normalized_shape[0]
        self.grid = -(-height // patch_size), -(-width // patch_size)
        down, across = self.grid[0] * patch_size - height, self.grid[1] * patch_size - width
        self.border = (across // 2, across - across // 2, down // 2, down - down // 2)  # left, right, top, bottom
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden))
        self.conv_proj = nn.Conv2d(channels, hidden, patch_size, stride=patch_size)
        self.encoder = Encoder(1 + self.grid[0] * self.grid[1], hidden, blocks, dropout)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(hidden, classes)))

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        images = F.pad(images, self.border) if any(self.border) else images
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)  # (N, T - 1, D)
        x = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], 1)  # (N, T, D)
        logits: Tensor = self.heads(self.encoder(x)[:, 0])
        return logits

    def at_this_size(self, tensors: Mapping[str, Tensor], seen: ImageSpec | None) -> dict[str, Tensor]:
        """Weights for images like `seen` (None: square ones), their positions interpolated to this grid of patches."""
        name, own = "encoder.pos_embedding", self.encoder.pos_embedding
        theirs = tensors.get(name, own)
        if theirs.ndim != own.ndim or theirs.shape[-1] != own.shape[-1]:
            return dict(tensors)
        token, positions = theirs[:, :1], theirs[:, 1:]
        patch_size, square = self.conv_proj.kernel_size[0], isqrt(positions.shape[1])
        grid = (-(-seen.height // patch_size), -(-seen.width // patch_size)) if seen else (square, square)
        known = theirs.shape == own.shape and seen is None
        if known or grid == self.grid or grid[0] * grid[1] != positions.shape[1]:
            return dict(tensors)
        plane = torch.unflatten(positions.transpose(1, 2), 2, grid)  # (1, D, rows, columns)
        plane = F.interpolate(plane, self.grid, mode="bicubic", align_corners=True)
        return {**tensors, name: torch.cat([token, plane.flatten(2).transpose(1, 2)], 1)}


def build(
    spec: ImageSpec,
    *,
    patch_size: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: int = 4,
    activation: str = "gelu",
    init: str = "vit",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
    check_choice("init", init, ("vit", *SCHEMES))
    check_choice("activation", activation, ("gelu", *ACTIVATIONS))
    check_numbers(width, heads, patch_size=patch_size, depth=depth, mlp_ratio=mlp_ratio)
    dropout_of(attention_dropout, "attention_dropout")  # validated here, used as a number
    check_size(spec, patch_size, f"patches of {patch_size}", "Set model.options.patch_size, or take larger images.")
    blocks = [
        EncoderBlock(
            width,
            heads,
            mlp_ratio * width,
            nn.GELU() if activation == "gelu" else activation_named(activation),
            dropout,
            attention_dropout,
            left_out,
        )
        for left_out in drop_paths(drop_path, depth)
    ]
    model = VisionTransformer(
        spec.channels,
        spec.height,
        spec.width,
        len(spec.classes),
        patch_size=patch_size,
        blocks=blocks,
        dropout=dropout_of(dropout),
    )
    rows, columns = model.grid
    model.notes = (f"{rows}×{columns} patches of {patch_size}×{patch_size} pixels and a class token",)
    if any(model.border):
        model.notes += (f"images are centred in {rows * patch_size}×{columns * patch_size} pixels, zeros around them",)
    start(model) if init == "vit" else initialize(model, init, "relu" if activation == "gelu" else activation)
    return model


def check_numbers(width: Any, heads: Any, **others: Any) -> None:
    for option, value in {"width": width, "heads": heads, **others}.items():
        check_whole(option, value, most=2**14)
    if width % heads:
        raise UsageError(f"model option heads is {heads}, which does not divide width={width}.")


@torch.no_grad()
def start(model: VisionTransformer) -> None:
    """The initialization of the paper's authors: Glorot for the dense layers, by fan-in for the patch projection."""
    nn.init.trunc_normal_(model.conv_proj.weight, std=1 / sqrt(model.conv_proj.weight[0].numel()))
    *dense, output = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    for layer in dense:
        nn.init.xavier_uniform_(layer.weight)
    nn.init.trunc_normal_(output.weight, std=0.02)
    for bias in (model.conv_proj.bias, *(layer.bias for layer in (*dense, output))):
        assert bias is not None
        bias.zero_()
