"""explain: maps that follow their papers' formulas, that find what decides, and that are told apart from chance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from shapes_on_disk import form, write_folder
from torch import Tensor, nn

import dlkit
from dlkit import catalog
from dlkit.engine import faithfulness
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DataError, ModelFileError, StorageError, UsageError
from dlkit.explainers import _layers
from dlkit.nn.attention import kept_attention
from dlkit.verbs.explain import Explanation, Failure, explain, features, layers
from dlkit.verbs.summary import natural_spec
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parent / "golden"
METHODS = sorted(catalog.entries("explainers"))
SIDE, PATCH, CLASSES = 32, 8, 4
COLOURS = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2], [2, 2, -1]])  # of a patch, by class

# the smallest member of every family with maps in space, and options that make it smaller
CNNS: dict[str, dict[str, Any]] = {
    "simple_cnn": {},
    "lenet5": {},
    "lenet5_relu": {},
    "alexnet": {"init": "he"},
    "vgg11": {},
    "resnet20": {"blocks": "1,1,1"},
    "densenet40": {"blocks": "2,2,2"},
}


def build(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    module = catalog.load("models", name)
    spec = natural_spec(3, SIDE, SIDE, CLASSES)
    model: nn.Module = module.build(spec, **catalog.resolved_options("models", name, {**CNNS.get(name, {}), **options}))
    return model.eval()


def maps_of(method: str, model: nn.Module, images: Tensor, targets: Tensor, **options: Any) -> Tensor:
    maps: Tensor = catalog.load("explainers", method).explain(model, images, targets, **options)
    return maps


def patches(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise in which the colour of one 8×8 patch alone is the class; and the patch's top left corner."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    targets = torch.randint(CLASSES, (count,), generator=generator)
    corners = torch.randint(0, SIDE - PATCH + 1, (count, 2), generator=generator)
    for image, target, (top, left) in zip(images, targets, corners.tolist(), strict=True):
        image[:, top : top + PATCH, left : left + PATCH] += COLOURS[target][:, None, None]
    return images, targets, corners


def trained(name: str, steps: int) -> nn.Module:
    model, batch = build(name).train(), 32
    images, targets, _ = patches(steps * batch, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for some, wanted in zip(images.split(batch), targets.split(batch), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(some), wanted).backward()
        optimizer.step()
    return model.eval()


def share_in_patch(maps: Tensor, corners: Tensor) -> float:
    peaks = maps.flatten(1).argmax(1)
    found = torch.stack([peaks // SIDE, peaks % SIDE], 1) - corners
    return float(((found >= 0) & (found < PATCH)).all(1).double().mean())


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def small() -> dict[str, nn.Module]:
    return {"attention_rollout": build("vit_mini_4", depth=2), "": build("lenet5_relu")}


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


def test_the_shelf_holds_every_method_with_its_paper() -> None:
    assert METHODS == [
        "attention_rollout", "grad_cam", "grad_cam_pp", "guided_backprop", "integrated_gradients", "occlusion",
        "saliency", "shap", "smoothgrad",
    ]  # fmt: skip
    for method in METHODS:
        entry = catalog.entry("explainers", method)
        assert any(f" {year} (" in entry.document for year in range(2010, 2030)), method
        maker = catalog.load("explainers", method).explain
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
def test_another_class_gives_another_map_where_the_method_sees_classes(
    method: str, small: dict[str, nn.Module], images: Tensor
) -> None:
    model = small.get(method, small[""])
    one, other = (maps_of(method, model, images, torch.full((3,), target)) for target in (0, 1))
    assert torch.equal(one, other) == getattr(catalog.load("explainers", method), "BLIND", False)


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
    model, targets = build(name), torch.tensor([0, 1, 2])
    maps = maps_of("integrated_gradients", model, images, targets)
    with torch.no_grad():
        difference = (model(images) - model(torch.zeros_like(images))).gather(1, targets[:, None])[:, 0]
    assert ((maps.sum((1, 2)) - difference) / difference).abs().max() <= 0.01


def test_integrated_gradients_cut_their_steps_until_they_are_complete(tiny: TinyCNN, little: Tensor) -> None:
    """The finer sum uses the coarser one's places again."""
    coarse = maps_of("integrated_gradients", tiny, little, TARGETS, steps=9, most=9)
    refined = maps_of("integrated_gradients", tiny, little, TARGETS, steps=3, tolerance=0.0, most=9)
    torch.testing.assert_close(refined, coarse, rtol=1e-4, atol=1e-6)


