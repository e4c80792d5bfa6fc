from __future__ import annotations

from itertools import islice

import numpy as np
import numpy.typing as npt
import pytest

from dlkit.data import rng


def test_a_number_depends_on_its_sample_alone_and_not_on_its_batch() -> None:
    together = rng.uniform(3, 1, np.arange(100), "flip")
    apart = [rng.uniform(3, 1, np.array([index]), "flip")[0] for index in range(100)]
    assert together.tolist() == apart


def test_seed_epoch_name_and_sample_each_change_the_numbers() -> None:
    indices = np.arange(1000)
    draws = [
        rng.uniform(0, 0, indices, "a"),
        rng.uniform(1, 0, indices, "a"),
        rng.uniform(0, 1, indices, "a"),
        rng.uniform(0, 0, indices, "b"),
        rng.uniform(0, 0, indices + 1000, "a"),
    ]
    for first in range(len(draws)):
        for second in range(first):
            assert abs(np.corrcoef(draws[first], draws[second])[0, 1]) < 0.1


@pytest.mark.parametrize(
    "numbers",
    [
        rng.uniform(7, 2, np.arange(100_000), "x"),
        np.array(list(islice(rng.numbers(7, 2, 5), 100_000))),
        np.array([next(rng.numbers(7, 2, sample)) for sample in range(100_000)]),
    ],
    ids=["of a batch", "of a sample", "the first of each sample"],
)
def test_numbers_are_uniform_in_zero_to_one(numbers: npt.NDArray[np.float64]) -> None:
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 5000).max() < 5 * np.sqrt(5000)  # five standard deviations


def test_the_largest_number_is_below_one_in_the_type_it_is_used_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A float64 draw that float32 rounds to 1 led one past the last crop window; the oracle is numpy's nextafter."""
    monkeypatch.setattr(rng, "_mix", lambda words: np.full_like(words, 2**64 - 1))
    monkeypatch.setattr(rng, "fold", lambda *numbers: 2**64 - 1)
    number = rng.uniform(0, 0, np.arange(1), "x")[0]
    assert number.dtype == np.float32 and number == np.nextafter(np.float32(1), np.float32(0))
    assert next(rng.numbers(0, 0, 0)) == np.nextafter(1.0, 0.0)
    counts = np.arange(1, 2**16)
    assert (np.floor(number * counts.astype(np.float32)) == counts - 1).all()


def test_permutation_visits_each_sample_once_and_changes_with_the_epoch() -> None:
    first, second = rng.permutation(0, 0, 500), rng.permutation(0, 1, 500)
    assert sorted(first.tolist()) == list(range(500))
    assert first.tolist() != second.tolist()
    assert first.tolist() == rng.permutation(0, 0, 500).tolist()


def test_the_streams_are_pinned_since_old_runs_must_resume() -> None:
    assert rng.fold(1, 2, 3) == PINNED_FOLD
    assert rng.permutation(0, 0, 8).tolist() == PINNED_ORDER
    assert list(islice(rng.numbers(1, 2, 3), 3)) == PINNED_NUMBERS


PINNED_FOLD = 15020427595393229491
PINNED_NUMBERS = [0.6900230619880093, 0.10864447595661797, 0.6256076945601532]
PINNED_ORDER = [2, 7, 1, 0, 6, 5, 3, 4]


def test_fold_and_uniform_mix_alike() -> None:
    indices = np.array([0, 1, 2**40], dtype=np.int64)
    folded = [rng.fold(index) for index in indices.tolist()]
    assert rng._mix(indices.astype(np.uint64)).tolist() == folded
    assert rng.fold(-1) == rng.fold(2**64 - 1)
