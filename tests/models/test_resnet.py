"""ResNet against its paper; test_torchvision holds keys and logits of those for ImageNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models as torchvisions

from dlkit import registry
from dlkit.errors import UsageError
from dlkit.evaluation.model_summary import natural, natural_spec, summarize
from dlkit.layers.fusion import Pyramid
from dlkit.models.resnet import ResNet
from dlkit.specs import ImageSpec

SMALL = natural_spec(3, 32, 32, 10)
TINY = {"blocks": "1,2,1", "width": 8}


def build(name: str, spec: ImageSpec = SMALL, **options: Any) -> ResNet:
    torch.manual_seed(0)
    model = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    assert isinstance(model, ResNet)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_parameters_and_weight_layers_are_as_many_as_published(name: str, count: int) -> None:
    with torch.device("meta"):
        model = build(name, natural(name))
    assert sum(weight.numel() for weight in model.parameters()) == count
    weighted = [key for key, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert sum("downsample" not in key for key in weighted) == int(name.removeprefix("resnet"))


def by_section_4_2(model: ResNet, images: Tensor, depth: int) -> Tensor:
    """The networks for CIFAR-10 with the same weights: 6n + 2 layers, option A, a block at a time."""
    weights = model.state_dict()

    def normalized(x: Tensor, name: str, stride: int = 1) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.weight"], stride=stride, padding=1)
        norm = name.replace("conv", "bn")
        mean, variance, gain, bias = (
            weights[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * gain + bias

    x = normalized(images, "conv1").relu()
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            stride = 2 if stage > 1 and block == 0 else 1
            branch = normalized(
                normalized(x, f"layer{stage}.{block}.conv1", stride).relu(), f"layer{stage}.{block}.conv2"
            )
            if stride == 2:
                x = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1)
            x = (x + branch).relu()
    return F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])


@torch.no_grad()
def live(model: nn.Module) -> nn.Module:
    """With norms that do something: statistics and gains as after training, not 0 and 1."""
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.running_var):
            assert tensor is not None
            tensor.uniform_(0.5, 1.2)
        for tensor in (norm.bias, norm.running_mean):
            assert tensor is not None
            tensor.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("name", ["resnet20", "resnet32"])
def test_small_networks_compute_what_the_paper_says(name: str) -> None:
    model, images = build(name), torch.randn(2, 3, 32, 24)
    live(model)
    with torch.inference_mode():
        expected = by_section_4_2(model, images, int(name.removeprefix("resnet")))
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_training_is_torchvisions_with_the_same_weights(block: str) -> None:
    options = {"block": block, "blocks": "1,2,1,1"}
    ours = build("resnet18", natural_spec(3, 64, 64, 10), **options).double().train()
    kind = torchvisions.resnet.BasicBlock if block == "basic" else torchvisions.resnet.Bottleneck
    theirs = torchvisions.ResNet(kind, [1, 2, 1, 1], num_classes=10).double().train()
    theirs.load_state_dict(ours.state_dict())
    images, targets = torch.randn(3, 3, 64, 64, dtype=torch.double), torch.arange(3)
    for model in (ours, theirs):
        F.cross_entropy(model(images), targets).backward()
    for (name, one), (other_name, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other_name
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())  # running statistics


@pytest.mark.parametrize("norm", ["batch", "none", "group"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
@pytest.mark.parametrize("fusion", ["none", "pyramid"])
def test_nothing_in_place_spoils_what_others_read(norm: str, activation: str, fusion: str) -> None:
    options = {"norm": norm, "activation": activation, "fusion": fusion, **TINY}
    model = build("resnet20", natural_spec(3, 16, 16, 4), **options).double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.double)
    gradients = []
    for inplace in (True, False):
        for module in model.modules():
            if isinstance(module, nn.ReLU | nn.LeakyReLU):
                module.inplace = inplace
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([weight.grad for weight in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_without_norm_each_block_starts_as_its_shortcut() -> None:
    deep = build("resnet110", norm="none")
    images = torch.randn(2, 3, 32, 32)
    maps = deep.layer1(images.new_ones(2, 16, 32, 32))
    assert torch.equal(maps, torch.ones_like(maps))
    assert deep(images).isfinite().all() and deep(images).std() < 10
    assert all(layer.bias is not None for layer in deep.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("fusion", ["pool", "pyramid"])
def test_a_fusion_hears_every_stage(fusion: str) -> None:
    model = build("resnet20", fusion=fusion)
    stages = [torch.randn(2, 16 * 2**i, 32 // 2**i, 32 // 2**i, requires_grad=True) for i in range(3)]
    model.fc(model.neck(stages)).sum().backward()
    assert all(stage.grad is not None and stage.grad.any() for stage in stages)
    assert model.fc.in_features == (16 + 32 + 64 if fusion == "pool" else 3 * 16)


@pytest.mark.parametrize(("norm", "activation"), [("batch", "relu"), ("none", "tanh")])
def test_a_pyramid_is_its_formula(norm: str, activation: str) -> None:
    torch.manual_seed(0)
    pyramid, squash = Pyramid([4, 6], 3, norm, activation), {"relu": torch.relu, "tanh": torch.tanh}[activation]
    fine, coarse = torch.randn(2, 4, 6, 5), torch.randn(2, 6, 3, 3)
    top = pyramid.lateral[1](coarse)
    enlarged = top[:, :, [0, 0, 1, 1, 2, 2]][:, :, :, [0, 0, 1, 1, 2]]  # nearest: row i of 6 is row i // 2 of 3
    levels = [pyramid.lateral[0](fine) + enlarged, top]
    smoothed = [smooth(level) for smooth, level in zip(pyramid.smooth, levels, strict=True)]
    if norm == "batch":
        smoothed = [F.batch_norm(maps, None, None, training=True) for maps in smoothed]
    expected = torch.cat([squash(maps).mean((2, 3)) for maps in smoothed], 1)
    torch.testing.assert_close(pyramid([fine, coarse]), expected)
    assert pyramid.out_features == 6


def test_drop_path_leaves_blocks_out_while_training_the_later_the_more_often() -> None:
    model = build("resnet20", drop_path=0.5)
    rates = [module.probability for module in model.modules() if type(module).__name__ == "DropPath"]
    assert len(rates) == 9 and rates == sorted(rates) and rates[-1] == 0.5
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), model(images))
    assert not torch.equal(model.train()(images), model(images))


@pytest.mark.parametrize(("name", "size", "stem"), [("resnet18", 63, "small"), ("resnet20", 64, "imagenet")])
def test_small_images_get_the_small_stem_and_the_summary_says_so(name: str, size: int, stem: str) -> None:
    summary = summarize(name, natural_spec(3, size, 100, 4))
    assert summary.notes[0].startswith(f"stem {stem}:")
    assert summary.layers[0].output[1:] == ((size, 100) if stem == "small" else (32, 50))


@pytest.mark.parametrize("name", ["resnet50", "resnet20"])
@pytest.mark.parametrize("size", [(1, 1), (5, 90)])
@pytest.mark.parametrize("options", [{}, {"stem": "imagenet"}, {"fusion": "pyramid"}], ids=str)
def test_any_size_of_image_gives_logits(name: str, size: tuple[int, int], options: dict[str, Any]) -> None:
    with torch.device("meta"):
        assert build(name, natural_spec(1, *size, 4), **options)(torch.empty(2, 1, *size)).shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "botleneck"}, "block is 'botleneck'.*'bottleneck'"),
        ({"blocks": ""}, "blocks is ''"),
        ({"blocks": "1,1,1,1,1,1,1"}, "1 to 6 stages"),
        ({"blocks": "2;2"}, "blocks is '2;2'"),
        ({"width": 0}, "width is 0"),
        ({"shortcut": "pading"}, "'pading'.*'padding'"),
        ({"fusion": "piramid"}, "'piramid'.*'pyramid'"),
        ({"stem": "smal"}, "'smal'.*'small'"),
        ({"norm": "grup"}, "'grup'.*'group'"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build("resnet18", **options)
