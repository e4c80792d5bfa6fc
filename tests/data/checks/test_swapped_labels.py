"""Exchanged labels: two classes that changed names between splits are found, and none that only look alike."""

from __future__ import annotations

import numpy as np

from dlkit.data.checks.swapped_labels import swapped_classes


def drawn(rng: np.random.Generator, apart: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 8 × 8 noise; `apart` is how far their mean colours are, in deviations."""
    targets = np.repeat(np.arange(3), count)
    colours = 128 + 20 * apart * np.eye(3)[targets]
    noise = 20 * rng.normal(size=(len(targets), 1, 1, 3)) + 20 * rng.normal(size=(len(targets), 8, 8, 3))
    return (colours[:, None, None] + noise).clip(0, 255).astype(np.uint8), targets.astype(np.int64)


def test_exchanged_classes_are_found_and_named() -> None:
    rng = np.random.default_rng(0)
    known, targets = drawn(rng, 2.0, 100)
    asked, labels = drawn(rng, 2.0, 60)
    assert swapped_classes(known, targets, asked, labels) == []
    (found,) = swapped_classes(known, targets, asked, np.array([2, 1, 0])[labels])
    assert (found.first, found.second) == (0, 2) and min(found.first_share, found.second_share) > 0.6


def test_classes_that_look_alike_are_not_taken_for_exchanged() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert swapped_classes(*drawn(rng, 0.0, 100), *drawn(rng, 0.0, 60)) == []


def test_other_light_in_a_split_is_not_taken_for_exchanged_labels() -> None:
    rng = np.random.default_rng(0)
    known, targets = drawn(rng, 2.0, 100)
    asked, labels = drawn(rng, 2.0, 60)
    for light in (-60, 60):
        assert swapped_classes(known, targets, (asked.astype(int) + light).clip(0, 255).astype(np.uint8), labels) == []
