"""DenseNet against its paper's tables and against torchvision's with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models as torchvisions

from dlkit import registry
from dlkit.errors import DataError, UsageError
from dlkit.evaluation.model_summary import natural_spec
from dlkit.models.densenet import DenseNet

IMAGENET = natural_spec(3, 224, 224, 1000)
SMALL = natural_spec(3, 32, 32, 10)


def build(name: str, spec: Any = SMALL, **options: Any) -> DenseNet:
    torch.manual_seed(0)
    model = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    assert isinstance(model, DenseNet)
    return model.eval()


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def live(model: nn.Module) -> nn.Module:
    """The same with norms that do something: statistics and gains as after training, not 0 and 1."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            for tensor in (norm.weight, norm.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (norm.bias, norm.running_mean):
                tensor.normal_(0, 0.2, generator=generator)
    return model


@pytest.mark.parametrize(
    ("name", "spec", "count"),
    [
        ("densenet121", IMAGENET, 7_978_856),
        ("densenet161", IMAGENET, 28_681_000),
        ("densenet169", IMAGENET, 14_149_480),
        ("densenet201", IMAGENET, 20_013_928),
        ("densenet40", SMALL, 1_019_722),
        ("densenet_bc100", SMALL, 769_162),
    ],
)
def test_parameters_are_as_many_as_published(name: str, spec: Any, count: int) -> None:
    with torch.device("meta"):
        assert parameters(build(name, spec)) == count


@pytest.mark.parametrize("name", ["densenet121", "densenet161", "densenet169", "densenet201"])
def test_state_dict_is_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = build(name, IMAGENET).state_dict(), getattr(torchvisions, name)().state_dict()
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in theirs.items()}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("densenet121", (40, 64)),
        ("densenet169", (33, 33)),
        ("densenet201", (33, 33)),
        pytest.param("densenet161", (33, 33), marks=pytest.mark.slow),
        *(
            pytest.param(f"densenet{depth}", (224, 224), marks=pytest.mark.slow, id=f"densenet{depth}-224")
            for depth in (121, 161, 169, 201)
        ),
    ],
)
def test_logits_are_torchvisions_with_the_same_weights(name: str, size: tuple[int, int]) -> None:
    ours, theirs = live(build(name, IMAGENET)), getattr(torchvisions, name)().eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-4)


def test_training_is_torchvisions_with_the_same_weights() -> None:
    options = {"blocks": "2,3,2,2", "growth": 8, "width": 16}
    ours = build("densenet121", natural_spec(3, 64, 64, 10), **options).double().train()
    theirs = torchvisions.DenseNet(8, (2, 3, 2, 2), 16, num_classes=10).double().train()
    theirs.load_state_dict(ours.state_dict())
    images, targets = torch.randn(4, 3, 64, 64, dtype=torch.double), torch.arange(4)
    for model in (ours, theirs):
        F.cross_entropy(model(images), targets).backward()
    for (name, one), (other_name, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other_name
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())  # running statistics


