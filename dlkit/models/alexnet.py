"""AlexNet: five convolutions, overlapping max pools, three dense layers with dropout.

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.

`alexnet` is the paper's network: convolutions 2, 4 and 5 in two groups, which were split over two GPUs; local response
normalization after the first two; 60,965,224 parameters for 1,000 classes. init=paper, the default, draws weights with
deviation 0.01; biases are 1 in convolutions 2, 4, 5 and the dense hidden layers, 0 elsewhere.
`alexnet_owt` is the later network without groups and normalization (Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", 1404.5997), like torchvision's alexnet: 61,100,840 parameters, the same keys.

Differs from the paper: both halves are one layer; images are padded with 2 zeros, without which 224 pixels do not
give the 55×55 maps; a last map that is not 6×6 is averaged to it. norm=batch or norm=group follow every
convolution and replace the response normalization.
The small stem, selected for images below 64 pixels, is a 5×5 convolution of stride 1, as in the first author's networks
for CIFAR-10 (cuda-convnet, 2011); the dense layers then have 1,024 units and use a last map below 6×6 unchanged.
"""

from __future__ import annotations

import torch
from torch import nn

from dlkit.layers.activation import activation as activation_named
from dlkit.layers.conv_classifier import ConvClassifier
from dlkit.layers.dropout import dropout as dropout_of
from dlkit.layers.init import SCHEMES, initialize
from dlkit.layers.local_response_norm import LocalResponseNorm
from dlkit.layers.norm import NORMS
from dlkit.layers.norm import norm as norm_named
from dlkit.layers.options import check_choice
from dlkit.layers.stem import check_size, choose_stem
from dlkit.specs import ImageSpec

VARIANTS = {"alexnet": {}, "alexnet_owt": {"layout": "owt", "norm": "none", "init": "he"}}
NATURAL = (3, 224, 224, 1000)  # channels, height, width, classes

# maps, kernel and groups of each convolution
LAYOUTS = {
    "paper": ((96, 11, 1), (256, 5, 2), (384, 3, 1), (384, 3, 2), (256, 3, 2)),
    "owt": ((64, 11, 1), (192, 5, 1), (384, 3, 1), (256, 3, 1), (256, 3, 1)),
}
POOLED = (0, 1, 4)  # the convolutions followed by max pooling, 3×3 of stride 2
RESPONSE_NORMALIZED = (0, 1)
LEAST = {"imagenet": 63, "small": 15}  # pixels a side that leave the last pool 3×3 to take
NOTES = {
    "imagenet": "stem imagenet: 11×11 convolution of stride 4; dense layers of 4,096 units",
    "small": "stem small: 5×5 convolution of stride 1; dense layers of 1,024 units",
}


class AlexNet(ConvClassifier):
    """The network of the paper; see build."""


def build(
    spec: ImageSpec,
    *,
    layout: str = "paper",
    activation: str = "relu",
    init: str = "paper",
    dropout: float = 0.5,
    norm: str = "lrn",
    stem: str = "auto",
) -> nn.Module:
    check_choice("layout", layout, LAYOUTS)
    check_choice("init", init, ("paper", *SCHEMES))
    check_choice("norm", norm, ("lrn", *NORMS))
    stem = choose_stem(stem, spec)
    way_out = "Set data.size." if stem == "small" else "Set data.size, or the model's option stem=small."
    check_size(spec, LEAST[stem], f"AlexNet with the {stem} stem", way_out)
    features = _features(spec.channels, layout, stem, norm, activation)
    last = [_last_map(side, stem) for side in (spec.height, spec.width)]
    grid, units = ([6, 6], 4096) if stem == "imagenet" else ([min(6, side) for side in last], 1024)
    avgpool = nn.Identity() if grid == last else nn.AdaptiveAvgPool2d((grid[0], grid[1]))
    classifier = nn.Sequential(
        dropout_of(dropout), nn.Linear(256 * grid[0] * grid[1], units), activation_named(activation, inplace=True),
        dropout_of(dropout), nn.Linear(units, units), activation_named(activation, inplace=True),
        nn.Linear(units, len(spec.classes)),
    )  # fmt: skip
    before_the_last_pool = f"features.{len(features) - 2}"
    model = AlexNet(features, avgpool, classifier, feature_map=before_the_last_pool, note=NOTES[stem])
    if init == "paper":
        _initialize_as_the_paper(model)
    else:
        initialize(model, init, activation)
    return model


def _features(channels: int, layout: str, stem: str, norm: str, activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (maps, kernel, groups) in enumerate(LAYOUTS[layout]):
        if number > 0:
            layers.append(nn.Conv2d(channels, maps, kernel, padding=kernel // 2, groups=groups))
        elif stem == "small":
            layers.append(nn.Conv2d(channels, maps, 5, padding=2))
        else:
            layers.append(nn.Conv2d(channels, maps, kernel, stride=4, padding=2))
        if norm not in ("lrn", "none"):
            layers.append(norm_named(norm, maps))
        layers.append(activation_named(activation, inplace=True))
        if norm == "lrn" and number in RESPONSE_NORMALIZED:
            layers.append(LocalResponseNorm())
        if number in POOLED:
            layers.append(nn.MaxPool2d(3, 2))
        channels = maps
    return nn.Sequential(*layers)


def _last_map(side: int, stem: str) -> int:
    """The side of the maps after the last pooling."""
    side = side if stem == "small" else (side - 7) // 4 + 1
    for _ in POOLED:
        side = (side - 1) // 2
    return side


@torch.no_grad()
def _initialize_as_the_paper(model: AlexNet) -> None:
    """Section 5."""
    if any(weight.is_meta for weight in model.parameters()):
        return  # tensors have no memory
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    at_1 = [layers[number - 1] for number in (2, 4, 5, 6, 7)]
    for layer in layers:
        layer.weight.normal_(0, 0.01)
        assert layer.bias is not None
        layer.bias.fill_(1.0 if layer in at_1 else 0.0)
