"""faithfulness: measures of a map's quality against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from patches import CLASSES, SIDE, build, maps_of
from torch import nn

from dlkit import registry
from dlkit.evaluation.model_summary import natural_spec
from dlkit.explanation import faithfulness


def test_deletion_and_insertion_are_areas_under_the_probability() -> None:
    torch.manual_seed(1)
    model, image, map = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), torch.randn(3, 8, 8), torch.randn(8, 8)
    order = map.flatten().argsort(descending=True).tolist()
    areas = []
    for start, end in ((image, torch.zeros_like(image)), (faithfulness.blur(image), image)):
        curve = []
        for step in range(faithfulness.STEPS + 1):
            changed = start.clone().flatten(1)
            moved = order[: round(step * 64 / faithfulness.STEPS)]
            changed[:, moved] = end.flatten(1)[:, moved]
            with torch.no_grad():
                curve.append(float(model(changed.view_as(image)[None]).softmax(1)[0, 1]))
        areas.append(float(np.trapezoid(curve)) / faithfulness.STEPS)
    assert faithfulness.deletion_and_insertion(model, image, 1, map) == pytest.approx(areas, abs=1e-6)


def test_a_flat_image_stays_flat_when_blurred() -> None:
    torch.testing.assert_close(faithfulness.blur(torch.full((3, 9, 12), 0.7)), torch.full((3, 9, 12), 0.7))


def test_rank_correlation_is_spearmans() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 6, (9, 9), generator=generator).float()  # many equal values
    other = one + 3 * torch.randn(9, 9, generator=generator)
    expected = stats.spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic
    assert faithfulness.rank_correlation(one, other) == pytest.approx(expected)
    assert faithfulness.rank_correlation(one, torch.zeros(9, 9)) is None


def test_a_shuffled_copy_has_the_same_numbers_in_another_order() -> None:
    model = build("lenet5_relu", {})
    one, same = faithfulness.shuffle_weights(model, 1), faithfulness.shuffle_weights(model, 1)
    for weight, other, again in zip(model.parameters(), one.parameters(), same.parameters(), strict=True):
        assert torch.equal(weight.flatten().sort().values, other.flatten().sort().values)
        assert torch.equal(other, again) and (weight.unique().numel() < 3 or not torch.equal(weight, other))


def test_a_map_of_the_pixels_survives_other_weights_and_one_of_the_network_does_not() -> None:
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    model, targets = build("lenet5_relu", {}), torch.tensor([0, 1, 2])
    other = faithfulness.shuffle_weights(model, 0)
    edges = images.abs().sum(1)
    assert faithfulness.rank_correlation(edges, edges) == pytest.approx(1)
    pairs = zip(*(maps_of("integrated_gradients", some, images, targets) for some in (model, other)), strict=True)
    for before, after in pairs:
        correlation = faithfulness.rank_correlation(before, after)
        assert correlation is not None and abs(correlation) < faithfulness.MIN_SURVIVING_CORRELATION


@pytest.mark.parametrize("init", ["he", *(pytest.param(init, marks=pytest.mark.slow) for init in ("lecun", "torch"))])
def test_random_weights_are_recognized_19_times_in_20(init: str) -> None:
    found = []
    for seed in range(20):
        torch.manual_seed(seed)
        spec = natural_spec(3, SIDE, SIDE, CLASSES)
        options = registry.resolved_options("models", "lenet5_relu", {"init": init})
        model = registry.load("models", "lenet5_relu").build(spec, **options)
        found.append(faithfulness.has_random_weights(model, seed))
    assert sum(found) >= 17  # 19 in the mean; fewer than 17 would be chance once in 60
