from __future__ import annotations

import pytest
import torch
from torch import nn

from dlkit.config import schema
from dlkit.training import optimizers

NAMES = ["sgd", "adam", "adamw", "adagrad", "rmsprop"]
CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def settings(name: str, **others: object) -> schema.Optimizer:
    return schema.Optimizer.model_validate({"name": name, "lr": 0.05, **others})


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_lowers_the_loss(name: str) -> None:
    model = network()
    optimizer = optimizers.build(model, settings(name), CPU)
    images, targets = torch.randn(64, 4, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 2
    images[:, 0] += targets * 3
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_decay_is_kept_off_biases_and_norms(name: str) -> None:
    model = network()
    optimizer = optimizers.build(model, settings(name, weight_decay=0.1), CPU)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    found = {parameter_name: decay[id(parameter)] for parameter_name, parameter in model.named_parameters()}
    assert found == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "3.weight": 0.1, "3.bias": 0.0,
    }  # fmt: skip
    everything = optimizers.build(model, settings(name, weight_decay=0.1, decay_all=True), CPU)
    assert [group["weight_decay"] for group in everything.param_groups] == [0.1]


@pytest.mark.parametrize("name", NAMES)
def test_the_fused_form_takes_the_same_step_as_the_plain_one(name: str) -> None:
    fused, plain = network(), network()
    ours = optimizers.build(fused, settings(name), CPU)
    theirs = optimizers.build(plain, settings(name), torch.device("meta"))  # no fused kernel for that device
    for model, optimizer in ((fused, ours), (plain, theirs)):
        for _ in range(3):
            model(torch.ones(8, 4)).square().sum().backward()
            optimizer.step()
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
