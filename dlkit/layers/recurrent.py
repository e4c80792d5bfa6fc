"""A recurrent layer over padded sequences, forward, backward or both, and its initialization.

Padding has no part in it: a forward pass meets it only behind the last step, and a backward pass reads each sequence
turned round within its own length. So torch's fused kernels run on the padded tensor, which on a CPU takes about half
the time of a packed one (tests/benchmarks/recurrent_speed.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlkit.layers.init import initialize
from dlkit.layers.recurrent_cells import CellWeights, Step, unroll


class Pass(nn.Module):
    """One direction of one layer: torch's nn.RNN, nn.LSTM or nn.GRU, by its fused kernel, or by `step` if given."""

    def __init__(self, kernel: nn.RNNBase, step: Step | None = None) -> None:
        super().__init__()
        assert kernel.num_layers == 1 and not kernel.bidirectional and kernel.batch_first, kernel
        self.kernel = kernel
        self.step = step

    def forward(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, H)
        if self.step is None:
            states: Tensor = self.kernel(x)[0]
            return states
        zeros = x.new_zeros(len(x), self.kernel.hidden_size)
        state = (zeros, zeros) if isinstance(self.kernel, nn.LSTM) else (zeros,)
        return unroll(self.step, x, state, CellWeights(*self.kernel.all_weights[0]))

    def multiply_adds(self, output: Tensor) -> int:
        """For one sequence; output (1, T, H)."""
        w, u = self.kernel.all_weights[0][:2]
        return output.shape[1] * (w.numel() + u.numel())


class RecurrentLayer(nn.Module):
    """The forward pass and an optional backward pass, with concatenated states."""

    def __init__(self, forwards: nn.Module, backwards: nn.Module | None = None) -> None:
        super().__init__()
        self.forwards = forwards
        self.backwards = backwards

    def forward(self, x: Tensor, turned: Tensor | None) -> Tensor:  # (N, T, D) -> (N, T, H or 2H)
        """turned: the result of `turned_steps`, or None if every sequence has T steps."""
        states: Tensor = self.forwards(x)
        if self.backwards is None:
            return states
        return torch.cat([states, turn(self.backwards(turn(x, turned)), turned)], dim=2)


def turned_steps(lengths: Tensor, size: int) -> Tensor:
    """The index that reverses each sequence within its length: (N,) -> (N, size)."""
    steps = torch.arange(size, device=lengths.device)
    return torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)


def turn(x: Tensor, turned: Tensor | None) -> Tensor:  # (N, T, D) -> (N, T, D)
    return x.flip(1) if turned is None else x.gather(1, turned[:, :, None].expand_as(x))


@torch.no_grad()
def initialize_recurrent(kernel: nn.RNNBase, scheme: str, forget_bias: float = 0.0) -> None:
    """Initialize W of each gate by the scheme (layers.init), U orthogonal, biases 0; `torch` selects torch's own.

    Orthogonal: Saxe, McClelland and Ganguli 2013 (1312.6120). forget_bias is added to the bias of the gate that keeps
    the state, an LSTM's f or a GRU's z, so that it is kept at first: Gers et al. 2000; Jozefowicz et al. 2015 recommend
    1, Tallec and Ollivier 2018 (1804.11188) up to the logarithm of the steps that are to be remembered.
    """
    w, u, b, b_u = kernel.all_weights[0]
    H = kernel.hidden_size
    if scheme != "torch":
        b.zero_()
        b_u.zero_()
        initialize_gates(w, H, scheme)
        for gate in u.chunk(len(u) // H):
            nn.init.orthogonal_(gate)
    if isinstance(kernel, nn.LSTM | nn.GRU):
        b[H : 2 * H] += forget_bias


def initialize_gates(weights: Tensor, size: int, scheme: str) -> None:
    """Draw weights (gates · size, inputs) by the scheme, each gate as a separate layer without gain."""
    for gate in weights.chunk(len(weights) // size):
        layer = nn.Linear(1, 1, bias=False, device="meta")
        layer.weight = nn.Parameter(gate)
        initialize(layer, scheme)
