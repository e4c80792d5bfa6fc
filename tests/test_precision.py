"""Which memory format a network trains in, by device and by the size of what it convolves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlkit.engine.precision import LARGE_MAP, MANY_MAPS, trains_channels_last
from dlkit.verbs.summary import natural_spec

CPU, CUDA, SIDE = torch.device("cpu"), torch.device("cuda"), int(LARGE_MAP**0.5)


def network(maps: int) -> nn.Module:
    """The second convolution sees `maps` maps of the images' size."""
    return nn.Sequential(nn.Conv2d(3, maps, 1), nn.Dropout(0.5), nn.BatchNorm2d(maps), nn.Conv2d(maps, 1, 1))


@pytest.mark.parametrize(
    ("maps", "side", "side_by_side"),
    [(MANY_MAPS, SIDE, True), (MANY_MAPS, SIDE + 1, False), (MANY_MAPS - 1, SIDE + 1, True)],
)
def test_a_cpu_trains_channels_last_but_for_large_maps(maps: int, side: int, side_by_side: bool) -> None:
    spec = natural_spec(3, side, side, 10)
    assert trains_channels_last(network(maps), spec, CPU, None) is side_by_side
    assert trains_channels_last(network(maps), spec, CUDA, torch.float16)
    assert not trains_channels_last(network(maps), spec, CUDA, None)


def test_a_network_without_convolutions_stays_as_it_is() -> None:
    assert not trains_channels_last(nn.Flatten(), natural_spec(3, 8, 8, 10), CPU, None)


@pytest.mark.parametrize("training", [True, False])
def test_being_asked_changes_nothing(training: bool) -> None:
    model = network(4).train(training)
    before, state = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    trains_channels_last(model, natural_spec(3, 8, 8, 10), CPU, None)
    assert model.training is training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
