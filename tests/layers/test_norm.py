"""The normalizations against torch's and against their formulas by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.errors import UsageError
from dlkit.layers.batch_norm import BatchNorm2d
from dlkit.layers.local_response_norm import LocalResponseNorm
from dlkit.layers.norm import NORMS, norm


def maps(channels: int = 6, size: int = 5, *, dtype: torch.dtype = torch.double) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(3, channels, size, size + 1, generator=generator, dtype=dtype) * 3 + 1).requires_grad_()


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("n", "k", "alpha", "beta"), [(5, 2.0, 1e-4, 0.75), (5, 2.0, 0.3, 0.75), (3, 1.0, 0.5, 0.6), (1, 1.0, 0.2, 1.0)]
)
def test_response_normalization_is_torchs_whose_alpha_is_n_times_as_large(
    n: int, k: float, alpha: float, beta: float, format: torch.memory_format
) -> None:
    ours, theirs = LocalResponseNorm(n, k, alpha, beta), nn.LocalResponseNorm(n, n * alpha, beta, k)
    x = maps().detach().contiguous(memory_format=format).requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x))
    upstream = torch.randn_like(x)
    gradients = [torch.autograd.grad(layer(x), x, upstream)[0] for layer in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("channels", [1, 3, 4, 9])
def test_response_normalization_is_the_papers_formula(channels: int) -> None:
    x = maps(channels)
    expected = torch.empty_like(x)
    for i in range(channels):
        neighbours = x[:, max(0, i - 2) : min(channels - 1, i + 2) + 1]
        expected[:, i] = x[:, i] / (2 + 1e-4 * neighbours.square().sum(1)) ** 0.75
    torch.testing.assert_close(LocalResponseNorm()(x), expected)


def test_response_normalization_keeps_the_type_and_does_not_overflow_in_half_precision() -> None:
    x = maps(8, dtype=torch.float).detach() * 100  # squares above 65,504
    y = LocalResponseNorm()(x.half())
    assert y.dtype == torch.half
    torch.testing.assert_close(y.float(), LocalResponseNorm()(x), rtol=5e-3, atol=1e-2)


def test_batch_normalization_is_torchs_step_by_step() -> None:
    ours, theirs = BatchNorm2d(6).double(), nn.BatchNorm2d(6).double()
    with torch.no_grad():
        ours.weight.normal_()
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = maps()
    for _ in range(3):
        gradients = []
        for layer in (ours.train(), theirs.train()):
            layer.zero_grad()
            loss = (layer(x) * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum()
            gradients.append([torch.autograd.grad(loss, [x, layer.weight, layer.bias])])
        torch.testing.assert_close(*gradients)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_batch_normalization_is_the_papers_formula() -> None:
    x, layer = maps().detach(), BatchNorm2d(6).double()
    for channel in range(6):
        values = x[:, channel].flatten().tolist()
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        expected = (x[:, channel] - mean) / (variance + 1e-5) ** 0.5
        torch.testing.assert_close(layer(x)[:, channel], expected)


@pytest.mark.parametrize(("channels", "groups"), [(16, 1), (64, 4), (24, 3), (12, 3), (3, 3)])
def test_group_normalization_takes_groups_of_16_or_of_what_divides(channels: int, groups: int) -> None:
    layer = norm("group", channels)
    assert isinstance(layer, nn.GroupNorm) and layer.num_groups == groups
    x = torch.randn(2, channels, 4, 4)
    torch.testing.assert_close(layer(x), F.group_norm(x, groups))


def test_norms_are_named() -> None:
    assert [type(norm(name, 4)) for name in NORMS] == [nn.BatchNorm2d, nn.Identity, nn.GroupNorm]
    with pytest.raises(UsageError, match=r"norm is 'bach'.*'batch'"):
        norm("bach", 4)
