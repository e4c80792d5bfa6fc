from __future__ import annotations

import math

import pytest
import torch

from dlkit.config import schema
from dlkit.training import losses as loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
TARGETS = torch.tensor([0, 1])


def test_cross_entropy_with_smoothing_equals_the_formula() -> None:
    losses = loss.build(schema.Loss(label_smoothing=0.1))(LOGITS, TARGETS)
    for row, target, found in zip(LOGITS.tolist(), TARGETS.tolist(), losses.tolist(), strict=True):
        total = sum(math.exp(value) for value in row)
        wanted = [0.1 / 3 + (0.9 if place == target else 0.0) for place in range(3)]
        assert found == pytest.approx(-sum(p * math.log(math.exp(v) / total) for p, v in zip(wanted, row, strict=True)))


def test_mse_and_bce_equal_a_loop_by_hand() -> None:
    squared = loss.build(schema.Loss(name="mse"))(LOGITS, TARGETS)
    binary = loss.build(schema.Loss(name="bce"))(LOGITS, TARGETS)
    for sample in range(2):
        rows = [(LOGITS[sample, k].item(), float(TARGETS[sample].item() == k)) for k in range(3)]
        assert squared[sample].item() == pytest.approx(sum((v - y) ** 2 for v, y in rows) / 3)
        sigmoid = [1 / (1 + math.exp(-v)) for v, _ in rows]
        by_hand = -sum(math.log(p if y else 1 - p) for p, (_, y) in zip(sigmoid, rows, strict=True)) / 3
        assert binary[sample].item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "bce"])
def test_class_indices_and_their_one_hot_rows_give_the_same_loss(name: str) -> None:
    function = loss.build(schema.Loss(name=name))  # type: ignore[arg-type]
    rows = torch.nn.functional.one_hot(TARGETS, 3).float()
    assert torch.allclose(function(LOGITS, TARGETS), function(LOGITS, rows))