def test_grad_cam_is_the_sum_of_maps_by_their_mean_gradient(tiny: TinyCNN, little: Tensor) -> None:
    maps = tiny.conv(little).relu().detach()  # (N, 5, 8, 8); each logit's gradient by a map is weight / 64, everywhere
    expected = torch.einsum("nk,nkhw->nhw", tiny.output.weight.detach()[TARGETS] / 64, maps).relu()
    torch.testing.assert_close(maps_of("grad_cam", tiny, little, TARGETS), expected)


def test_grad_cam_pp_is_its_papers_formula(tiny: TinyCNN, little: Tensor) -> None:
    maps = tiny.conv(little).relu().detach()
    expected = torch.zeros(2, 8, 8)
    for n, target in enumerate(TARGETS.tolist()):
        for k in range(5):
            g = float(tiny.output.weight.detach()[target, k]) / 64
            alpha = g**2 / (2 * g**2 + g**3 * float(maps[n, k].sum()))
            expected[n] += 64 * alpha * max(g, 0.0) * maps[n, k]
    torch.testing.assert_close(maps_of("grad_cam_pp", tiny, little, TARGETS), expected.relu(), rtol=1e-4, atol=1e-6)


def test_guided_backprop_passes_on_what_is_above_0_both_ways(tiny: TinyCNN, little: Tensor) -> None:
    before = tiny.conv(little).detach()
    gradient = (tiny.output.weight.detach()[TARGETS] / 64)[..., None, None].clamp(min=0) * (before > 0)
    expected = F.conv_transpose2d(gradient, tiny.conv.weight.detach(), padding=1).sum(1)
    torch.testing.assert_close(maps_of("guided_backprop", tiny, little, TARGETS), expected)


def test_guided_backprop_does_not_mind_whether_relus_are_in_place(images: Tensor) -> None:
    model, targets = build("densenet40"), torch.tensor([0, 1, 2])
    rectifiers = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert any(module.inplace for module in rectifiers)
    expected = maps_of("guided_backprop", model, images, targets)
    for module in rectifiers:
        module.inplace = False
    torch.testing.assert_close(maps_of("guided_backprop", model, images, targets), expected)


def test_a_layer_before_a_relu_in_place_is_seen_as_it_was(tiny: TinyCNN, little: Tensor) -> None:
    with torch.no_grad(), _layers.kept_maps(tiny, "conv") as kept:
        tiny(little)
        assert torch.equal(kept[0], tiny.conv(little)) and bool((kept[0] < 0).any())


def test_occlusion_is_a_loop_over_squares(tiny: TinyCNN, little: Tensor) -> None:
    window, stride = 3, 2
    maps = maps_of("occlusion", tiny, little, TARGETS, window=window, stride=stride)
    for map, image, target in zip(maps, little, TARGETS.tolist(), strict=True):
        total, covers = torch.zeros(8, 8), torch.zeros(8, 8)
        for top in (0, 2, 4, 5):
            for left in (0, 2, 4, 5):
                covered = image.clone()
                covered[:, top : top + window, left : left + window] = 0
                with torch.no_grad():
                    fall = tiny(image[None])[0, target] - tiny(covered[None])[0, target]
                total[top : top + window, left : left + window] += fall
                covers[top : top + window, left : left + window] += 1
        torch.testing.assert_close(map, total / covers, rtol=1e-4, atol=1e-5)


