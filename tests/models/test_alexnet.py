"""AlexNet against its paper; torchvision's form is held by test_torchvision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit import registry
from dlkit.errors import DataError, UsageError
from dlkit.evaluation.model_summary import natural_spec, summarize
from dlkit.models.alexnet import AlexNet
from dlkit.specs import ImageSpec

IMAGENET = natural_spec(3, 224, 224, 1000)
DIGITS = natural_spec(1, 28, 28, 10)


def build(name: str = "alexnet", spec: ImageSpec = DIGITS, **options: Any) -> AlexNet:
    torch.manual_seed(0)
    model = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    assert isinstance(model, AlexNet)
    return model.eval()


def convolutions(model: AlexNet) -> list[nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def test_layers_have_the_papers_shapes_and_counts() -> None:
    layers = {layer.name: layer for layer in summarize("alexnet").layers}
    weighted = [(layer.output, layer.parameters) for layer in layers.values() if layer.parameters]
    assert weighted == [
        ((96, 55, 55), 34_944),
        ((256, 27, 27), 307_456),
        ((384, 13, 13), 885_120),
        ((384, 13, 13), 663_936),
        ((256, 13, 13), 442_624),
        ((4096,), 37_752_832),
        ((4096,), 16_781_312),
        ((1000,), 4_097_000),
    ]
    assert sum(count for _, count in weighted) == 60_965_224
    kinds = [layer.kind for layer in layers.values()]
    assert kinds[:8] == ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"] * 2


def by_the_paper(model: AlexNet, images: Tensor) -> Tensor:
    """Section 3 with the same weights, each GPU's half by itself."""
    weights = list(model.state_dict().values())
    kernels, biases = weights[0::2], weights[1::2]

    def halves(x: Tensor, number: int, padding: int) -> Tensor:
        pairs = zip(x.chunk(2, 1), kernels[number].chunk(2), biases[number].chunk(2), strict=True)
        return torch.cat([F.conv2d(half, kernel, bias, padding=padding) for half, kernel, bias in pairs], 1)

    def normalized(x: Tensor) -> Tensor:
        return F.local_response_norm(x, 5, alpha=5 * 1e-4, beta=0.75, k=2.0)

    x = F.conv2d(images, kernels[0], biases[0], stride=4, padding=2).relu()
    x = F.max_pool2d(normalized(x), 3, 2)
    x = F.max_pool2d(normalized(halves(x, 1, 2).relu()), 3, 2)
    x = F.conv2d(x, kernels[2], biases[2], padding=1).relu()
    x = halves(halves(x, 3, 1).relu(), 4, 1).relu()
    x = F.adaptive_avg_pool2d(F.max_pool2d(x, 3, 2), 6).flatten(1)
    x = F.linear(F.linear(x, kernels[5], biases[5]).relu(), kernels[6], biases[6]).relu()
    return F.linear(x, kernels[7], biases[7])


def test_alexnet_computes_what_the_paper_says() -> None:
    spec = natural_spec(3, 64, 80, 10)
    model, images = build(spec=spec, init="he"), torch.randn(2, 3, 64, 80) * 5
    with torch.inference_mode():
        torch.testing.assert_close(model(images), by_the_paper(model, images), rtol=1e-4, atol=1e-4)


def test_weights_start_as_the_paper_says() -> None:
    model = build()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    starts = [1.0 if layer.bias is not None and layer.bias.eq(1).all() else 0.0 for layer in layers]
    assert starts == [0, 1, 0, 1, 1, 1, 1, 0]  # convolutions 2, 4, 5 and the dense hidden layers
    assert all(
        layer.bias is not None and layer.bias.eq(start).all() for layer, start in zip(layers, starts, strict=True)
    )
    for layer in layers[1:]:
        assert layer.weight.mean().abs() < 1e-3 and layer.weight.std().item() == pytest.approx(0.01, rel=0.03)


def test_he_initialization_is_an_option_with_biases_0() -> None:
    layer = convolutions(build(init="he"))[1]
    assert layer.weight.std().item() == pytest.approx((2 / (25 * 48)) ** 0.5, rel=0.02)
    assert layer.bias is not None and not layer.bias.any()


def test_dropout_stands_before_both_hidden_dense_layers() -> None:
    kinds = [type(layer) for layer in build().classifier.children()]
    assert kinds == [nn.Dropout, nn.Linear, nn.ReLU] * 2 + [nn.Linear]
    assert not any(isinstance(layer, nn.Dropout) for layer in build(dropout=0.0).modules())


def test_response_normalization_gives_way_to_another_norm() -> None:
    kinds = {type(layer).__name__ for layer in build(norm="batch").modules()}
    assert "BatchNorm2d" in kinds and "LocalResponseNorm" not in kinds
    assert sum(isinstance(layer, nn.GroupNorm) for layer in build(norm="group").modules()) == 5


@pytest.mark.parametrize(("size", "stem"), [((28, 28), "small"), ((63, 200), "small"), ((64, 64), "imagenet")])
def test_small_images_get_the_small_stem_and_the_summary_says_so(size: tuple[int, int], stem: str) -> None:
    summary = summarize("alexnet", natural_spec(3, *size, 4))
    assert summary.notes[0].startswith(f"stem {stem}:")
    assert summary.layers[0].output[1:] == (size if stem == "small" else (15, 15))


@pytest.mark.parametrize(("stem", "least"), [("small", 15), ("imagenet", 63)])
def test_the_least_size_is_named_and_true(stem: str, least: int) -> None:
    with torch.device("meta"):
        model = build(spec=natural_spec(1, least, least, 4), stem=stem)
        assert model(torch.empty(2, 1, least, least)).shape == (2, 4)
    with pytest.raises(DataError, match=rf"{least} or more"):
        build(spec=natural_spec(1, 99, least - 1, 4), stem=stem)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "lnr"}, "norm is 'lnr'.*'lrn'"),
        ({"init": "papre"}, "init is 'papre'.*'paper'"),
        ({"layout": "2012"}, "layout is '2012'.*paper, owt"),
        ({"stem": "big"}, "stem is 'big'.*auto, imagenet, small"),
        ({"activation": "rellu"}, "'rellu'"),
        ({"dropout": 1}, "dropout is 1"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**options)
