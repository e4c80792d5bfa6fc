"""Explanation methods: maps follow their papers' formulas and identify the decisive pixels."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from patches import CLASSES, OPTIONS, PATCH, SIDE, TRAINING, Training, build, learned, maps_of, patches, shares_in_patch
from torch import Tensor, nn

from dlkit import registry
from dlkit.errors import UsageError
from dlkit.explanation import faithfulness
from dlkit.explanation.methods import _layers
from dlkit.layers.attention import record_attention

METHODS = sorted(registry.entries("explainers"))

# the smallest member of every family with maps in space, and options that make it smaller
CNNS: dict[str, dict[str, Any]] = {
    "simple_cnn": {},
    "lenet5": {},
    "lenet5_relu": {},
    "alexnet": OPTIONS["alexnet"],
    "vgg11": {},
    "resnet20": {"blocks": "1,1,1"},
    "densenet40": {"blocks": "2,2,2"},
}


def small_one(name: str, **options: Any) -> nn.Module:
    return build(name, {**CNNS.get(name, {}), **options}, classes=4)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def small() -> dict[str, nn.Module]:
    return {"attention_rollout": small_one("vit_mini_4", depth=2), "": small_one("lenet5_relu")}


class Linear(nn.Module):
    """Logits linear in the pixels."""

    def __init__(self, channels: int = 3, side: int = 8) -> None:
        super().__init__()
        self.output = nn.Linear(channels * side * side, CLASSES)
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(images.flatten(1))
        return logits

    def weights(self, target: int) -> Tensor:
        return self.output.weight[target].detach().view(-1, self.side, self.side)


class TinyCNN(nn.Module):
    """One convolution, a ReLU in place, the average of each map, a linear output."""

    feature_map = "relu"

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.output = nn.Linear(5, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(self.relu(self.conv(images)).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def linear() -> Linear:
    torch.manual_seed(4)
    return Linear().eval()


@pytest.fixture(scope="module")
def tiny() -> TinyCNN:
    torch.manual_seed(5)
    return TinyCNN().eval()


@pytest.fixture(scope="module")
def little() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(6))


TARGETS = torch.tensor([2, 0])


def test_the_registry_lists_every_method_with_its_paper() -> None:
    assert METHODS == [
        "attention_rollout", "grad_cam", "grad_cam_pp", "guided_backprop", "integrated_gradients", "occlusion",
        "saliency", "shap", "smoothgrad",
    ]  # fmt: skip
    for method in METHODS:
        entry = registry.entry("explainers", method)
        assert any(f" {year} (" in entry.document for year in range(2010, 2030)), method
        maker = registry.load("explainers", method).explain
        assert (maker.__kwdefaults__ or {}) == dict(entry.options)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_finite_repeat_and_do_not_depend_on_the_batch(
    method: str, small: dict[str, nn.Module], images: Tensor
) -> None:
    model, targets = small.get(method, small[""]), torch.tensor([0, 1, 2])
    before, weights = images.clone(), {key: value.clone() for key, value in model.state_dict().items()}
    maps = maps_of(method, model, images, targets)
    assert maps.shape == (3, SIDE, SIDE) and maps.isfinite().all() and maps.dtype == torch.float32
    assert all(map.max() > map.min() for map in maps)
    assert torch.equal(maps_of(method, model, images, targets), maps)
    alone = torch.cat([maps_of(method, model, images[n : n + 1], targets[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(alone, maps, rtol=1e-3, atol=1e-5)
    # and the network is left as it was
    assert torch.equal(images, before) and not model.training
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("method", METHODS)
def test_another_class_gives_another_map_unless_the_method_is_class_agnostic(
    method: str, small: dict[str, nn.Module], images: Tensor
) -> None:
    model = small.get(method, small[""])
    one, other = (maps_of(method, model, images, torch.full((3,), target)) for target in (0, 1))
    assert torch.equal(one, other) == getattr(registry.load("explainers", method), "CLASS_AGNOSTIC", False)


def test_of_a_linear_model_gradients_are_its_weights(linear: Linear, little: Tensor) -> None:
    expected = torch.stack([linear.weights(target).abs().amax(0) for target in TARGETS.tolist()])
    torch.testing.assert_close(maps_of("saliency", linear, little, TARGETS), expected)
    torch.testing.assert_close(maps_of("smoothgrad", linear, little, TARGETS), expected)


def test_of_a_linear_model_integrated_gradients_are_weight_times_pixel(linear: Linear, little: Tensor) -> None:
    expected = torch.stack(
        [(linear.weights(target) * image).sum(0) for image, target in zip(little, TARGETS.tolist(), strict=True)]
    )
    maps = maps_of("integrated_gradients", linear, little, TARGETS)
    torch.testing.assert_close(maps, expected)
    difference = (linear(little) - linear(torch.zeros_like(little))).gather(1, TARGETS[:, None])[:, 0]
    torch.testing.assert_close(maps.sum((1, 2)), difference)


def test_of_a_linear_model_shap_is_weight_times_distance_from_the_mean_baseline(linear: Linear, little: Tensor) -> None:
    maps = maps_of("shap", linear, little, TARGETS, samples=4096)
    for map, image, target in zip(maps, little, TARGETS.tolist(), strict=True):
        offset = map - (linear.weights(target) * image).sum(0)  # the mean baseline is 0
        assert offset.abs().max() < 0.1 * map.abs().max()


@pytest.mark.parametrize("name", ["lenet5_relu", "resnet20"])
def test_integrated_gradients_are_complete(name: str, images: Tensor) -> None:
    model, targets = small_one(name), torch.tensor([0, 1, 2])
    maps = maps_of("integrated_gradients", model, images, targets)
    with torch.no_grad():
        difference = (model(images) - model(torch.zeros_like(images))).gather(1, targets[:, None])[:, 0]
    assert ((maps.sum((1, 2)) - difference) / difference).abs().max() <= 0.01


def test_integrated_gradients_refine_their_steps_until_they_are_complete(tiny: TinyCNN, little: Tensor) -> None:
    """The finer sum reuses the points of the coarser one."""
    coarse = maps_of("integrated_gradients", tiny, little, TARGETS, steps=9, most=9)
    refined = maps_of("integrated_gradients", tiny, little, TARGETS, steps=3, tolerance=0.0, most=9)
    torch.testing.assert_close(refined, coarse, rtol=1e-4, atol=1e-6)


def test_grad_cam_is_the_sum_of_maps_by_their_mean_gradient(tiny: TinyCNN, little: Tensor) -> None:
    maps = tiny.conv(little).relu().detach()  # (N, 5, 8, 8); each logit's gradient by a map is weight / 64, everywhere
    expected = torch.einsum("nk,nkhw->nhw", tiny.output.weight.detach()[TARGETS] / 64, maps).relu()
    torch.testing.assert_close(maps_of("grad_cam", tiny, little, TARGETS), as_drawn(expected))


def test_grad_cam_pp_is_its_papers_formula(tiny: TinyCNN, little: Tensor) -> None:
    maps = tiny.conv(little).relu().detach()
    expected = torch.zeros(2, 8, 8)
    for n, target in enumerate(TARGETS.tolist()):
        for k in range(5):
            g = float(tiny.output.weight.detach()[target, k]) / 64
            alpha = g**2 / (2 * g**2 + g**3 * float(maps[n, k].sum()))
            expected[n] += 64 * alpha * max(g, 0.0) * maps[n, k]
    torch.testing.assert_close(
        maps_of("grad_cam_pp", tiny, little, TARGETS), as_drawn(expected.relu()), rtol=1e-4, atol=1e-6
    )


def as_drawn(maps: Tensor) -> Tensor:
    """The upsampled form of maps that have a cell for each pixel."""
    return _layers.upsample(maps, _layers.CellAxis(0.0, 1.0), _layers.CellAxis(0.0, 1.0), *maps.shape[1:])


def test_guided_backprop_passes_positive_values_only_in_both_directions(tiny: TinyCNN, little: Tensor) -> None:
    before = tiny.conv(little).detach()
    gradient = (tiny.output.weight.detach()[TARGETS] / 64)[..., None, None].clamp(min=0) * (before > 0)
    expected = F.conv_transpose2d(gradient, tiny.conv.weight.detach(), padding=1).sum(1)
    torch.testing.assert_close(maps_of("guided_backprop", tiny, little, TARGETS), expected)


def test_guided_backprop_is_the_same_for_in_place_relus(images: Tensor) -> None:
    model, targets = small_one("densenet40"), torch.tensor([0, 1, 2])
    rectifiers = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert any(module.inplace for module in rectifiers)
    expected = maps_of("guided_backprop", model, images, targets)
    for module in rectifiers:
        module.inplace = False
    torch.testing.assert_close(maps_of("guided_backprop", model, images, targets), expected)


def test_the_output_of_a_layer_before_an_in_place_relu_is_recorded_unchanged(tiny: TinyCNN, little: Tensor) -> None:
    with torch.no_grad(), _layers.record_maps(tiny, "conv") as kept:
        tiny(little)
        assert torch.equal(kept[0], tiny.conv(little)) and bool((kept[0] < 0).any())


def test_occlusion_is_a_loop_over_squares(tiny: TinyCNN, little: Tensor) -> None:
    window, stride = 3, 2
    maps = maps_of("occlusion", tiny, little, TARGETS, window=window, stride=stride)
    for map, image, target in zip(maps, little, TARGETS.tolist(), strict=True):
        total, covers = torch.zeros(8, 8), torch.zeros(8, 8)
        for top in (-2, 0, 2, 4, 6):
            for left in (-2, 0, 2, 4, 6):
                rows, columns = slice(max(0, top), top + window), slice(max(0, left), left + window)
                covered = image.clone()
                covered[:, rows, columns] = 0
                with torch.no_grad():
                    fall = tiny(image[None])[0, target] - tiny(covered[None])[0, target]
                total[rows, columns] += fall
                covers[rows, columns] += 1
        torch.testing.assert_close(map, total / covers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top", [0, 1, 5, 11, 12])
@pytest.mark.parametrize("left", [0, 1, 5, 11, 12])
def test_occlusion_finds_decisive_pixels_at_the_border_too(top: int, left: int) -> None:
    """A pixel at the edge is covered as often as others, and not only by squares that cover its neighbors."""
    model, decides = Linear(3, 20), torch.zeros(3, 20, 20)
    decides[:, top : top + PATCH, left : left + PATCH] = 1
    with torch.no_grad():
        model.output.weight.zero_()[1] = decides.flatten()
    (map,) = maps_of("occlusion", model, torch.ones(1, 3, 20, 20), torch.tensor([1]), window=PATCH, stride=2)
    row, column = divmod(int(map.argmax()), 20)
    assert top <= row < top + PATCH and left <= column < left + PATCH


def test_attention_rollout_multiplies_the_layers_attention(small: dict[str, nn.Module], images: Tensor) -> None:
    model = small["attention_rollout"]
    with torch.no_grad(), record_attention(model) as kept:
        model(images)
        joint = torch.eye(65).expand(3, 65, 65)
        for layer in kept:
            assert layer.weights is not None
            joint = (0.5 * layer.weights.mean(1) + 0.5 * torch.eye(65)) @ joint
    torch.testing.assert_close(joint.sum(2), torch.ones(3, 65))
    maps = maps_of("attention_rollout", model, images, torch.zeros(3).long())
    torch.testing.assert_close(maps, _layers.upsample_evenly(joint[:, 0, 1:].view(3, 8, 8), SIDE, SIDE))


@pytest.mark.filterwarnings("ignore")  # captum's own
def test_captum_gives_the_same_maps(images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    model, targets = small_one("lenet5_relu"), torch.tensor([0, 1, 2])
    unshared = unshared_relus(model)
    given = images.clone().requires_grad_()
    expected = {
        "saliency": attr.Saliency(model).attribute(given, targets).amax(1),
        "integrated_gradients": attr.IntegratedGradients(model).attribute(
            given, target=targets, n_steps=500, method="riemann_middle"
        ).sum(1),
        "guided_backprop": attr.GuidedBackprop(unshared).attribute(given, targets).sum(1),
    }  # fmt: skip
    cam = attr.LayerGradCam(model, model.c3).attribute(given, targets, relu_attributions=True)
    places = _layers.locate_cells(model, images, "c3")
    expected["grad_cam"] = _layers.upsample(cam[:, 0].detach(), *places, SIDE, SIDE)
    for method, maps in expected.items():
        found = maps_of(method, model, images, targets)
        torch.testing.assert_close(found, maps.detach(), rtol=0.02, atol=0.01 * float(found.abs().max()))


def unshared_relus(model: nn.Module) -> nn.Module:
    """lenet5_relu as a chain with a separate ReLU at each position, as captum's hooks need it."""
    c1, c3, c5, f6, output = (model.get_submodule(name) for name in ("c1", "c3", "c5", "f6", "output"))
    return nn.Sequential(
        c1, nn.MaxPool2d(2), nn.ReLU(), c3, nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), c5, nn.ReLU(), f6, nn.ReLU(), output,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5_relu"])
