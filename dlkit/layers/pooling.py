"""Pooling of the states of all steps to one vector per sequence; padding is excluded.

A state (N, T, D) is of a step below the sequence's length; lengths (N,) is None where all have T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.layers.options import check_choice

POOLINGS = ("last", "mean", "max", "attention")


def step_mask(lengths: Tensor, size: int) -> Tensor:
    """True for steps of the sequence, False for padding: (N,) -> (N, size)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class LastStep(nn.Module):
    """The state after the last step; for the backward half, the state at the first step."""

    def __init__(self, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional = bidirectional

    def forward(self, states: Tensor, lengths: Tensor | None) -> Tensor:  # (N, T, D) -> (N, D)
        if lengths is None:
            last = states[:, -1]
        else:
            last = states[torch.arange(states.shape[0], device=states.device), lengths - 1]
        if not self.bidirectional:
            return last
        half = states.shape[2] // 2
        return torch.cat([last[:, :half], states[:, 0, half:]], dim=1)


class MeanOverSteps(nn.Module):
    def forward(self, states: Tensor, lengths: Tensor | None) -> Tensor:  # (N, T, D) -> (N, D)
        if lengths is None:
            return states.mean(dim=1)
        kept = states.masked_fill(~step_mask(lengths, states.shape[1])[:, :, None], 0)
        return kept.sum(dim=1) / lengths[:, None]


class MaxOverSteps(nn.Module):
    def forward(self, states: Tensor, lengths: Tensor | None) -> Tensor:  # (N, T, D) -> (N, D)
        if lengths is not None:
            states = states.masked_fill(~step_mask(lengths, states.shape[1])[:, :, None], -torch.inf)
        return states.amax(dim=1)


class AttentionPooling(nn.Module):
    """The mean of the states, weighted by softmax over the steps of vᵀ tanh(W h + b).

    Yang et al., "Hierarchical attention networks for document classification", 2016, equations 5 to 7. With
    `record_weights` the last call's weights, (N, T), stay in `weights`.
    """

    weights: Tensor | None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)
        self.record_weights, self.weights = False, None

    def forward(self, states: Tensor, lengths: Tensor | None) -> Tensor:  # (N, T, D) -> (N, D)
        scores = self.score(self.hidden(states).tanh()).squeeze(2)  # (N, T)
        if lengths is not None:
            scores = scores.masked_fill(~step_mask(lengths, states.shape[1]), -torch.inf)
        weights = scores.softmax(dim=1)
        if self.record_weights:
            self.weights = weights
        return torch.einsum("nt,ntd->nd", weights, states)


def pooling(name: str, width: int, bidirectional: bool) -> nn.Module:
    """The pooling with that name, for states of that width.

    Raises: UsageError where there is none.
    """
    check_choice("pooling", name, POOLINGS)
    if name == "last":
        return LastStep(bidirectional)
    return {"mean": MeanOverSteps, "max": MaxOverSteps}[name]() if name != "attention" else AttentionPooling(width)
