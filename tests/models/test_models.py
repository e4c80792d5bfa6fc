"""The models against their papers and against plain torch with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit import registry
from dlkit.errors import UsageError
from dlkit.evaluation.model_summary import natural_spec
from dlkit.layers.activation import activation as named
from dlkit.models.lenet5 import BITMAPS, CONNECTIONS, BitmapDistance, LeNet5
from dlkit.specs import ImageSpec

DIGITS = natural_spec(1, 28, 28, 10)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, spec: ImageSpec = DIGITS, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    assert isinstance(model, nn.Module)
    return model.eval()


def lenet(name: str = "lenet5", spec: ImageSpec = DIGITS, **options: Any) -> LeNet5:
    model = build(name, spec, **options)
    assert isinstance(model, LeNet5)
    return model


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


def test_lenet5_has_the_papers_parameters_layer_by_layer() -> None:
    model = lenet()
    layers = [model.c1, model.s2, model.c3, model.s4, model.c5, model.f6]
    assert [parameters(layer) for layer in layers] == [156, 12, 1_516, 32, 48_120, 10_164]
    assert parameters(model) == 60_850


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("lenet5", {"output": "rbf"}, 60_000),
        ("lenet5_relu", {}, 61_706),
        ("simple_cnn", {}, 54_410),
        ("mlp", {}, 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10),
        ("mlp", {"hidden": ""}, 7_850),
        ("mlp", {"hidden": 16}, 784 * 16 + 16 + 170),
    ],
)
def test_parameters_are_as_many_as_published(name: str, options: dict[str, Any], count: int) -> None:
    assert parameters(build(name, **options)) == count


def test_table_1_has_60_connections_spread_evenly() -> None:
    assert [len(maps) for maps in CONNECTIONS] == [3] * 6 + [4] * 9 + [6]
    assert [sum(source in maps for maps in CONNECTIONS) for source in range(6)] == [10] * 6
    assert len(set(CONNECTIONS)) == 16
    assert all(list(maps) == sorted(set(maps)) for maps in CONNECTIONS)
    # its columns 0–5 are three neighbours, 6–11 four, 12–14 two pairs with a gap, on the ring of six maps
    assert all(set(CONNECTIONS[i]) == {(i + j) % 6 for j in range(3)} for i in range(6))
    assert all(set(CONNECTIONS[6 + i]) == {(i + j) % 6 for j in range(4)} for i in range(6))
    assert all(set(CONNECTIONS[12 + i]) == {(i + j) % 6 for j in (0, 1, 3, 4)} for i in range(3))


def by_the_paper(model: LeNet5, images: Tensor) -> Tensor:
    """LeNet-5 up to F6 with the same weights, written from section II.B a map at a time."""

    def f(a: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * a)

    def subsample(x: Tensor, coefficients: Tensor, biases: Tensor) -> Tensor:
        sums = F.avg_pool2d(x, 2) * 4
        return torch.stack([sums[:, i] * coefficients[i] + biases[i] for i in range(len(biases))], 1)

    weights = model.state_dict()
    x = f(F.conv2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), weights["c1.weight"], weights["c1.bias"]))
    x = f(subsample(x, weights["s2.weight"], weights["s2.bias"]))
    kernels = iter(weights["c3.weight"])
    maps = [sum(F.conv2d(x[:, [source]], next(kernels)[None, None]) for source in sources) for sources in CONNECTIONS]
    x = f(torch.cat([one + bias for one, bias in zip(maps, weights["c3.bias"], strict=True)], 1))
    x = f(subsample(x, weights["s4.weight"], weights["s4.bias"]))
    x = f(F.conv2d(x, weights["c5.weight"].view(120, 16, 5, 5), weights["c5.bias"]))[:, :, 0, 0]
    return f(F.linear(x, weights["f6.weight"], weights["f6.bias"]))


@pytest.mark.parametrize("output", ["linear", "rbf"])
def test_lenet5_computes_what_the_paper_says(output: str) -> None:
    model, images = lenet(output=output), torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(0.1 * torch.randn_like(weight) if name.startswith("s") else 0)  # not at their even start
    f6 = by_the_paper(model, images)
    weights = model.state_dict()
    if output == "linear":
        expected = F.linear(f6, weights["output.weight"], weights["output.bias"])
    else:
        expected = -torch.cdist(f6, weights["output.bitmaps"]).square()
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_lenet5_relu_is_a_plain_sequential_with_the_same_weights() -> None:
    plain = nn.Sequential(
        nn.ReplicationPad2d(2), nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    model, images = build("lenet5_relu"), torch.randn(4, 1, 28, 28)
    weights = zip(plain.state_dict(), model.state_dict().values(), strict=True)
    plain.load_state_dict({name: weight for name, weight in weights})
    torch.testing.assert_close(model(images), plain(images))
    targets = torch.arange(4)
    F.cross_entropy(model(images), targets).backward()
    F.cross_entropy(plain(images), targets).backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "scaled_tanh"])
def test_lenet5_answers_alike_in_training_and_after_it(activation: str) -> None:
    """Training takes a quicker way through its convolutions."""
    model, images = build("lenet5_relu", activation=activation), torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(model.train()(images), model.eval()(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid", "scaled_tanh"])
def test_simple_cnn_is_a_plain_sequential_with_the_same_weights(activation: str) -> None:
    plain = nn.Sequential(
        nn.Conv2d(1, 32, 3), named(activation), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 13 * 13, 10)
    )
    model, images = build("simple_cnn", activation=activation), torch.randn(4, 1, 28, 28)
    plain.load_state_dict(dict(zip(plain.state_dict(), model.state_dict().values(), strict=True)))
    torch.testing.assert_close(model(images), plain(images))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_mlp_is_a_plain_sequential_with_the_same_weights(activation: str) -> None:
    plain = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 20), named(activation), nn.Linear(20, 9), named(activation), nn.Linear(9, 10)
    )
    model, images = build("mlp", hidden="20,9", activation=activation), torch.randn(4, 1, 28, 28)
    plain.load_state_dict(dict(zip(plain.state_dict(), model.state_dict().values(), strict=True)))
    torch.testing.assert_close(model(images), plain(images))


def test_an_image_of_28_pixels_is_one_of_32_with_its_border_repeated() -> None:
    small, natural = lenet(), lenet(spec=natural_spec(1, 32, 32, 10))
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(small(images), natural(F.pad(images, (2, 2, 2, 2), mode="replicate")))


@pytest.mark.parametrize("name", ["lenet5", "lenet5_relu", "simple_cnn", "mlp"])
@pytest.mark.parametrize("size", [(1, 1), (3, 31), (33, 36), (65, 30)])
def test_any_size_of_image_gives_logits(name: str, size: tuple[int, int]) -> None:
    spec = natural_spec(3, *size, 4)
    assert build(name, spec)(torch.randn(2, 3, *size)).shape == (2, 4)


def test_c5_keeps_its_size_for_large_images() -> None:
    assert lenet(spec=natural_spec(3, 224, 180, 10)).c5.weight.shape == (120, 400)


def test_options_of_a_variant_can_still_be_set() -> None:
    mixed = lenet("lenet5_relu", connections="paper", subsampling="trainable")
    assert parameters(mixed) == 60_850
    assert type(mixed.squash) is nn.ReLU


@pytest.mark.parametrize("name", ["lenet5", "lenet5_relu", "simple_cnn", "mlp"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid", "scaled_tanh"])
@pytest.mark.parametrize("init", ["lecun", "he", "xavier", "torch"])
def test_every_activation_and_init_trains(name: str, activation: str, init: str) -> None:
    model = build(name, activation=activation, init=init, dropout=0.25).train()
    images, targets = torch.randn(4, 1, 28, 28), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    losses = []
    for _ in range(3):
        torch.manual_seed(0)  # the same units dropped
        loss = F.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenet5", {"activation": "rellu"}, "'rellu'.*'relu'"),
        ("lenet5", {"init": "lecum"}, "'lecum'.*'lecun'"),
        ("lenet5", {"output": "rbff"}, "'rbff'.*'rbf'"),
        ("lenet5", {"connections": "ful"}, "'ful'.*'full'"),
        ("lenet5", {"subsampling": 3}, "subsampling is 3"),
        ("lenet5", {"dropout": 1.0}, "dropout is 1.0"),
        ("lenet5", {"droput": 0.1}, "'droput'.*'dropout'"),
        ("mlp", {"hidden": "12;3"}, "hidden is '12;3'"),
        ("simple_cnn", {"dropout": "much"}, "dropout is 'much'"),
    ],
)
def test_an_impossible_option_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(name, **options)


def test_rbf_output_is_refused_for_other_than_ten_classes() -> None:
    with pytest.raises(UsageError, match=r"ten digits.*37 classes"):
        build("lenet5", natural_spec(1, 28, 28, 37), output="rbf")


def test_bitmaps_are_ten_different_drawings_of_7_by_12() -> None:
    rows = [row.split() for row in BITMAPS.split("\n") if row]
    assert len(rows) == 12 and all(len(row) == 10 and all(len(part) == 7 for part in row) for row in rows)
    assert set(BITMAPS) == set("#. \n")
    bitmaps = BitmapDistance().bitmaps
    assert bitmaps.shape == (10, 84) and bitmaps.abs().eq(1).all()
    apart = torch.cdist(bitmaps, bitmaps, p=0).fill_diagonal_(84)
    assert apart.min() >= 8
    one = bitmaps[1].view(12, 7)
    assert one[:, 3].eq(1).all() and one[11].tolist() == [-1, 1, 1, 1, 1, 1, -1]  # a stem on a foot


def test_nearest_bitmap_has_the_largest_logit() -> None:
    output = BitmapDistance()
    logits = output(output.bitmaps + 0.3 * torch.randn(10, 84, generator=torch.Generator().manual_seed(0)))
    assert logits.argmax(1).tolist() == list(range(10))
    torch.testing.assert_close(output(output.bitmaps).diagonal(), torch.zeros(10))


def test_rbf_bitmaps_are_saved_and_never_trained() -> None:
    model = lenet(output="rbf")
    assert "output.bitmaps" in model.state_dict()
    assert not [name for name, _ in model.named_parameters() if name.startswith("output")]


@pytest.mark.parametrize("options", [{}, {"output": "rbf"}], ids=str)
def test_lenet5_learns_a_few_images_by_heart(options: dict[str, Any]) -> None:
    model = lenet(**options).train()
    images, targets = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()
    assert model(images).argmax(1).eq(targets).all()