def test_cells_are_located_at_the_center_of_their_receptive_field(name: str) -> None:
    """A 5×5 convolution and 2×2 pooling: the receptive field of C3's first cell is pixels 0 to 13."""
    model = small_one(name)
    first, stride = {"simple_cnn": (1.5, 2.0), "lenet5_relu": (6.5, 2.0)}[name]
    path = _layers.select_layer(model, torch.zeros(1, 3, SIDE, SIDE), None)
    for places in _layers.locate_cells(model, torch.zeros(1, 3, SIDE, SIDE), path):
        assert (places.first, places.stride) == (first, stride)


def test_pixels_are_means_of_the_cells_around_them() -> None:
    """By hand: Gaussian weights; the outermost cells continue beyond the border, with reduced weight there."""
    maps, (rows, columns) = torch.rand(1, 3, 4), (_layers.CellAxis(5.0, 4.0), _layers.CellAxis(2.5, 3.0))
    drawn = _layers.upsample(maps, rows, columns, 16, 14)

    def weights(places: _layers.CellAxis, pixel: int, cells: int) -> dict[int, float]:
        at = (pixel - places.first) / places.stride
        inside = min(max(at, 0), cells - 1)
        found = {cell: math.exp(-((inside - cell) ** 2) / 2) for cell in range(-9, cells + 9)}
        return {cell: value / sum(found.values()) * (1 - abs(at - inside) / 4) for cell, value in found.items()}

    for y, x in ((0, 0), (7, 5), (15, 13), (3, 9)):
        expected = sum(
            float(maps[0, min(max(i, 0), 2), min(max(j, 0), 3)]) * down * across
            for i, down in weights(rows, y, 3).items()
            for j, across in weights(columns, x, 4).items()
        )
        assert float(drawn[0, y, x]) == pytest.approx(expected, rel=1e-3)


