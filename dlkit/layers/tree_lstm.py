"""The two Tree-LSTM layers with their weights; their computation is in dlkit.layers.tree_recursion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit.layers.recurrent import initialize_gates
from dlkit.layers.tree_recursion import child_sum_lstm, first_states, nary_lstm


class _Gates(nn.Module):
    """w and b for the words, shared by all nodes (f, i, o, u stacked), and u for the children's states."""

    def __init__(self, size: int, hidden_size: int, columns: int) -> None:
        super().__init__()
        span = hidden_size**-0.5  # like nn.LSTM
        self.hidden_size = hidden_size
        self.w = nn.Parameter(torch.empty(4 * hidden_size, size).uniform_(-span, span))
        self.b = nn.Parameter(torch.zeros(4 * hidden_size))
        self.u = nn.Parameter(torch.empty((3 + columns) * hidden_size, columns * hidden_size).uniform_(-span, span))
        self.products = 0

    def first(self, x: Tensor, leaves: int) -> tuple[Tensor, Tensor]:
        """h and c of the leaves (leaves, H)."""
        H = self.hidden_size
        self.products = x.shape[1] * H * (3 * leaves + 4 * (len(x) - leaves))
        return first_states(F.linear(x[:leaves], self.w[H:], self.b[H:]))

    def above(self, x: Tensor, leaves: int) -> Tensor:
        """W x + b of the inner nodes (inner, 4H), or b (4H,) if they have no words."""
        return F.linear(x[leaves:], self.w, self.b) if len(x) > leaves else self.b

    @torch.no_grad()
    def initialize(self, scheme: str, forget_bias: float) -> None:
        """Draw each gate by the scheme (dlkit.layers.init); forget_bias is added to the forget gate's bias."""
        initialize_gates(self.w, self.hidden_size, scheme)
        initialize_gates(self.u, self.hidden_size, scheme)
        self.b[: self.hidden_size] += forget_bias

    def multiply_adds(self, output: Tensor) -> int:
        """For the last call."""
        return self.products


class NaryLSTM(_Gates):
    """N-ary: each of up to `arity` children has its own U in every gate."""

    def __init__(self, size: int, hidden_size: int, arity: int) -> None:
        super().__init__(size, hidden_size, arity)
        self.arity = arity

    def forward(self, x: Tensor, children: Tensor, levels: Sequence[int]) -> Tensor:
        """x: the words of all nodes (nodes, D), or only of the leaves; children (inner, arity) -> h (nodes, H)."""
        h, c = self.first(x, levels[1])
        f, rest = self.above(x, levels[1]).tensor_split((self.hidden_size,), dim=-1)
        self.products += self.u.numel() * len(children)
        return nary_lstm(h, c, torch.cat([f] * self.arity + [rest], dim=-1), self.u, children, levels)


class ChildSumLSTM(_Gates):
    """Child-sum: the children's states are summed, but each child has its own forget gate."""

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__(size, hidden_size, 1)

    def forward(self, x: Tensor, edges: Tensor, edge_levels: Sequence[int], levels: Sequence[int]) -> Tensor:
        """x as in NaryLSTM; edges (E, 2), child and parent -> h (nodes, H)."""
        h, c = self.first(x, levels[1])
        self.products += self.hidden_size**2 * (3 * (levels[-1] - levels[1]) + len(edges))
        return child_sum_lstm(h, c, self.above(x, levels[1]), self.u, edges, edge_levels, levels)
