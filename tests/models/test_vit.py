"""The vision transformer against its paper's equations and against torchvision's with the same weights."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models as torchvisions

from dlkit import registry
from dlkit.errors import DataError, UsageError
from dlkit.evaluation.model_summary import natural_spec
from dlkit.layers.attention import record_attention
from dlkit.layers.drop_path import DropPath
from dlkit.models.vit import VisionTransformer

IMAGENET = natural_spec(3, 224, 224, 1000)
TINY: dict[str, Any] = {"patch_size": 8, "width": 24, "heads": 3, "depth": 2, "mlp_ratio": 2}


def build(name: str, spec: Any, **options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    model = registry.load("models", name).build(spec, **registry.resolved_options("models", name, options))
    assert isinstance(model, VisionTransformer)
    return model.eval()


def tiny(spec: Any, **options: Any) -> VisionTransformer:
    """With every parameter drawn anew, so that none is at a start which hides it."""
    model = build("vit_b_16", spec, **TINY, **options)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    return model


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def patches_and_blocks(width: int, depth: int, positions: int, pixels: int, classes: int) -> int:
    """By the paper's equations: the patches' map, class token, positions, blocks, the last norm, the output."""
    block = 4 * (width * width + width) + 2 * 2 * width + width * 4 * width + 4 * width + 4 * width * width + width
    return pixels * width + width + width + positions * width + depth * block + 2 * width + width * classes + classes


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("vit_b_16", (3, 224, 224, 1000), 86_567_656),
        ("vit_small_16", (3, 224, 224, 1000), 22_050_664),  # DeiT-S's, table 1: 22 M
        ("vit_tiny_16", (3, 224, 224, 1000), 5_717_416),  # DeiT-Ti's: 5 M
        ("vit_tiny_4", (3, 32, 32, 10), patches_and_blocks(192, 12, 65, 48, 10)),
        ("vit_small_4", (3, 32, 32, 10), patches_and_blocks(384, 12, 65, 48, 10)),
        ("vit_mini_4", (1, 28, 28, 10), patches_and_blocks(96, 6, 50, 16, 10)),
    ],
)
def test_parameters_are_as_many_as_published(name: str, size: tuple[int, int, int, int], count: int) -> None:
    with torch.device("meta"):
        assert parameters(build(name, natural_spec(*size))) == count


def test_state_dict_is_torchvisions() -> None:
    with torch.device("meta"):
        ours, theirs = build("vit_b_16", IMAGENET).state_dict(), torchvisions.vit_b_16().state_dict()
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in theirs.items()}


@pytest.mark.parametrize("size", [32, pytest.param(224, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_logits_are_torchvisions_with_the_same_weights(size: int) -> None:
    with torch.device("meta"):  # nobody waits for 86 million numbers to be drawn by their schemes, twice
        ours, theirs = build("vit_b_16", natural_spec(3, size, size, 1000)), torchvisions.vit_b_16(image_size=size)
    ours.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, weight in ours.named_parameters():
        weight.uniform_(-0.05, 0.05, generator=generator).add_("ln" in name and name.endswith("weight"))
    theirs.load_state_dict(ours.state_dict(), assign=True)
    images = torch.randn(2, 3, size, size, generator=generator)
    logits = ours(images)
    torch.testing.assert_close(logits, theirs.eval()(images), rtol=0, atol=1e-4)
    assert logits.std() > 0.1


def test_training_is_torchvisions_with_the_same_weights() -> None:
    ours = tiny(natural_spec(3, 32, 32, 5)).double().train()
    theirs = torchvisions.VisionTransformer(32, 8, 2, 3, 24, 48, num_classes=5).double().train()
    theirs.load_state_dict(ours.state_dict())
    images, targets = torch.randn(4, 3, 32, 32, dtype=torch.double), torch.arange(4)
    for model in (ours, theirs):
        F.cross_entropy(model(images), targets).backward()
    for (name, one), (other_name, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other_name
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("size", [16, 40])
def test_positions_for_another_size_are_torchvisions_interpolation(size: int) -> None:
    trained, wanted = tiny(natural_spec(3, 32, 32, 5)), tiny(natural_spec(3, size, size, 5))
    tensors = trained.state_dict()
    theirs = torchvisions.vision_transformer.interpolate_embeddings(size, 8, OrderedDict(tensors))
    for seen in (None, natural_spec(3, 32, 32, 5)):
        ours = wanted.at_this_size(tensors, seen)
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name])


def test_positions_follow_the_grid_and_not_only_their_count() -> None:
    """What rises to the right still does on a grid turned on its side; a grid of the same size stays to the bit."""
    trained, wide = tiny(natural_spec(3, 64, 16, 5)), tiny(natural_spec(3, 16, 64, 5))
    tensors = trained.state_dict()
    field = torch.tensor([0.0, 1.0]).repeat(8)  # 8 rows of 2 columns
    tensors["encoder.pos_embedding"] = torch.cat([torch.tensor([7.0]), field]).view(1, -1, 1).expand(1, 17, 24)
    assert wide.at_this_size(tensors, None) == tensors  # as many, and no word of another shape
    found = wide.at_this_size(tensors, natural_spec(3, 64, 16, 5))["encoder.pos_embedding"][0, :, 0]
    assert found[0] == 7 and (found[1:].view(2, 8).diff(dim=1) > 0).all()
    kept = trained.at_this_size(tensors, natural_spec(3, 64, 16, 5))
    assert kept["encoder.pos_embedding"] is tensors["encoder.pos_embedding"]


def test_patches_are_cut_row_by_row_and_mapped_alike() -> None:
    """Equation 1 by hand: each patch's pixels in a row times one matrix; rows and columns need not be as many."""
    model, images = tiny(natural_spec(3, 16, 24, 5)), torch.randn(1, 3, 16, 24)
    matrix, bias = model.conv_proj.weight.flatten(1), model.conv_proj.bias
    patches = [images[0, :, y : y + 8, x : x + 8].flatten() for y in (0, 8) for x in (0, 8, 16)]
    states = [model.class_token[0, 0], *(matrix @ patch + bias for patch in patches)]
    expected = torch.stack(states)[None] + model.encoder.pos_embedding
    seen: list[Tensor] = []
    model.encoder.layers.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images)
    assert model.grid == (2, 3)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


