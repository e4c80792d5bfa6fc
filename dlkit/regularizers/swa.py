"""Stochastic weight averaging: after a certain epoch, the mean of the weights at the end of each epoch is evaluated.

w̄ ← (n w̄ + w) / (n + 1) at the end of every epoch after the first `start` of them (a fraction of all), w̄ = w before
that. Izmailov, Podoprikhin, Garipov, Vetrov and Wilson, "Averaging weights leads to wider optima and better
generalization", UAI 2018, 1803.05407. It needs a learning rate that stays high: constant, or cosine with `final`.

The running statistics of batch norm are of w, not of w̄, so they are computed again at the end of each epoch from that
epoch's first `norm_batches` batches, augmented by `data.augment`, without dropout (as in evaluation; 200 are
sufficient: Wu and Johnson, 2105.07576).
"""

from __future__ import annotations

import copy
import math

from torch import nn

from dlkit.errors import UsageError
from dlkit.layers.averaging import batch_norms, move_towards
from dlkit.regularizers import Plan, Regularizer

OFF = {"start": 1.0}


def share_of_newest(steps: int, first: int, every: int) -> float:
    """The newest weights' weight in the mean: 1 up to step `first`, then 1/2, 1/3, … every `every` steps, else 0."""
    if steps <= first:
        return 1.0
    count, rest = divmod(steps - first, every)
    return 0.0 if rest else 1 / (count + 1)


class SWA(Regularizer):
    def __init__(self, start: float, norm_batches: int) -> None:
        self.start, self.most_batches = start, norm_batches
        self.first, self.every = 0, 1  # steps
        self.has_norms = False

    def on_model(self, model: nn.Module, plan: Plan) -> None:
        self.first = math.ceil(self.start * plan.epochs) * plan.steps_per_epoch
        self.every = plan.steps_per_epoch
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.has_norms = bool(batch_norms(model))

    def on_weights(self, model: nn.Module, step: int) -> None:
        share = share_of_newest(step + 1, self.first, self.every)
        if share and self.averaged is not None:
            move_towards(self.averaged, model, share)

    def norm_batches(self, steps: int) -> int:
        return self.most_batches if steps > self.first and self.has_norms else 0


def build(*, start: float = 0.75, norm_batches: int = 200) -> Regularizer:
    if start > 1:
        raise UsageError(f"recipe.regularizers.swa.start is {start:g}; it is a fraction of the epochs, from 0 to 1.")
    return SWA(start, norm_batches)
