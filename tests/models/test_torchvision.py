"""Every network that torchvision has too: the same keys and, with the same weights, the same logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models as torchvisions

from dlkit import registry
from dlkit.evaluation.model_summary import natural_spec, summarize

# what torchvision calls alexnet is the second of the name
CALLED = {name: name for name in sorted(registry.entries("models")) if hasattr(torchvisions, name)}
CALLED = {**CALLED, "alexnet_owt": "alexnet"}
del CALLED["alexnet"]

# quick enough for the fast tests at 64 pixels; the others are compared at 224, as all are
QUICK = ("alexnet_owt", "resnet18", "resnet34", "resnet50", "vgg11")


def test_the_sweep_has_every_family() -> None:
    families = {registry.entry("models", name).family for name in CALLED}
    assert {"alexnet", "vgg", "resnet", "densenet"} <= families and len(CALLED) >= 18 and set(QUICK) <= set(CALLED)


def build(name: str, size: tuple[int, int]) -> nn.Module:
    torch.manual_seed(0)
    options = registry.resolved_options("models", name, {})
    model = registry.load("models", name).build(natural_spec(3, *size, 1000), **options)
    assert isinstance(model, nn.Module)
    return live(model).eval()


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


@pytest.mark.parametrize("name", CALLED)
def test_keys_and_shapes_are_torchvisions(name: str) -> None:
    options = registry.resolved_options("models", name, {})
    with torch.device("meta"):
        ours = registry.load("models", name).build(natural_spec(3, 224, 224, 1000), **options).state_dict()
        theirs = getattr(torchvisions, CALLED[name])().state_dict()
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in theirs.items()}


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, (72, 90)) for name in QUICK]
    + [pytest.param(name, (224, 224), marks=pytest.mark.slow, id=f"{name}-224") for name in CALLED],
)
def test_logits_are_torchvisions_with_the_same_weights(name: str, size: tuple[int, int]) -> None:
    ours = build(name, size)
    with torch.device("meta"):
        theirs = getattr(torchvisions, CALLED[name])().eval()
    theirs.load_state_dict(ours.state_dict(), assign=True)  # one copy of the weights in memory
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        logits = ours(images)
        torch.testing.assert_close(logits, theirs(images), rtol=0, atol=1e-4)
    assert logits.std() > 1e-3  # something comes out


@pytest.mark.slow
def test_published_numbers_are_those_of_the_networks() -> None:
    """Parameters as torchvision publishes them, and multiply-adds, in billions, with its weights."""
    for name, called in CALLED.items():
        published = torchvisions.get_model_weights(called).DEFAULT.meta  # type: ignore[attr-defined]
        summary = summarize(name)
        assert summary.parameters == published["num_params"]
        assert summary.macs / 1e9 == pytest.approx(published["_ops"], rel=0.1)  # DenseNet pools early and has fewer