def test_an_image_that_patches_do_not_divide_is_centred_in_zeros() -> None:
    odd, even = tiny(natural_spec(1, 11, 24, 5)), tiny(natural_spec(1, 16, 24, 5))
    even.load_state_dict(odd.state_dict())
    images = torch.randn(2, 1, 11, 24)
    torch.testing.assert_close(odd(images), even(F.pad(images, (0, 0, 2, 3))))
    assert odd.notes[-1] == "images are centred in 16×24 pixels, zeros around them" and len(even.notes) == 1


def test_order_of_patches_matters_only_by_their_positions() -> None:
    model, images = tiny(natural_spec(1, 16, 16, 5)), torch.randn(2, 1, 16, 16)
    swapped = torch.cat([images[:, :, 8:], images[:, :, :8]], 2)
    assert not torch.allclose(model(images), model(swapped), atol=1e-3)
    with torch.no_grad():
        model.encoder.pos_embedding.zero_()
    torch.testing.assert_close(model(images), model(swapped), rtol=1e-4, atol=1e-4)


def test_attention_of_every_block_can_be_looked_at() -> None:
    model, images = tiny(natural_spec(3, 16, 24, 5)), torch.randn(2, 3, 16, 24)
    expected = model(images)
    with record_attention(model) as layers:
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
        assert [layer.weights.shape for layer in layers if layer.weights is not None] == [(2, 3, 7, 7)] * 2
    assert model.feature_map is None


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
def test_the_activation_is_the_one_asked_for(activation: str) -> None:
    model = tiny(natural_spec(1, 16, 16, 5), activation=activation)
    assert [type(module).__name__.lower() for name, module in model.named_modules() if name.endswith("mlp.1")] == [
        activation
    ] * 2


def test_dropout_options_stand_where_they_say() -> None:
    model = tiny(natural_spec(1, 16, 16, 5), dropout=0.1, attention_dropout=0.2, drop_path=0.3)
    assert sum(isinstance(module, nn.Dropout) for module in model.modules()) == 1 + 2 * 3
    with record_attention(model) as layers:
        assert [layer.dropout for layer in layers] == [0.2, 0.2]
    rates = [module.probability for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.15, 0.3])
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(model(images), model(images))
    assert not torch.equal(model.train()(images), model(images))


def test_the_start_is_the_papers() -> None:
    model = build("vit_tiny_4", natural_spec(3, 32, 32, 10))
    block = model.encoder.layers[0]
    assert model.conv_proj.weight.std().item() == pytest.approx(1 / 48**0.5, rel=0.05)
    assert block.mlp[0].weight.std().item() == pytest.approx((2 / (192 + 768)) ** 0.5, rel=0.02)  # type: ignore[union-attr,index]
    assert model.heads.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not any(layer.bias.any() for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "gellu"}, "'gellu'.*'gelu'"),
        ({"init": "vitt"}, "'vitt'.*'vit'"),
        ({"heads": 5}, "heads is 5, which does not divide width=768"),
        ({"width": 0}, "width is 0"),
        ({"depth": 1.5}, "depth is 1.5"),
        ({"patch_size": "4"}, "patch_size is '4'"),
        ({"mlp_ratio": True}, "mlp_ratio is True"),
        ({"dropout": 1}, "option dropout is 1"),
        ({"attention_dropout": -1}, "attention_dropout is -1"),
        ({"drop_path": 2}, "drop_path is 2"),
        ({"patchsize": 4}, "'patchsize'.*'patch_size'"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message), torch.device("meta"):
        build("vit_b_16", IMAGENET, **options)


def test_an_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(DataError, match=r"14×28 pixels.*each side must have 16 or more.*patch_size"):
        build("vit_tiny_16", natural_spec(1, 14, 28, 10))
