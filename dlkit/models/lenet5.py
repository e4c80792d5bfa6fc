"""LeNet-5: convolutions, subsampling, and three fully connected layers.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998.

`lenet5` is the paper's network: a 32×32 input; C1 with 6 maps; S2, a 2×2 sum with a trainable coefficient and bias per
map; C3 with 16 maps, each connected to some of S2's as in table I; S4 like S2; C5 with 120 units; F6 with 84; the
scaled tanh after each of them. `output="rbf"` compares F6 with bitmaps of the ten digits, as in section II.B: 60,000
trainable parameters. `output="linear"`, the default, is a linear layer to any number of classes: 60,850.
`lenet5_relu` is the modern form: C3 fully connected, max pooling, rectified units, a linear output: 61,706.

Differs from the paper: cross entropy over softmax in place of the squared error and of equation 9's loss, for which the
RBF output's logits are the negative squared distances; subsampling is initialized as the average, not randomly; images
smaller than 32 pixels are centered by repeating their border (the paper's background); for larger ones S4's maps are
averaged down to 5×5, so that C5 keeps its size; the ten bitmaps are our own, in the size of the paper's figure 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.layers.activation import activation as activation_named
from dlkit.layers.conv_pool import conv_max_pool
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.init import initialize
from dlkit.layers.options import check_choice
from dlkit.layers.partial_conv import PartialConv2d
from dlkit.layers.subsampling import Subsampling
from dlkit.specs import ImageSpec

VARIANTS = {
    "lenet5": {},
    "lenet5_relu": {"activation": "relu", "init": "he", "connections": "full", "subsampling": "max"},
}
NATURAL = (1, 28, 28, 10)  # channels, height, width, classes

# table I: the maps of S2 that each map of C3 is connected to
CONNECTIONS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# the digits 0 to 9, each 7 wide and 12 high as in figure 3
BITMAPS = """
..###.. ...#... .#####. ####### .....#. ####### ...###. ####### .#####. ..###..
.#...#. ..##... #.....# ......# ....##. #...... ..#.... ......# #.....# .#...#.
#.....# .#.#... ......# .....#. ...#.#. #...... .#..... ......# #.....# #.....#
#.....# ...#... ......# ....#.. ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... .....#. ...###. ..#..#. ######. #.###.. .....#. .#...#. #.....#
#.....# ...#... ....#.. .....#. .#...#. .....#. ##...#. ....#.. ..###.. #.....#
#.....# ...#... ...#... ......# #....#. ......# #.....# ....#.. .#...#. .#...##
#.....# ...#... ..#.... ......# ####### ......# #.....# ...#... #.....# ..###.#
#.....# ...#... .#..... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... #...... ......# .....#. ......# #.....# ..#.... #.....# .....#.
.#...#. ...#... #...... #....#. .....#. #....#. .#...#. ..#.... #.....# ....#..
..###.. .#####. ####### .####.. .....#. .####.. ..###.. ..#.... .#####. .###...
"""


class BitmapDistance(nn.Module):
    """Minus the squared distance between F6 and each digit's bitmap: the nearest digit has the largest logit."""

    bitmaps: Tensor  # (10, 84), -1 and +1

    def __init__(self) -> None:
        super().__init__()
        digits = zip(*(line.split() for line in BITMAPS.split("\n") if line), strict=True)
        drawn = [[1.0 if pixel == "#" else -1.0 for pixel in "".join(rows)] for rows in digits]
        self.register_buffer("bitmaps", torch.tensor(drawn))

    def forward(self, x: Tensor) -> Tensor:  # (N, 84) -> (N, 10)
        return -(x[:, None] - self.bitmaps).square().sum(2)

    def multiply_adds(self, output: Tensor) -> int:
        """For one image."""
        return self.bitmaps.numel()


