"""The shared blocks, against loops and formulas by hand."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.layers.activation import ACTIVATIONS, activation
from dlkit.layers.conv_pool import LANES, conv_max_pool
from dlkit.layers.dropout import dropout
from dlkit.layers.init import GAINS, SCHEMES, initialize
from dlkit.layers.options import sizes
from dlkit.layers.partial_conv import PartialConv2d
from dlkit.layers.subsampling import Subsampling

SOURCES = ((0, 2), (1,), (0, 1, 2))


def by_maps(layer: PartialConv2d, x: Tensor, sources: tuple[tuple[int, ...], ...]) -> Tensor:
    """The same convolution, one output map and one kernel at a time."""
    kernels = iter(layer.weight)
    maps = []
    for out, ins in enumerate(sources):
        total = sum(F.conv2d(x[:, i : i + 1], next(kernels)[None, None]) for i in ins)
        maps.append(total + layer.bias[out])
    return torch.cat(maps, 1)


def test_partial_convolution_is_a_sum_over_its_connections() -> None:
    torch.manual_seed(0)
    layer, x = PartialConv2d(3, SOURCES, 5), torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(layer(x), by_maps(layer, x, SOURCES))


def test_partial_convolution_has_gradients_of_its_connections() -> None:
    torch.manual_seed(0)
    layer, x = PartialConv2d(3, SOURCES, 3).double(), torch.randn(2, 3, 6, 6, dtype=torch.double)
    upstream = torch.randn(2, 3, 4, 4, dtype=torch.double)
    ours = torch.autograd.grad(layer(x), list(layer.parameters()), upstream)
    hand = torch.autograd.grad(by_maps(layer, x, SOURCES), list(layer.parameters()), upstream)
    for one, other in zip(ours, hand, strict=True):
        torch.testing.assert_close(one, other)


def test_partial_convolution_does_not_see_what_it_is_not_connected_to() -> None:
    layer, x = PartialConv2d(3, SOURCES, 3), torch.randn(1, 3, 5, 5)
    changed = x.clone()
    changed[:, 2] += 1  # map 1 sees only input 1
    assert torch.equal(layer(x)[:, 1], layer(changed)[:, 1])
    assert not torch.equal(layer(x)[:, 0], layer(changed)[:, 0])


def test_fans_of_a_partial_convolution_are_counted_a_unit() -> None:
    layer = PartialConv2d(3, SOURCES, 5)
    assert layer.unit_fan_in.tolist() == [50, 25, 75]
    assert layer.fan_in.flatten().tolist() == [50, 50, 25, 75, 75, 75]
    assert layer.fan_out.flatten().tolist() == [50, 50, 50, 50, 50, 50]  # each input feeds two maps


@pytest.mark.parametrize("size", [(4, 4), (5, 6), (7, 7)])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_subsampling_is_the_formula(size: tuple[int, int], format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer, x = Subsampling(3), torch.randn(2, 3, *size).contiguous(memory_format=format)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    expected = 4 * F.avg_pool2d(x, 2) * layer.weight[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected)


def test_subsampling_starts_as_the_average() -> None:
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(Subsampling(3)(x), F.avg_pool2d(x, 2))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("channels", "maps"), [(1, 6), (6, 16), (3, 8)])
def test_a_convolution_filled_up_to_full_vectors_is_the_same_with_its_pool(
    channels: int, maps: int, bias: bool
) -> None:
    layer = nn.Conv2d(channels, maps, 5, bias=bias).double()
    filled = torch.randn(3, channels + 2, 13, 12, dtype=torch.double)  # more than the convolution looks at
    filled[:, :, :, 6:] = 0.5  # equal neighbours: which one the maximum came from matters to the gradient
    images, more = (filled.clone().requires_grad_() for _ in range(2))
    expected = F.max_pool2d(layer(images[:, :channels]), 2)
    found = conv_max_pool(more, layer)
    assert found.shape[1] == -(-maps // LANES) * LANES and not found[:, maps:].any()
    torch.testing.assert_close(found[:, :maps], expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(found)
    theirs = torch.autograd.grad((expected * weights[:, :maps]).sum(), [images, *layer.parameters()])
    ours = torch.autograd.grad((found * weights).sum(), [more, *layer.parameters()])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_scaled_tanh_is_the_papers() -> None:
    a = torch.linspace(-100, 100, 20_001, dtype=torch.double, requires_grad=True)
    b = a.detach().clone().requires_grad_()
    ours, paper = activation("scaled_tanh")(a), 1.7159 * torch.tanh(2 * b / 3)
    torch.testing.assert_close(ours, paper, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(ours.sum(), a)[0], torch.autograd.grad(paper.sum(), b)[0]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_rises(name: str) -> None:
    y = activation(name)(torch.linspace(-5, 5, 101))
    assert (y.diff() >= 0).all() and y[-1] > y[0]  # the models swap activation and max pool


def test_every_activation_has_a_gain() -> None:
    assert GAINS.keys() == ACTIVATIONS.keys()


def test_gains_keep_those_of_torch() -> None:
    assert GAINS["relu"] == pytest.approx(nn.init.calculate_gain("relu"))
    assert GAINS["tanh"] == pytest.approx(nn.init.calculate_gain("tanh"))
    assert GAINS["leaky_relu"] == pytest.approx(nn.init.calculate_gain("leaky_relu", 0.01))


def test_a_misspelt_name_gets_the_right_one() -> None:
    with pytest.raises(UsageError, match=r"'rellu'.*'relu'"):
        activation("rellu")
    with pytest.raises(UsageError, match=r"'xaver'.*'xavier'"):
        initialize(nn.Linear(2, 2), "xaver")


def layers() -> list[nn.Conv2d | nn.Linear | PartialConv2d]:
    sources = [tuple(range(8))] * 40 + [tuple(range(32))] * 40
    return [nn.Linear(300, 200), nn.Conv2d(32, 64, 5), nn.Conv2d(32, 64, 5, groups=4), PartialConv2d(32, sources, 5)]


@pytest.mark.parametrize("index", range(4))
@torch.no_grad()
def test_lecun_draws_uniformly_by_fan_in(index: int) -> None:
    torch.manual_seed(0)
    layer = layers()[index]
    initialize(layer, "lecun")
    if isinstance(layer, PartialConv2d):
        scaled = layer.weight * layer.fan_in
        assert (layer.bias * layer.unit_fan_in).abs().max() <= 2.4 * (1 + 1e-6)
    else:
        scaled = layer.weight * layer.weight[0].numel()
        assert layer.bias is not None and layer.bias.abs().max() <= 2.4 / layer.weight[0].numel()
    assert layer.bias.any()
    assert scaled.abs().max() == pytest.approx(2.4, rel=0.01) and scaled.std() == pytest.approx(2.4 / sqrt(3), rel=0.02)


@pytest.mark.parametrize("index", range(4))
@torch.no_grad()
def test_he_draws_normally_by_fan_in_and_gain(index: int) -> None:
    torch.manual_seed(0)
    layer = layers()[index]
    initialize(nn.Sequential(layer, nn.Linear(1, 1)), "he", "tanh")  # the last layer has no activation behind it
    fan_in = layer.fan_in if isinstance(layer, PartialConv2d) else torch.tensor(layer.weight[0].numel())
    assert (layer.weight * fan_in.sqrt()).std() == pytest.approx(5 / 3, rel=0.02)
    assert layer.bias is not None and not layer.bias.any()


@torch.no_grad()
def test_xavier_and_he_draw_what_torch_draws() -> None:
    ours, torchs = nn.Conv2d(8, 16, 3), nn.Conv2d(8, 16, 3)
    for scheme, draw in (("xavier", nn.init.xavier_uniform_), ("he", nn.init.kaiming_normal_)):
        torch.manual_seed(3)
        initialize(nn.Sequential(ours, nn.Linear(1, 1)), scheme, "relu")
        bound = draw(torchs.weight, sqrt(2)) if scheme == "xavier" else draw(torchs.weight)
        assert ours.weight.std() == pytest.approx(bound.std().item(), rel=0.1)
        assert ours.weight.abs().max() == pytest.approx(bound.abs().max().item(), rel=0.25)


@torch.no_grad()
def test_the_last_layer_is_drawn_without_gain() -> None:
    last = nn.Linear(400, 200)
    torch.manual_seed(0)
    initialize(nn.Sequential(nn.Linear(4, 4), last), "he", "relu")
    assert last.weight.std() == pytest.approx(1 / sqrt(400), rel=0.02)


def test_torch_leaves_the_weights() -> None:
    layer = nn.Linear(4, 4)
    before = layer.weight.clone()
    initialize(layer, "torch")
    assert torch.equal(layer.weight, before)
    assert "torch" in SCHEMES


def test_dropout_drops_while_training_only() -> None:
    layer = dropout(0.5)
    torch.manual_seed(0)
    assert 0.4 < (layer(torch.ones(10_000)) == 0).float().mean() < 0.6
    assert torch.equal(layer.eval()(torch.ones(9)), torch.ones(9))
    assert isinstance(dropout(0.0), nn.Identity)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, "0.5", True, None, float("nan")])
def test_an_impossible_dropout_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="dropout"):
        dropout(value)


def test_sizes_are_read_from_text_and_numbers() -> None:
    assert sizes("hidden", "512, 256") == (512, 256)
    assert sizes("hidden", 64) == (64,)
    assert sizes("hidden", "") == ()


@pytest.mark.parametrize("value", ["512,", "a", "0", -1, 1.5, True, None, "9999999999", "²"])
def test_impossible_sizes_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="hidden"):
        sizes("hidden", value)
