"""The balanced sampler: classes equally often, samples of a class equally often, a function of seed and epoch alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlkit.config.schema import Augment
from dlkit.data import sampling
from dlkit.data.loader import TrainingData
from dlkit.data.splits import ImageFiles, MemoryImages
from dlkit.specs import ImageSpec

SPEC = ImageSpec(3, 6, 6, ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3)
COUNTS = (40, 7, 3)
TARGETS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), COUNTS))
PIXELS = np.random.default_rng(1).integers(0, 256, (50, 3, 6, 6), dtype=np.uint8)


def data(**changes: object) -> TrainingData:
    source = TrainingData(
        MemoryImages(PIXELS, TARGETS), SPEC, Augment(), batch_size=8, seed=3, device=torch.device("cpu"), balanced=True
    )
    return replace(source, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [(40, 7, 3), (1, 1, 1), (100, 0, 1), (5,), (1, 2, 3, 4, 5, 6, 7)])
def test_classes_and_the_samples_of_a_class_differ_by_one_draw_at_most(counts: tuple[int, ...]) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    for epoch in range(3):
        draws = sampling.balanced(targets, 0, epoch)
        samples = draws % len(targets)
        per_class = [int((targets[samples] == label).sum()) for label, count in enumerate(counts) if count]
        assert len(draws) == len(targets) and max(per_class) - min(per_class) <= 1
        for label in range(len(counts)):
            drawn = Counter(samples[targets[samples] == label].tolist())
            times = [drawn[index] for index in np.flatnonzero(targets == label).tolist()]
            assert not times or max(times) - min(times) <= 1
        assert len(set(draws.tolist())) == len(draws)  # each repetition is a draw of its own


def test_over_the_epochs_every_sample_of_the_largest_class_is_drawn() -> None:
    seen = {int(draw) % 50 for epoch in range(20) for draw in sampling.balanced(TARGETS, 0, epoch)}
    assert seen == set(range(50))


def test_draws_are_a_function_of_seed_and_epoch() -> None:
    first = sampling.balanced(TARGETS, 5, 2)
    assert (first == sampling.balanced(TARGETS, 5, 2)).all()
    assert (first != sampling.balanced(TARGETS, 5, 3)).any() and (first != sampling.balanced(TARGETS, 6, 2)).any()


def test_an_epoch_begun_in_the_middle_is_the_rest_of_the_whole_one() -> None:
    augmented = data(augment=Augment(crop_padding=2, horizontal_flip=0.5))
    whole, rest = list(augmented.epoch(1)), list(augmented.epoch(1, 3))
    assert len(whole) == len(rest) + 3
    for one, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def test_indices_and_targets_are_those_of_the_samples() -> None:
    for batch in data().epoch(0):
        assert (batch.targets.numpy() == TARGETS[batch.indices.numpy()]).all()
        expected = (torch.from_numpy(PIXELS[batch.indices.numpy()]).float() / 255 - 0.5) / 0.5
        assert torch.allclose(batch.inputs, expected, atol=1e-6)


def test_a_sample_that_comes_again_is_augmented_anew() -> None:
    batches = list(data(augment=Augment(crop_padding=3, horizontal_flip=0.5)).epoch(0))
    indices, images = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("indices", "inputs"))
    (rare,) = np.flatnonzero(TARGETS == 2)[:1].tolist()
    same = images[indices == rare]
    assert len(same) >= 5 and len(torch.unique(same.flatten(1), dim=0)) > 1


@pytest.mark.parametrize("resized_crop", [None, (0.3, 1.0)])
@pytest.mark.parametrize("workers", [0, 2])
def test_files_are_drawn_as_memory_is_with_any_number_of_workers(
    tmp_path: Path, workers: int, resized_crop: tuple[float, float] | None
) -> None:
    paths = []
    for index, pixels in enumerate(PIXELS):
        paths.append(tmp_path / f"{index:02}.png")
        Image.fromarray(pixels.transpose(1, 2, 0)).save(paths[-1])
    augment = Augment(resized_crop=resized_crop)
    files = data(samples=ImageFiles(paths, TARGETS), augment=augment, workers=workers)
    again = data(samples=ImageFiles(list(paths), TARGETS), augment=augment)
    for epoch in (0, 1):
        one, other = list(files.epoch(epoch)), list(again.epoch(epoch))
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(one, other, strict=True))
        if resized_crop is None:
            memory = list(data().epoch(epoch))
            assert all(torch.allclose(a.inputs, b.inputs, atol=1e-6) for a, b in zip(one, memory, strict=True))