def test_the_peak_of_two_equal_cells_lies_between_them() -> None:
    places, maps = _layers.CellAxis(1.5, 4.0), torch.zeros(1, 8, 8)
    maps[0, 3, 4:6] = 1
    drawn = _layers.upsample(maps, places, places, 32, 32)[0]
    assert divmod(int(drawn.argmax()), 32) in {(row, column) for row in (13, 14) for column in (19, 20)}


def test_finer_maps_replace_those_coarser_than_7() -> None:
    model = small_one("vgg11")
    found = _layers.spatial_layers(model, torch.zeros(1, 3, SIDE, SIDE))
    assert found[str(model.feature_map)][1:] == (2, 2)
    assert found[_layers.select_layer(model, torch.zeros(1, 3, SIDE, SIDE), None)][1:] == (8, 8)


def test_every_family_with_feature_maps_is_tested() -> None:
    with_maps = {"simple_cnn", "lenet5", "alexnet", "vgg", "resnet", "densenet"}
    assert {registry.entry("models", name).family for name in CNNS} == with_maps


@pytest.mark.parametrize("name", CNNS)
def test_every_family_is_explained_by_every_method_that_fits(name: str, images: Tensor) -> None:
    model = small_one(name)
    rectified = any(isinstance(module, nn.ReLU) for module in model.modules())
    unfit = {"attention_rollout"} | (set() if rectified else {"guided_backprop"})
    options = {"occlusion": {"window": 16, "stride": 16}, "integrated_gradients": {"steps": 3, "most": 3}}
    few = {"smoothgrad": {"samples": 2}, "shap": {"samples": 2}}
    for method in METHODS:
        if method in unfit:
            with pytest.raises(UsageError, match=method):
                maps_of(method, model, images[:1], torch.tensor([1]))
        else:
            maps = maps_of(method, model, images[:1], torch.tensor([1]), **{**options, **few}.get(method, {}))
            assert maps.shape == (1, SIDE, SIDE) and maps.isfinite().all() and maps.any(), method


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "lenet5_relu" else pytest.mark.slow) for name in CNNS]
)
def test_the_peak_lies_in_a_decisive_patch(name: str) -> None:
    model, _, _, right = learned(name, CNNS[name])
    assert right == 1
    shares = shares_in_patch(model, *patches(40, seed=2))
    assert min(shares.values()) >= 0.95, shares
    slow = TRAINING.get(name, Training()).lr < 1e-3  # and so near its start that the order of its weights tells nothing
    assert slow or not faithfulness.has_random_weights(model, seed=0)
