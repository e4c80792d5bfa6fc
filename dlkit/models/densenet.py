"""DenseNet: each layer of a block reads the maps of all layers before it.

Huang, Liu, van der Maaten and Weinberger, "Densely connected convolutional networks", 2017 (1608.06993).

A layer appends `growth` maps to its input; blocks of layers are joined by transitions, which halve the size.
`densenet121`, `169`, `201` are those of table 1, `161` its wider form by the authors, with torchvision's parameter
names, so that its weights load unchanged. `densenet40` and `densenet_bc100` are those of table 2 with 12 maps per
layer, for images of 32 pixels: 1,019,722 and 769,162 parameters. A `bottleneck` of b puts a 1×1 convolution to b·growth
maps first (B in the paper, 0 for none); `compression` is the fraction of maps after a transition (C, 1 for all);
`width` is the number of maps before the first block. Images below 64 pixels get the paper's stem for small ones, a 3×3
convolution (unless `stem` is set). `dropout` follows each layer, in the paper 0.2 without augmentation.

Differs from the paper: a transition pools before its 1×1 convolution instead of after it: both are linear, so the
result is the same at a quarter of the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.layers.activation import activation as activation_named
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.init import initialize
from dlkit.layers.norm import norm as norm_named
from dlkit.layers.options import check_whole, sizes
from dlkit.layers.stem import check_size, choose_stem
from dlkit.specs import ImageSpec

VARIANTS = {  # tables 1 and 2
    "densenet121": {},
    "densenet161": {"growth": 48, "blocks": "6,12,36,24", "width": 96},
    "densenet169": {"blocks": "6,12,32,32"},
    "densenet201": {"blocks": "6,12,48,32"},
    "densenet40": {"growth": 12, "blocks": "12,12,12", "width": 16, "bottleneck": 0, "compression": 1.0},
    "densenet_bc100": {"growth": 12, "blocks": "16,16,16", "width": 24},
}
NATURAL = (3, 224, 224, 1000)  # channels, height, width, classes
NATURAL_OF = dict.fromkeys(("densenet40", "densenet_bc100"), (3, 32, 32, 10))

Norm = Callable[[int], nn.Module]
Layer = Callable[[], nn.Module]


class DenseLayer(nn.Sequential):
    """Norm, activation, convolution, once or with a bottleneck twice; the output is appended to the input."""

    def __init__(
        self, channels: int, growth: int, bottleneck: int, norm: Norm, activation: Layer, dropout: Layer
    ) -> None:
        super().__init__()
        width = bottleneck * growth
        self.norm1, self.act1 = norm(channels), activation()
        if bottleneck:
            self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
            self.norm2, self.act2 = norm(width), activation()
            self.conv2 = nn.Conv2d(width, growth, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, growth, 3, padding=1, bias=False)
        self.dropout = dropout()

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C + growth, H, W)
        # Concatenated layer by layer, so that the norm's saved tensors exist only once.
        maps: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return torch.cat([x, maps], 1)


class DenseNet(nn.Module):
    feature_map: str | None = "features.act5"
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        stem: str,
        width: int,
        blocks: tuple[int, ...],
        growth: int,
        bottleneck: int,
        compression: float,
        norm: Norm,
        activation: Layer,
        dropout: Layer,
        last_activation: nn.Module,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential()
        if stem == "small":
            self.features.conv0 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        else:
            self.features.conv0 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
            self.features.norm0, self.features.act0 = norm(width), activation()
            self.features.pool0 = nn.MaxPool2d(3, stride=2, padding=1)
        for number, layers in enumerate(blocks, start=1):
            block = nn.Sequential()
            for layer in range(1, layers + 1):
                block.add_module(f"denselayer{layer}", DenseLayer(width, growth, bottleneck, norm, activation, dropout))
                width += growth
            self.features.add_module(f"denseblock{number}", block)
            if number < len(blocks):
                kept = int(width * compression)
                self.features.add_module(f"transition{number}", transition(width, kept, norm, activation))
                width = kept
        self.features.norm5, self.features.act5 = norm(width), last_activation
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        maps = self.features(images)  # (N, width, H / 32, W / 32) after the ImageNet stem and four blocks
        logits: Tensor = self.classifier(maps.mean((2, 3)))
        return logits


def transition(width: int, kept: int, norm: Norm, activation: Layer) -> nn.Sequential:
    """(N, width, H, W) -> (N, kept, H // 2, W // 2)"""
    layers = nn.Sequential()
    layers.norm, layers.act = norm(width), activation()
    layers.pool = nn.AvgPool2d(2)
    layers.conv = nn.Conv2d(width, kept, 1, bias=False)
    return layers


def check_numbers(growth: Any, width: Any, bottleneck: Any, compression: Any) -> None:
    check_whole("growth", growth)
    check_whole("width", width)
    check_whole("bottleneck", bottleneck, least=0)
    if not isinstance(compression, int | float) or not 0 < compression <= 1 or int(compression * width) < 1:
        raise UsageError(f"model option compression is {compression!r}. It must be a number above 0, up to 1.")


def build(
    spec: ImageSpec,
    *,
    growth: int = 32,
    blocks: str = "6,12,24,16",
    width: int = 64,
    bottleneck: int = 4,
    compression: float = 0.5,
    stem: str = "auto",
    norm: str = "batch",
    activation: str = "relu",
    init: str = "he",
    dropout: float = 0.0,
) -> nn.Module:
    layers = sizes("blocks", blocks)
    if not layers:
        raise UsageError(
            f"model option blocks is {blocks!r}. It must be the layers of each block, such as '6,12,24,16'."
        )
    check_numbers(growth, width, bottleneck, compression)
    chosen = choose_stem(stem, spec)
    halvings = 2 ** (len(layers) - 1)  # one transition fewer than blocks, each of which needs 2 pixels
    least, way_out = halvings, "Take larger images, or fewer blocks."
    if chosen == "imagenet":
        least, way_out = 4 * (halvings - 1) + 1, "Set model.options.stem=small, or take larger images."
    check_size(spec, least, f"DenseNet with {len(layers)} blocks and the {chosen} stem", way_out)
    model = DenseNet(
        spec.channels,
        len(spec.classes),
        stem=chosen,
        width=width,
        blocks=layers,
        growth=growth,
        bottleneck=bottleneck,
        compression=compression,
        norm=lambda channels: norm_named(norm, channels),
        # Without a norm before it, an in-place operation would overwrite maps that other layers use.
        activation=lambda: activation_named(activation, inplace=norm != "none"),
        dropout=lambda: dropout_of(dropout),
        last_activation=activation_named(activation),  # explanations use both signs
    )
    if chosen == "small":
        model.notes = ("stem small: a 3×3 convolution in place of a 7×7 one of stride 2 and a max pool",)
    initialize(model, init, activation)
    return model