def test_attention_rollout_multiplies_the_layers_attention(small: dict[str, nn.Module], images: Tensor) -> None:
    model = small["attention_rollout"]
    with torch.no_grad(), kept_attention(model) as kept:
        model(images)
        joint = torch.eye(65).expand(3, 65, 65)
        for layer in kept:
            assert layer.weights is not None
            joint = (0.5 * layer.weights.mean(1) + 0.5 * torch.eye(65)) @ joint
    torch.testing.assert_close(joint.sum(2), torch.ones(3, 65))
    maps = maps_of("attention_rollout", model, images, torch.zeros(3).long())
    torch.testing.assert_close(maps, _layers.enlarged(joint[:, 0, 1:].view(3, 8, 8), SIDE, SIDE))


@pytest.mark.filterwarnings("ignore")  # captum's own
def test_captum_gives_the_same_maps(images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    model, targets = build("lenet5_relu"), torch.tensor([0, 1, 2])
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
    places = _layers.cell_places(model, images, "c3")
    expected["grad_cam"] = _layers.placed(cam[:, 0].detach(), *places, SIDE, SIDE)
    for method, maps in expected.items():
        found = maps_of(method, model, images, targets)
        torch.testing.assert_close(found, maps.detach(), rtol=0.02, atol=0.01 * float(found.abs().max()))


def unshared_relus(model: nn.Module) -> nn.Module:
    """lenet5_relu as a chain with a ReLU of its own at each place, as captum's hooks need it."""
    c1, c3, c5, f6, output = (model.get_submodule(name) for name in ("c1", "c3", "c5", "f6", "output"))
    return nn.Sequential(
        c1, nn.MaxPool2d(2), nn.ReLU(), c3, nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), c5, nn.ReLU(), f6, nn.ReLU(), output,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5_relu"])
def test_cells_are_placed_where_they_look(name: str) -> None:
    """Found by moving one pixel: a convolution of 5 and a pool of 2 leave C3's first cell to look at 0 to 13."""
    model = build(name)
    first, stride = {"simple_cnn": (1.5, 2.0), "lenet5_relu": (6.5, 2.0)}[name]
    path = _layers.chosen_layer(model, torch.zeros(1, 3, SIDE, SIDE), None)
    for places in _layers.cell_places(model, torch.zeros(1, 3, SIDE, SIDE), path):
        assert (places.first, places.stride) == (first, stride)


def test_maps_coarser_than_7_give_way_to_finer_ones_before_them() -> None:
    model = build("vgg11")
    found = _layers.spatial_layers(model, torch.zeros(1, 3, SIDE, SIDE))
    assert found[str(model.feature_map)][1:] == (2, 2)
    assert found[_layers.chosen_layer(model, torch.zeros(1, 3, SIDE, SIDE), None)][1:] == (8, 8)


def test_every_family_with_maps_in_space_is_tried() -> None:
    with_maps = {"simple_cnn", "lenet5", "alexnet", "vgg", "resnet", "densenet"}
    assert {catalog.entry("models", name).family for name in CNNS} == with_maps


@pytest.mark.parametrize("name", CNNS)
def test_every_family_is_explained_by_every_method_that_fits(name: str, images: Tensor) -> None:
    model = build(name)
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
def test_where_a_patch_alone_decides_the_peak_lies_in_it(name: str) -> None:
    model = trained(name, steps=120)
    images, targets, corners = patches(40, seed=2)
    with torch.no_grad():
        assert (model(images).argmax(1) == targets).double().mean() >= 0.99
    shares = {
        method: share_in_patch(maps_of(method, model, images, targets), corners)
        for method in ("grad_cam", "integrated_gradients", "occlusion")
    }
    assert min(shares.values()) >= 0.95, shares
    assert not faithfulness.looks_random(model, seed=0)


def test_deletion_and_insertion_are_areas_under_the_probability(tiny: TinyCNN, little: Tensor) -> None:
    image, map = little[0], torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    order = map.flatten().argsort(descending=True).tolist()
    areas = []
    for start, end in ((image, torch.zeros_like(image)), (faithfulness.blurred(image), image)):
        curve = []
        for step in range(faithfulness.STEPS + 1):
            changed = start.clone().flatten(1)
            moved = order[: round(step * 64 / faithfulness.STEPS)]
            changed[:, moved] = end.flatten(1)[:, moved]
            with torch.no_grad():
                curve.append(float(tiny(changed.view_as(image)[None]).softmax(1)[0, 1]))
        areas.append(float(np.trapezoid(curve)) / faithfulness.STEPS)
    assert faithfulness.deletion_and_insertion(tiny, image, 1, map) == pytest.approx(areas, abs=1e-6)


def test_a_flat_image_stays_flat_when_blurred() -> None:
    torch.testing.assert_close(faithfulness.blurred(torch.full((3, 9, 12), 0.7)), torch.full((3, 9, 12), 0.7))


def test_rank_correlation_is_spearmans() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 6, (9, 9), generator=generator).float()  # many equal values
    other = one + 3 * torch.randn(9, 9, generator=generator)
    expected = stats.spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic
    assert faithfulness.rank_correlation(one, other) == pytest.approx(expected)
    assert faithfulness.rank_correlation(one, torch.zeros(9, 9)) is None


