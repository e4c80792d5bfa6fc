"""Stochastic depth: a residual block is skipped for random samples in training, which makes the network shallower.

Huang, Sun, Liu, Sedra and Weinberger, "Deep networks with stochastic depth", 2016 (1603.09382).
Differs from the paper: a block is dropped an image at a time, not a batch at a time; what is kept is divided by the
probability of keeping it while training, instead of multiplied by it when testing (the same up to scale).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dlkit.errors import UsageError


def drop_path(branch: Tensor, probability: float) -> Tensor:
    """The branch (N, …) with samples set to 0 at this probability, and the others scaled by 1 / (1 − probability)."""
    keep = branch.new_empty(branch.shape[0], *[1] * (branch.ndim - 1)).bernoulli_(1 - probability)
    return branch * keep.div_(1 - probability)


class DropPath(nn.Module):
    """Applied to a residual branch: x + drop_path(branch(x))."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:  # (N, …) -> (N, …)
        return drop_path(branch, self.probability) if self.training else branch

    def extra_repr(self) -> str:
        return f"{self.probability}"


def drop_paths(probability: Any, blocks: int) -> list[nn.Module]:
    """A layer for each residual block of a network, the probability increasing linearly from block to block.

    The paper's linear decay rule (section 3): early blocks make what all later ones use, so that block l of L is left
    out with probability·l/L. At 0 there is no layer at all.
    Raises: UsageError where the model option drop_path is no number in [0, 1).
    """
    is_number = isinstance(probability, int | float) and not isinstance(probability, bool)
    if not is_number or not 0 <= probability < 1:
        raise UsageError(
            f"model option drop_path is {probability!r}. It must be a number from 0 up to, not including, 1."
        )
    rates = [probability * number / blocks for number in range(1, blocks + 1)]
    return [DropPath(rate) if rate else nn.Identity() for rate in rates]
