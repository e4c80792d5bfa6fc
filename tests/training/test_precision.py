"""Which memory format a network trains in, by device and by the size of what it convolves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import dlkit
from dlkit.data.batches import Batch
from dlkit.evaluation.model_summary import natural_spec
from dlkit.training import loop, precision
from dlkit.training.precision import LARGE_MAP, MANY_MAPS, trains_channels_last

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


@pytest.mark.parametrize("large", [False, True])
def test_a_run_trains_in_the_format_that_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:  # every map is
        monkeypatch.setattr(precision, "MANY_MAPS", 1)
        monkeypatch.setattr(precision, "LARGE_MAP", 1)
    seen, step = [], loop.train_step

    def looked_at(run: loop.Run, batch: Batch, asked: int = 0) -> bool:
        weights = next(weight for weight in run.model.parameters() if weight.ndim == 4)
        seen.append((weights.is_contiguous(), batch.inputs.is_contiguous()))
        return step(run, batch, asked)

    monkeypatch.setattr(loop, "train_step", looked_at)
    settings = {"data.options.train": 40, "data.options.test": 8, "train.batch_size": 18, "train.threads": 1}
    dlkit.train(
        "simple_cnn", dataset="shapes", epochs=1, settings={**settings, "train.device": "cpu"}, runs_dir=tmp_path
    )
    assert seen == [(large, large)] * 2


@pytest.mark.parametrize("training", [True, False])
def test_being_asked_changes_nothing(training: bool) -> None:
    model = network(4).train(training)
    before, state = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    trains_channels_last(model, natural_spec(3, 8, 8, 10), CPU, None)
    assert model.training is training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