class Border(nn.Module):
    """Pads images to 32 pixels, centered, by repeating their outermost pixels."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        down, across = max(0, 32 - height), max(0, 32 - width)
        self.sides = (across // 2, across - across // 2, down // 2, down - down // 2)  # left, right, top, bottom

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, 32, 32)
        # One image per channel: in the channels_last format, padding is many times slower.
        bordered = F.pad(images.flatten(0, 1), self.sides, mode="replicate")
        return torch.unflatten(bordered, 0, images.shape[:2])


class LeNet5(nn.Module):
    """The layers are named as in the paper; s2, c3, s4, squash, dropout and output are passed in."""

    feature_map = "c3"  # the last convolution

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        s2: nn.Module,
        c3: nn.Module,
        s4: nn.Module,
        squash: nn.Module,
        output: nn.Module,
        dropout: nn.Module,
    ) -> None:
        super().__init__()
        self.border = Border(height, width) if min(height, width) < 32 else nn.Identity()
        self.c1 = nn.Conv2d(channels, 6, 5)
        self.s2 = s2
        self.c3 = c3
        self.s4 = s4
        self.squash = squash
        # Every activation is monotonic, so it commutes with max pooling, after which it costs a quarter.
        self.squash_before_pool = nn.Identity() if isinstance(s2, nn.MaxPool2d) else squash
        s4_size = [((max(32, side) - 4) // 2 - 4) // 2 for side in (height, width)]
        self.shrink = nn.AdaptiveAvgPool2d(5) if s4_size != [5, 5] else nn.Identity()
        self.c5 = nn.Linear(16 * 5 * 5, 120)  # a convolution whose kernel is as large as its input
        self.f6 = nn.Linear(120, 84)
        self.dropout = dropout
        self.output = output

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K); sizes for 32×32
        x = self.border(images)
        if self.training and isinstance(self.s2, nn.MaxPool2d) and isinstance(self.c3, nn.Conv2d):
            x = self.squash(conv_max_pool(x, self.c1))  # (N, 8, 14, 14), two of them without weight in C3
            x = self.squash(conv_max_pool(x, self.c3))  # (N, 16, 5, 5)
        else:
            x = self.squash_before_pool(self.c1(x))  # (N, 6, 28, 28)
            x = self.squash(self.s2(x))  # (N, 6, 14, 14)
            x = self.squash_before_pool(self.c3(x))  # (N, 16, 10, 10)
            x = self.squash(self.s4(x))  # (N, 16, 5, 5)
        x = self.squash(self.c5(self.shrink(x).flatten(1)))  # (N, 120)
        x = self.squash(self.f6(x))  # (N, 84)
        logits: Tensor = self.output(self.dropout(x))
        return logits


def build(
    spec: ImageSpec,
    *,
    activation: str = "scaled_tanh",
    init: str = "lecun",
    dropout: float = 0.0,
    output: str = "linear",
    connections: str = "paper",
    subsampling: str = "trainable",
) -> nn.Module:
    check_choice("connections", connections, ("paper", "full"))
    check_choice("subsampling", subsampling, ("trainable", "max"))
    model = LeNet5(
        spec.channels,
        spec.height,
        spec.width,
        s2=Subsampling(6) if subsampling == "trainable" else nn.MaxPool2d(2),
        c3=PartialConv2d(6, CONNECTIONS, 5) if connections == "paper" else nn.Conv2d(6, 16, 5),
        s4=Subsampling(16) if subsampling == "trainable" else nn.MaxPool2d(2),
        squash=activation_named(activation, inplace=True),
        output=_output(output, len(spec.classes)),
        dropout=dropout_of(dropout),
    )
    initialize(model, init, activation)
    return model


def _output(kind: str, classes: int) -> nn.Module:
    check_choice("output", kind, ("linear", "rbf"))
    if kind == "linear":
        return nn.Linear(84, classes)
    if classes != 10:
        raise UsageError(f"model option output is 'rbf', which has ten digits, but the data has {classes} classes.")
    return BitmapDistance()
