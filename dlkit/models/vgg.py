"""VGG: stages of 3×3 convolutions between five max pools, and three dense layers.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 1409.1556, 2014.

`vgg11`, `vgg13`, `vgg16` and `vgg19` are table 1's columns A, B, D and E, `vgg16_c` is C with its 1×1 convolutions;
`…_bn` have batch normalization after every convolution. Parameter names and counts are torchvision's.

Differs from the paper: weights are initialized by He's scheme, which trains the deep networks without the weights of
a shallow one; a last map that is not 7×7 is averaged to it.
The small stem, selected for images below 64 pixels, is the usual one for CIFAR-10: the dense layers have 512 units and
take the average of the last map. Its pooling rounds sizes up, so that five of them fit any image.
"""

from __future__ import annotations

from torch import nn

from dlkit.layers.activation import activation as activation_named
from dlkit.layers.conv_classifier import ConvClassifier
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.init import initialize
from dlkit.layers.norm import norm as norm_named
from dlkit.layers.options import check_choice
from dlkit.layers.stem import check_size, choose_stem
from dlkit.specs import ImageSpec

VARIANTS = {
    "vgg11": {"configuration": "A"},
    "vgg13": {"configuration": "B"},
    "vgg16": {"configuration": "D"},
    "vgg16_c": {"configuration": "C"},
    "vgg19": {"configuration": "E"},
    "vgg11_bn": {"configuration": "A", "norm": "batch"},
    "vgg13_bn": {"configuration": "B", "norm": "batch"},
    "vgg16_bn": {"configuration": "D", "norm": "batch"},
    "vgg19_bn": {"configuration": "E", "norm": "batch"},
}
NATURAL = (3, 224, 224, 1000)  # channels, height, width, classes

# table 1: kernels of the convolutions between two pools; a stage's maps are the same
CONFIGURATIONS = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}
MAPS = (64, 128, 256, 512, 512)
NOTES = {
    "imagenet": "stem imagenet: dense layers of 4,096 units over 7×7 maps",
    "small": "stem small: dense layers of 512 units over the last map's average",
}


class VGG(ConvClassifier):
    """The network of the paper; see build."""


def build(
    spec: ImageSpec,
    *,
    configuration: str = "D",
    activation: str = "relu",
    init: str = "he",
    dropout: float = 0.5,
    norm: str = "none",
    stem: str = "auto",
) -> nn.Module:
    check_choice("configuration", configuration, CONFIGURATIONS)
    stem = choose_stem(stem, spec)
    if stem == "imagenet":
        check_size(spec, 32, "VGG with the imagenet stem", "Set data.size, or the model's option stem=small.")
    features = _features(spec.channels, CONFIGURATIONS[configuration], norm, activation, round_up=stem == "small")
    grid, units = (7, 4096) if stem == "imagenet" else (1, 512)
    fits = stem == "imagenet" and spec.height // 32 == spec.width // 32 == grid
    avgpool = nn.Identity() if fits else nn.AdaptiveAvgPool2d(grid)
    classifier = nn.Sequential(
        nn.Linear(512 * grid * grid, units), activation_named(activation, inplace=True), dropout_of(dropout),
        nn.Linear(units, units), activation_named(activation, inplace=True), dropout_of(dropout),
        nn.Linear(units, len(spec.classes)),
    )  # fmt: skip
    before_the_last_pool = f"features.{len(features) - 2}"
    model = VGG(features, avgpool, classifier, feature_map=before_the_last_pool, note=NOTES[stem])
    initialize(model, init, activation)
    return model


def _features(
    channels: int, stages: tuple[tuple[int, ...], ...], norm: str, activation: str, *, round_up: bool
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for maps, kernels in zip(MAPS, stages, strict=True):
        for kernel in kernels:
            normalized = norm_named(norm, maps)
            layers.append(nn.Conv2d(channels, maps, kernel, padding=kernel // 2))
            layers += [normalized] if norm != "none" else []  # torchvision's keys count the layers
            layers.append(activation_named(activation, inplace=True))
            channels = maps
        layers.append(nn.MaxPool2d(2, ceil_mode=round_up))
    return nn.Sequential(*layers)
