"""VGG against its paper's table 1; test_torchvision holds keys and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dlkit
from dlkit import registry
from dlkit.errors import DataError, UsageError
from dlkit.evaluation.model_summary import natural_spec, summarize
from dlkit.models.vgg import VARIANTS, VGG
from dlkit.specs import ImageSpec

IMAGENET = natural_spec(3, 224, 224, 1000)
SMALL = natural_spec(3, 32, 32, 10)


def build(name: str, spec: ImageSpec = SMALL, **options: Any) -> VGG:
    torch.manual_seed(0)
    model = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    assert isinstance(model, VGG)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "count", "weight_layers"),
    [
        ("vgg11", 132_863_336, 11),
        ("vgg13", 133_047_848, 13),
        ("vgg16", 138_357_544, 16),
        ("vgg16_bn", 138_365_992, 16),
        ("vgg16_c", 133_638_952, 16),
        ("vgg19", 143_667_240, 19),
    ],
)
def test_parameters_and_weight_layers_are_as_many_as_published(name: str, count: int, weight_layers: int) -> None:
    with torch.device("meta"):
        model = build(name, IMAGENET)
    assert sum(weight.numel() for weight in model.parameters()) == count
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules()) == weight_layers


def test_configuration_c_ends_three_stages_with_a_1_by_1_convolution() -> None:
    kernels = [layer.kernel_size[0] for layer in build("vgg16_c").modules() if isinstance(layer, nn.Conv2d)]
    assert kernels == [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]


def by_table_1(model: VGG, images: Tensor, column: str) -> Tensor:
    """A column of table 1, with the small stem's dense layers and pools, from plain functions."""
    weights = list(model.state_dict().values())
    layers, x = iter(zip(weights[0::2], weights[1::2], strict=True)), images
    for word in column.split():
        if word == "maxpool":
            x = F.max_pool2d(x, 2, ceil_mode=True)
        else:
            kernel, bias = next(layers)
            assert word == f"conv{kernel.shape[-1]}-{len(kernel)}"
            x = F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2).relu()
    x = F.linear(x.mean((2, 3)), *next(layers)).relu()
    x = F.linear(x, *next(layers)).relu()
    return F.linear(x, *next(layers))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("vgg11", "conv3-64 maxpool conv3-128 maxpool conv3-256 conv3-256 maxpool conv3-512 conv3-512 maxpool "
         "conv3-512 conv3-512 maxpool"),
        ("vgg16_c", "conv3-64 conv3-64 maxpool conv3-128 conv3-128 maxpool conv3-256 conv3-256 conv1-256 maxpool "
         "conv3-512 conv3-512 conv1-512 maxpool conv3-512 conv3-512 conv1-512 maxpool"),
    ],
)  # fmt: skip
def test_a_small_image_goes_through_the_papers_table(name: str, column: str) -> None:
    model, images = build(name, natural_spec(1, 28, 36, 10)), torch.randn(2, 1, 28, 36)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), by_table_1(model, images, column), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_the_bn_forms_have_a_norm_behind_every_convolution(name: str) -> None:
    with torch.device("meta"):
        models = build(f"{name}_bn"), build(name)
    kinds, plain = ([type(layer).__name__ for layer in model.features.children()] for model in models)
    assert [kind for kind in kinds if kind != "BatchNorm2d"] == plain
    assert all(kinds[at + 1] == "BatchNorm2d" for at, kind in enumerate(kinds) if kind == "Conv2d")


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("size", "stem"), [((28, 28), "small"), ((1, 1), "small"), ((224, 64), "imagenet")])
def test_small_images_get_the_small_stem_and_the_summary_says_so(name: str, size: tuple[int, int], stem: str) -> None:
    summary = summarize(name, natural_spec(1, *size, 4))
    assert summary.notes[0].startswith(f"stem {stem}:") and summary.layers[-1].output == (4,)


def test_the_least_size_is_named_and_true() -> None:
    with torch.device("meta"):
        model = build("vgg19", natural_spec(1, 32, 33, 4), stem="imagenet")
        assert model(torch.empty(2, 1, 32, 33)).shape == (2, 4)
    with pytest.raises(DataError, match=r"31×90 pixels.*32 or more.*stem=small"):
        build("vgg19", natural_spec(1, 31, 90, 4), stem="imagenet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batsch"}, "norm is 'batsch'.*'batch'"),
        ({"configuration": "F"}, "configuration is 'F'"),
        ({"stem": 3}, "stem is 3"),
        ({"init": "hee"}, "init is 'hee'.*'he'"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build("vgg16", **options)


def test_a_single_image_with_nothing_to_average_is_told(tmp_path: Path) -> None:
    settings = {"data.options.train": 9, "data.options.test": 8, "data.options.size": 16}
    settings |= {"data.validation": 0.0, "train.monitor": "train/loss"}
    with pytest.raises(UsageError, match="batch"):
        dlkit.train("vgg11_bn", dataset="shapes", epochs=1, batch_size=1, settings=settings, runs_dir=tmp_path)
