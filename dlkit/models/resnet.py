"""ResNet: blocks of two or three convolutions with residual connections.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 1512.03385, 2015.

`resnet18`, `34`, `50`, `101` and `152` are table 1's, with torchvision's keys; `resnet20`, `32`, `44`, `56` and `110`
are section 4.2's for small images, whose shortcuts have no parameters (option A). `resnet8` is like these, with one
block to a stage and twice their width: for a few hundred photos. `blocks` lists the blocks of each stage, `block` says
of which kind they are (basic or bottleneck), `width` how many maps the first stage has, `shortcut` how a block's input
is fitted to more maps: projection (option B), padding (A, the new maps come last) or padding_both (A as
github.com/akamaster/pytorch_resnet_cifar10 has it, half of the new maps on either side).
`fusion` joins the stages' features in front of the classifier: pool, each stage's average; pyramid, a feature pyramid's
levels. `drop_path` leaves blocks out while training, the later the more often (stochastic depth).

Differs from the paper: a bottleneck's stride is at its 3×3 convolution, as torchvision has it; norm=none starts each
block as its shortcut alone, without which deep ones overflow (Zhang, Dauphin and Ma, 1901.09321).
The small stem, taken for images below 64 pixels, is section 4.2's: a 3×3 convolution, no pool.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.layers.activation import activation as activation_named
from dlkit.layers.drop_path import drop_paths
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.fusion import FUSIONS, PooledMaps, Pyramid
from dlkit.layers.init import initialize
from dlkit.layers.norm import norm as norm_named
from dlkit.layers.options import check_choice, check_whole, sizes
from dlkit.layers.stem import choose_stem
from dlkit.specs import ImageSpec

VARIANTS = {
    "resnet18": {"blocks": "2,2,2,2"},
    "resnet34": {"blocks": "3,4,6,3"},
    "resnet50": {"block": "bottleneck", "blocks": "3,4,6,3"},
    "resnet101": {"block": "bottleneck", "blocks": "3,4,23,3"},
    "resnet152": {"block": "bottleneck", "blocks": "3,8,36,3"},
    "resnet8": {"blocks": "1,1,1", "width": 32, "shortcut": "padding"},
    "resnet20": {"blocks": "3,3,3", "width": 16, "shortcut": "padding"},
    "resnet32": {"blocks": "5,5,5", "width": 16, "shortcut": "padding"},
    "resnet44": {"blocks": "7,7,7", "width": 16, "shortcut": "padding"},
    "resnet56": {"blocks": "9,9,9", "width": 16, "shortcut": "padding"},
    "resnet110": {"blocks": "18,18,18", "width": 16, "shortcut": "padding"},
}
NATURAL = (3, 224, 224, 1000)  # channels, height, width, classes
NATURAL_OF = dict.fromkeys(("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"), (3, 32, 32, 10))
NOTES = {
    "imagenet": "stem imagenet: 7×7 convolution of stride 2, max pool of stride 2",
    "small": "stem small: 3×3 convolution of stride 1, no pool",
}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; (N, channels, H, W) -> (N, width, H / stride, W / stride)."""

    expansion = 1  # maps that come out, in widths

    def __init__(
        self, channels: int, width: int, stride: int, downsample: nn.Module, drop: nn.Module, norm: str, activation: str
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = normalized(channels, width, 3, stride, norm)
        self.conv2, self.bn2 = normalized(width, width, 3, 1, norm)
        self.downsample, self.drop_path = downsample, drop
        self.relu = activation_named(activation, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.drop_path(self.bn2(self.conv2(branch)))
        branch += self.downsample(x)
        out: Tensor = self.relu(branch)
        return out


class Bottleneck(nn.Module):
    """1×1 to fewer maps, 3×3, 1×1 to many; (N, channels, H, W) -> (N, 4 * width, H / stride, W / stride)."""

    expansion = 4  # maps that come out, in widths

    def __init__(
        self, channels: int, width: int, stride: int, downsample: nn.Module, drop: nn.Module, norm: str, activation: str
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = normalized(channels, width, 1, 1, norm)
        self.conv2, self.bn2 = normalized(width, width, 3, stride, norm)
        self.conv3, self.bn3 = normalized(width, 4 * width, 1, 1, norm)
        self.downsample, self.drop_path = downsample, drop
        self.relu = activation_named(activation, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.drop_path(self.bn3(self.conv3(branch)))
        branch += self.downsample(x)
        out: Tensor = self.relu(branch)
        return out


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class PaddedShortcut(nn.Module):
    """Option A: every other row and column, and zeros for the new maps: `before` of them first, `after` last."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.before, self.after, self.stride = before, after, stride

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, before + C + after, H / stride, W / stride)
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class ResNet(nn.Module):
    """The names are torchvision's; the neck makes one vector of the stages' maps."""

    def __init__(
        self,
        stem: tuple[nn.Module, nn.Module, nn.Module, nn.Module],
        stages: Sequence[nn.Module],
        neck: nn.Module,
        dropout: nn.Module,
        fc: nn.Module,
        note: str,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = stem
        self.stages = [f"layer{number}" for number in range(1, len(stages) + 1)]
        for name, stage in zip(self.stages, stages, strict=True):
            self.add_module(name, stage)
        self.neck, self.dropout, self.fc = neck, dropout, fc
        self.feature_map = self.stages[-1]
        self.notes = (note,)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(images))))]
        for name in self.stages:
            maps.append(getattr(self, name)(maps[-1]))
        logits: Tensor = self.fc(self.dropout(self.neck(maps[1:])))
        return logits


def build(
    spec: ImageSpec,
    *,
    block: str = "basic",
    blocks: str = "2,2,2,2",
    width: int = 64,
    shortcut: str = "projection",
    fusion: str = "none",
    stem: str = "auto",
    norm: str = "batch",
    activation: str = "relu",
    init: str = "he",
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> nn.Module:
    check_choice("block", block, BLOCKS)
    check_choice("shortcut", shortcut, ("projection", "padding", "padding_both"))
    check_choice("fusion", fusion, FUSIONS)
    check_whole("width", width, most=4096)
    depths = sizes("blocks", blocks)
    if not 1 <= len(depths) <= 6 or sum(depths) > 1000:
        raise UsageError(
            f"model option blocks is {blocks!r}. It must be the blocks of 1 to 6 stages, such as '3,4,6,3'."
        )
    stem = choose_stem(stem, spec)
    stages = _stages(BLOCKS[block], depths, width, shortcut, drop_path, norm, activation)
    widths = [width * BLOCKS[block].expansion * 2**number for number in range(len(depths))]
    neck: Pyramid | PooledMaps = PooledMaps(widths, all_stages=fusion == "pool")
    if fusion == "pyramid":
        neck = Pyramid(widths, widths[0], norm, activation)
    fc = nn.Linear(neck.out_features, len(spec.classes))
    model = ResNet(
        _stem(stem, spec.channels, width, norm, activation), stages, neck, dropout_of(dropout), fc, NOTES[stem]
    )
    initialize(model, init, activation)
    if norm == "none":
        _start_as_the_shortcuts(model)
    return model


def normalized(channels: int, maps: int, kernel: int, stride: int, norm: str) -> tuple[nn.Module, nn.Module]:
    """A convolution and the normalization behind it, whose bias does for both."""
    conv = nn.Conv2d(channels, maps, kernel, stride, padding=kernel // 2, bias=norm == "none")
    return conv, norm_named(norm, maps)


def _stem(
    stem: str, channels: int, width: int, norm: str, activation: str
) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
    conv, behind = normalized(channels, width, kernel, stride, norm)
    pool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
    return conv, behind, activation_named(activation, inplace=True), pool


def _stages(
    block: type[BasicBlock] | type[Bottleneck],
    depths: Sequence[int],
    width: int,
    shortcut: str,
    drop_path: float,
    norm: str,
    activation: str,
) -> list[nn.Sequential]:
    stages, channels, drops = [], width, iter(drop_paths(drop_path, sum(depths)))
    for number, depth in enumerate(depths):
        stage, maps = nn.Sequential(), width * 2**number
        for index in range(depth):
            stride = 2 if number > 0 and index == 0 else 1
            downsample = _shortcut(shortcut, channels, maps * block.expansion, stride, norm)
            stage.append(block(channels, maps, stride, downsample, next(drops), norm, activation))
            channels = maps * block.expansion
        stages.append(stage)
    return stages


def _shortcut(kind: str, channels: int, maps: int, stride: int, norm: str) -> nn.Module:
    if stride == 1 and channels == maps:
        return nn.Identity()
    if kind != "projection":
        before = (maps - channels) // 2 if kind == "padding_both" else 0
        return PaddedShortcut(before, maps - channels - before, stride)
    return nn.Sequential(*normalized(channels, maps, 1, stride, norm))


@torch.no_grad()
def _start_as_the_shortcuts(model: ResNet) -> None:
    for block in model.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            last = block.conv2 if isinstance(block, BasicBlock) else block.conv3
            for weight in last.parameters():
                weight.zero_()
