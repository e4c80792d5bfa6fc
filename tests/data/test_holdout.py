"""What a split takes out of another by groups."""

from __future__ import annotations

import numpy as np
import pytest

from dlkit.data.holdout import holdout_mask
from dlkit.errors import DataError


def problem(seed: int, people: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Targets and groups of people who have from 1 to 30 images each, mostly of one class."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 31, people)
    groups = np.repeat(np.arange(people), sizes)
    favourite = rng.integers(0, classes, people)[groups]
    return np.where(rng.random(len(groups)) < 0.7, favourite, rng.integers(0, classes, len(groups))), groups


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_every_class_comes_near_its_share(seed: int) -> None:
    targets, groups = problem(seed)
    held_out = holdout_mask(targets, 0.2, seed, groups)
    assert not set(groups[held_out]) & set(groups[~held_out])
    shares = np.bincount(targets[held_out], minlength=4) / np.bincount(targets)
    assert (abs(shares - 0.2) < 0.1).all() and abs(held_out.mean() - 0.2) < 0.05


def test_the_seed_draws_the_groups() -> None:
    targets, groups = problem(0)
    same = [holdout_mask(targets, 0.2, seed, groups) for seed in (1, 1, 2)]
    assert (same[0] == same[1]).all() and (same[0] != same[2]).any()


def test_the_numbers_and_the_order_of_groups_do_not_tear_them() -> None:
    targets, groups = problem(0)
    mixed = np.random.default_rng(0).permutation(len(groups))
    held_out = holdout_mask(targets[mixed], 0.2, 0, groups[mixed] * 1000 + 7)
    assert not set(groups[mixed][held_out]) & set(groups[mixed][~held_out])


def test_train_keeps_something_of_every_class() -> None:
    targets, groups = np.array([0] * 10 + [1] * 10), np.array([*range(10), *[99] * 10])  # one person has all of 1
    held_out = holdout_mask(targets, 0.5, 0, groups)
    assert held_out[:10].sum() == 5 and not held_out[10:].any()


def test_a_share_smaller_than_every_group_takes_the_smallest() -> None:
    groups = np.repeat(np.arange(4), [30, 30, 10, 30])
    assert set(groups[holdout_mask(np.zeros(100, np.int64), 0.01, 0, groups)]) == {2}


def test_groups_that_cannot_be_cut_are_told() -> None:
    with pytest.raises(DataError, match="by group"):
        holdout_mask(np.array([0, 0, 1, 1]), 0.5, 0, np.array([0, 0, 1, 1]))