def by_the_paper(model: DenseNet, images: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Section 3 in words: a layer reads the list of all maps before it; a transition convolves, then pools."""
    weights = model.state_dict()

    def normalized(x: Tensor, name: str) -> Tensor:
        numbers = [weights[f"features.{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, gain, bias = (number[:, None, None] for number in numbers)
        return ((x - mean) / (variance + 1e-5).sqrt() * gain + bias).relu()

    maps = [F.conv2d(images, weights["features.conv0.weight"], padding=1)]
    for block, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            name = f"denseblock{block}.denselayer{layer}"
            x = normalized(torch.cat(maps, 1), f"{name}.norm1")
            kernel = weights[f"features.{name}.conv1.weight"]
            x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
            if f"features.{name}.conv2.weight" in weights:
                x = F.conv2d(normalized(x, f"{name}.norm2"), weights[f"features.{name}.conv2.weight"], padding=1)
            maps.append(x)
        if block < len(blocks):
            x = normalized(torch.cat(maps, 1), f"transition{block}.norm")
            maps = [F.avg_pool2d(F.conv2d(x, weights[f"features.transition{block}.conv.weight"]), 2)]
    return F.linear(
        normalized(torch.cat(maps, 1), "norm5").mean((2, 3)), weights["classifier.weight"], weights["classifier.bias"]
    )


@pytest.mark.parametrize(("name", "layers"), [("densenet40", 12), ("densenet_bc100", 16)])
def test_small_networks_compute_what_the_paper_says(name: str, layers: int) -> None:
    model, images = build(name), torch.randn(2, 3, 32, 32)
    live(model)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), by_the_paper(model, images, (layers,) * 3), rtol=1e-4, atol=1e-4)


def test_each_layer_reads_all_maps_before_it() -> None:
    model = build("densenet_bc100")
    widths = [layer.conv1.in_channels for layer in model.features.denseblock1]  # type: ignore[union-attr]
    assert widths == [24 + 12 * layer for layer in range(16)]
    assert model.features.transition1.conv.out_channels == (24 + 16 * 12) // 2  # type: ignore[union-attr]


def test_small_images_get_the_small_stem_unless_told_otherwise() -> None:
    assert build("densenet121", natural_spec(1, 63, 80, 10)).features.conv0.kernel_size == (3, 3)
    assert build("densenet121", natural_spec(1, 64, 64, 10)).features.conv0.kernel_size == (7, 7)
    assert build("densenet40", natural_spec(3, 224, 224, 10)).features.conv0.kernel_size == (7, 7)
    assert build("densenet40", natural_spec(3, 224, 224, 10), stem="small").features.conv0.kernel_size == (3, 3)
    assert hasattr(build("densenet121", SMALL, stem="imagenet").features, "pool0")


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("densenet121", {}, 8),
        ("densenet121", {"stem": "imagenet"}, 29),
        ("densenet40", {}, 4),
        ("densenet40", {"stem": "imagenet"}, 13),
    ],
)
def test_the_least_size_is_named_and_true(name: str, options: dict[str, Any], least: int) -> None:
    spec = natural_spec(1, least, least + 3, 3)
    model = build(name, spec, **options)
    assert model(torch.randn(2, 1, least, least + 3)).isfinite().all()
    with pytest.raises(DataError, match=f"{least + 3}×{least - 1} pixels.*each side must have {least} or more"):
        build(name, natural_spec(1, least + 3, least - 1, 3), **options)
    assert min(spatial(model, torch.randn(2, 1, least, least))) == 1


def spatial(model: DenseNet, images: Tensor) -> tuple[int, int]:
    """Of the last feature map, found by the name that the model states for it."""
    seen: list[Tensor] = []
    assert model.feature_map is not None
    hook = model.get_submodule(model.feature_map).register_forward_hook(lambda *call: seen.append(call[2]))
    model(images)
    hook.remove()
    return seen[0].shape[2], seen[0].shape[3]


@pytest.mark.parametrize("norm", ["batch", "none", "group"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
def test_nothing_in_place_spoils_what_others_read(norm: str, activation: str) -> None:
    options = {"blocks": "2,2", "growth": 4, "width": 6, "norm": norm, "activation": activation}
    model = build("densenet121", natural_spec(3, 16, 16, 4), **options).double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.double)
    in_place = model(images)
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = False
    torch.testing.assert_close(in_place, model(images))
    assert sum(isinstance(module, nn.GroupNorm) for module in model.modules()) == (10 if norm == "group" else 0)


def test_dropout_stands_in_every_layer() -> None:
    model = build("densenet40", dropout=0.2)
    assert sum(isinstance(module, nn.Dropout) for module in model.modules()) == 36
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(model.train()(images), model(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "imagnet"}, "'imagnet'.*'imagenet'"),
        ({"norm": "bath"}, "'bath'.*'batch'"),
        ({"blocks": "6;12"}, "blocks is '6;12'"),
        ({"blocks": ""}, "blocks is ''"),
        ({"growth": 0}, "growth is 0"),
        ({"growth": 1.5}, "growth is 1.5"),
        ({"bottleneck": -1}, "bottleneck is -1"),
        ({"compression": 0}, "compression is 0"),
        ({"compression": 1.5}, "compression is 1.5"),
        ({"compression": "half"}, "compression is 'half'"),
        ({"compression": 0.001}, "compression is 0.001"),
        ({"growht": 12}, "'growht'.*'growth'"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build("densenet121", **options)


def test_training_keeps_no_more_than_torchvisions() -> None:
    """Bytes that autograd holds for the backward pass, storages counted once."""

    def held(model: nn.Module) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(2, 3, 64, 64)).sum()
        return sum(storages.values())

    ours = build("densenet121", natural_spec(3, 64, 64, 1000)).train()
    assert held(ours) <= held(torchvisions.densenet121().train())
