"""One step of a recurrent network, as the papers write it: the simple cell, LSTM and GRU.

The weights have torch's shapes and order of gates, so that those of nn.RNN, nn.LSTM and nn.GRU serve both.
σ is the logistic function, ⊙ the product number by number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class CellWeights(NamedTuple):
    """Stacked W and U of all gates, and their biases; gates: 1 for the simple cell, 4 for LSTM, 3 for GRU."""

    w: Tensor  # (gates · H, D), for the input
    u: Tensor  # (gates · H, H), for the state
    b: Tensor  # (gates · H,)
    b_u: Tensor  # (gates · H,), a second bias, added to U's product, as in torch


State = tuple[Tensor, ...]  # h (N, H), and for LSTM the memory c (N, H)
Step = Callable[[Tensor, State, CellWeights], State]


def tanh_step(x: Tensor, state: State, weights: CellWeights) -> State:
    """h ← tanh(W x + U h + b): Elman, "Finding structure in time", Cognitive Science 14, 1990."""
    (h,) = state
    return (torch.tanh(F.linear(x, weights.w, weights.b) + F.linear(h, weights.u, weights.b_u)),)


def relu_step(x: Tensor, state: State, weights: CellWeights) -> State:
    """h ← max(0, W x + U h + b): Le, Jaitly and Hinton 2015 (1504.00941)."""
    (h,) = state
    return (torch.relu(F.linear(x, weights.w, weights.b) + F.linear(h, weights.u, weights.b_u)),)


def lstm_step(x: Tensor, state: State, weights: CellWeights) -> State:
    """i, f, o = σ(W x + U h + b), each with its own W, U, b;  g = tanh(…);  c ← f ⊙ c + i ⊙ g;  h ← o ⊙ tanh(c).

    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997. Differs from that paper: the
    forget gate f, of Gers, Schmidhuber and Cummins 2000; one memory a block; both squashing functions are tanh.
    """
    h, c = state
    gates = F.linear(x, weights.w, weights.b) + F.linear(h, weights.u, weights.b_u)  # (N, 4H)
    i, f, g, o = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(x: Tensor, state: State, weights: CellWeights) -> State:
    """r, z = σ(W x + U h + b);  n = tanh(W x + b + r ⊙ (U h + b_u));  h ← z ⊙ h + (1 − z) ⊙ n.

    Cho et al., "Learning phrase representations using RNN encoder–decoder", 2014 (1406.1078), appendix A. Differs from
    the paper, as torch.nn.GRU does: r comes behind the product with U, where `gru_paper_step` has it before.
    """
    (h,) = state
    r, z, n = F.linear(x, weights.w, weights.b).chunk(3, dim=1)
    r_u, z_u, n_u = F.linear(h, weights.u, weights.b_u).chunk(3, dim=1)
    z = (z + z_u).sigmoid()
    return (z * h + (1 - z) * torch.tanh(n + (r + r_u).sigmoid() * n_u),)


def gru_paper_step(x: Tensor, state: State, weights: CellWeights) -> State:
    """As in the paper: n = tanh(W x + b + U (r ⊙ h)), the rest as in `gru_step`."""
    (h,) = state
    H = h.shape[1]
    r, z, n = F.linear(x, weights.w, weights.b).chunk(3, dim=1)
    r_u, z_u = F.linear(h, weights.u[: 2 * H], weights.b_u[: 2 * H]).chunk(2, dim=1)
    r, z = (r + r_u).sigmoid(), (z + z_u).sigmoid()
    return (z * h + (1 - z) * torch.tanh(n + F.linear(r * h, weights.u[2 * H :], weights.b_u[2 * H :])),)


def unroll(step: Step, x: Tensor, state: State, weights: CellWeights) -> Tensor:
    """The outputs of all steps, from an initial state: (N, T, D) -> (N, T, H)."""
    outputs = []
    for x_t in x.unbind(1):
        state = step(x_t, state, weights)
        outputs.append(state[0])
    return torch.stack(outputs, dim=1)