def test_a_shuffled_copy_has_the_same_numbers_in_another_order() -> None:
    model = build("lenet5_relu")
    one, same = faithfulness.shuffled(model, 1), faithfulness.shuffled(model, 1)
    for weight, other, again in zip(model.parameters(), one.parameters(), same.parameters(), strict=True):
        assert torch.equal(weight.flatten().sort().values, other.flatten().sort().values)
        assert torch.equal(other, again) and (weight.unique().numel() < 3 or not torch.equal(weight, other))


def test_a_map_of_the_pixels_alone_survives_other_weights_and_one_of_the_network_does_not(images: Tensor) -> None:
    model, targets = build("lenet5_relu"), torch.tensor([0, 1, 2])
    other = faithfulness.shuffled(model, 0)
    edges = images.abs().sum(1)
    assert faithfulness.rank_correlation(edges, edges) == pytest.approx(1)
    pairs = zip(*(maps_of("integrated_gradients", some, images, targets) for some in (model, other)), strict=True)
    for one, shuffled in pairs:
        correlation = faithfulness.rank_correlation(one, shuffled)
        assert correlation is not None and abs(correlation) < faithfulness.SURVIVES


@pytest.mark.parametrize("init", ["he", *(pytest.param(init, marks=pytest.mark.slow) for init in ("lecun", "torch"))])
def test_random_weights_are_known_as_such_19_times_in_20(init: str) -> None:
    found = []
    for seed in range(20):
        torch.manual_seed(seed)
        spec = natural_spec(3, SIDE, SIDE, CLASSES)
        options = catalog.resolved_options("models", "lenet5_relu", {"init": init})
        model = catalog.load("models", "lenet5_relu").build(spec, **options)
        found.append(faithfulness.looks_random(model, seed))
    assert sum(found) >= 17  # 19 in the mean; fewer than 17 would be chance once in 60


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small convolutional network after two epochs over shapes."""
    return dlkit.train(
        "simple_cnn",
        dataset="shapes",
        epochs=2,
        batch_size=32,
        settings={"data.options.train": 640, "data.options.test": 40},
        name="cnn",
        runs_dir=tmp_path_factory.mktemp("explain") / "runs",
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_folder(tmp_path_factory.mktemp("shapes"), "test", count=6)


def explained(*arguments: Any, **options: Any) -> list[Explanation]:
    answers = list(explain(*arguments, **options))
    assert answers and all(isinstance(answer, Explanation) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Explanation)]


def test_an_explanation_is_of_predicts_answer_and_stands_in_the_run_folder(run: RunFolder, files: list[Path]) -> None:
    (answer,) = dlkit.predict(run, files[0], topk=1)
    (found,) = explained(run, files[0])
    best = answer.document()["predictions"][0]
    assert (found.target, found.predicted) == (best["class"], best["class"])
    assert found.probability == pytest.approx(best["probability"], abs=1e-6)
    assert found.method == "grad_cam" and found.layer == "squash"
    assert found.png == run.path / "explanations" / f"{files[0].stem}-grad_cam.png"
    with Image.open(found.png) as picture:
        assert picture.width > 3 * 280 and picture.height > 280
    assert json.loads(found.png.with_suffix(".json").read_text()) == found.document()


def test_the_record_has_its_documented_form(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    (found,) = explained(run, files[0], method="integrated_gradients", output=tmp_path / "a.png")
    assert form(found.document()) == json.loads((GOLDEN / "explain.json").read_text())


def test_the_same_call_gives_the_same_bytes_and_another_seed_other_ones(
    run: RunFolder, files: list[Path], tmp_path: Path
) -> None:
    maps = {}
    for name, seed in (("one", None), ("same", None), ("other", 7)):
        (found,) = explained(run, files[0], method="smoothgrad", seed=seed, output=tmp_path / f"{name}.png")
        maps[name] = found.map
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    assert not np.array_equal(maps["one"], maps["other"])


def test_all_methods_that_fit_are_asked_and_the_others_named(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    found = explained(run, files[0], method="all", output=tmp_path, say=said.append)
    expected = [method for method in METHODS if method != "attention_rollout"]
    assert [answer.method for answer in found] == expected
    assert any(line.startswith("attention_rollout is left out") for line in said)
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.json"))) == len(found)
    complete = {answer.method: answer.completeness_error for answer in found}
    assert complete.pop("integrated_gradients") < 0.01 and set(complete.values()) == {None}  # type: ignore[operator]


def test_a_montage_is_one_picture(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    methods_in_one = explained(run, files[:2], method="all", montage=True, output=tmp_path / "m.png")
    assert {answer.png for answer in methods_in_one} == {tmp_path / "m.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_a_class_can_be_asked_for(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    classes = run.spec().classes
    for target in classes[:3]:
        (found,) = explained(run, files[0], target=target, output=tmp_path)
        assert (found.target, found.target_index) == (target, classes.index(target))


def test_two_images_of_one_name_get_two_pictures(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(files[0], tmp_path / folder / "x.png")
    found = explained(run, [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"], output=tmp_path)
    assert [answer.png and answer.png.name for answer in found] == ["x-grad_cam.png", "x-grad_cam-2.png"]


def test_an_untrained_network_is_flagged(files: list[Path], tmp_path: Path) -> None:
    made = dlkit.train(
        "simple_cnn", dataset="shapes", epochs=1, batch_size=32, lr=1e-12, name="fresh", runs_dir=tmp_path,
        settings={"data.options.train": 64, "data.options.test": 40},
    )  # fmt: skip
    said: list[str] = []
    (found,) = explained(made, files[0], say=said.append)
    assert found.sanity.random_weights and found.sanity.flagged
    assert any(line.startswith("warning: ") and "random" in line for line in said)


def test_a_vision_transformer_is_explained_by_its_attention(files: list[Path], tmp_path: Path) -> None:
    made = dlkit.train(
        "vit_mini_4", dataset="shapes", epochs=1, batch_size=32, name="vit", runs_dir=tmp_path,
        settings={"data.options.train": 64, "data.options.test": 40, "model.options.depth": 1},
    )  # fmt: skip
    (found,) = explained(made, files[0])
    assert found.method == "attention_rollout" and found.layer is None
    with pytest.raises(UsageError, match="no maps in space"):
        explain(made, files[0], method="grad_cam")


def test_bad_images_are_failures_and_the_rest_go_on(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    answers = list(explain(run, [tmp_path / "text.png", files[0], tmp_path / "none.png"], output=tmp_path))
    assert [isinstance(answer, Failure) for answer in answers] == [True, False, True]
    assert isinstance(answers[0], Failure) and answers[0].code == DataError.exit_code


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "gradcam"}, "Did you mean 'grad_cam'.*occlusion"),
        ({"target": "dusk"}, "Did you mean 'disk'.*star"),
        ({"layer": "squish"}, "Did you mean 'squash'.*conv"),
        ({"layer": "output"}, "There are: .*squash"),
        ({"method": "saliency", "layer": "squash"}, "--layer is for grad_cam, grad_cam_pp"),
        ({"method": "attention_rollout"}, "vision transformers"),
        ({"output": "x.jpg"}, "end"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_ones(
    run: RunFolder, files: list[Path], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        explain(run, files[0], **options)


def test_pictures_never_overwrite_the_images(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    shutil.copy(files[0], tmp_path / "a.png")
    shutil.copy(files[0], tmp_path / "a-grad_cam.png")
    with pytest.raises(UsageError, match="image itself"):
        explain(run, tmp_path / "a.png", output=tmp_path / "a.png")
    given = [tmp_path / "a.png", tmp_path / "a-grad_cam.png"]
    before = (tmp_path / "a-grad_cam.png").read_bytes()
    explained(run, given, output=tmp_path)
    assert (tmp_path / "a-grad_cam.png").read_bytes() == before


def test_one_file_holds_one_picture(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--montage"):
        list(explain(run, files[:2], output=tmp_path / "a.png"))
    with pytest.raises(StorageError, match="no folder"):
        explain(run, files[0], output=tmp_path / "none" / "a.png")


def test_a_model_of_something_else_is_refused(tmp_path: Path) -> None:
    made = dlkit.train(
        "gru", dataset="adding", epochs=1, batch_size=32, name="seq", runs_dir=tmp_path,
        settings={"data.options.train": 64, "data.options.test": 8, "data.options.steps": 4},
    )  # fmt: skip
    with pytest.raises(UsageError, match="explain is for models of images, text and trees; run seq reads"):
        explain(made, "x.png")
    with pytest.raises(UsageError, match="of models of images; run seq reads sequences"):
        layers(made)


def test_layers_are_listed_in_order_with_the_default(run: RunFolder) -> None:
    found = layers(run)
    assert [layer.path for layer in found] == ["conv", "pool", "squash"]
    assert [layer.path for layer in found if layer.default] == ["squash"]
    assert (found[0].kind, found[0].channels, found[0].height) == ("Conv2d", 32, 26)


def test_features_are_a_picture_of_filters_and_maps(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    (found,) = features(run, files[0], layer="pool", output=tmp_path)
    assert not isinstance(found, Failure)
    assert (found.channels, found.height, found.width, found.shown) == (32, 13, 13, 32)
    assert found.png.name == f"{files[0].stem}-features-pool.png"
    with Image.open(found.png) as picture:
        assert picture.width > 600
    with pytest.raises(UsageError, match="Did you mean 'pool'"):
        features(run, files[0], layer="pol")


def command(*arguments: object, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "dlkit_cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, cwd=cwd, input=stdin, env={**os.environ, "NO_COLOR": "1"})


def test_the_command_prints_records_and_its_exit_codes_are_those_of_predict(
    run: RunFolder, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command(["explain", str(files[0]), "--run", str(run.path), "-o", str(tmp_path), "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["schema"] == "dlkit.explain/1" and Path(record["png"]).is_file()
    bad = [str(files[0]), "none.png", "--run", str(run.path), "-o", str(tmp_path)]
    assert dlkit_command(["explain", *bad]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[:3] == ["path", "method", "layer"] and lines[2].endswith("none.png: no such file.")
    assert dlkit_command(["explain", *bad[1:]]) == DataError.exit_code
    assert dlkit_command(["explain", *bad[:1], *bad[2:], "--method", "gradcam"]) == 2
    assert "grad_cam_pp" in capsys.readouterr().err
    assert dlkit_command(["explain", "--run", str(run.path)]) == 2
    assert dlkit_command(["explain", "--run", str(run.path), "--list-layers", "--format", "tsv"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "squash\tReLU\t32\t13\t13\ttrue"


def test_an_image_comes_through_a_pipe(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    done = command(
        "explain", "--stdin-image", "--run", run.path, "-o", "a.png", cwd=tmp_path, stdin=files[0].read_bytes()
    )
    assert done.returncode == 0 and (tmp_path / "a.png").is_file(), done.stderr
    assert done.stdout.splitlines()[1].startswith(b"-\tgrad_cam\tsquash\t")


def test_a_damaged_checkpoint_is_told(run: RunFolder, files: list[Path], tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "broken")
    for path in (tmp_path / "broken" / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelFileError):
        explain(tmp_path / "broken", files[0])
