"""Self-attention: each position computes a weighted mean over all positions.

Vaswani et al., "Attention is all you need", 2017 (1706.03762). In every head, with its own Q, K and V of width d,

    attention(Q, K, V) = softmax(QKᵀ/√d) V        section 3.2.1, equation 1

the softmax over the positions looked at. The parameters have the names and shapes of torch.nn.MultiheadAttention, so
that weights go from one to the other unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attention_weights(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√d): the weight of each position (column) for each position (row); rows sum to 1.

    queries (…, T, d), keys (…, S, d) -> (…, T, S). mask broadcasts to that: True where a position may be looked at.
    A position that may look nowhere has a row of zeros.
    """
    scores = queries @ keys.transpose(-2, -1) / sqrt(queries.shape[-1])  # (…, T, S)
    if mask is None:
        return scores.softmax(-1)
    lowest = torch.finfo(scores.dtype).min  # not -inf, whose softmax over an entire row is NaN
    return scores.masked_fill(~mask, lowest).softmax(-1) * mask


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """The mask that excludes padding: lengths (N,) -> (N, 1, 1, size), for every head and every query."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None])[:, None, None, :]


class SelfAttention(nn.Module):
    """Multi-head self-attention (section 3.2.2): Q, K, V by one projection, attention in each head, then a projection.

    dropout is applied to the attention weights. forward uses torch's fused kernel; with `record_weights` it computes
    the formula explicitly and stores the weights, (N, heads, T, T), before dropout, in `weights`.
    """

    weights: Tensor | None

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} does not divide into {heads} heads"
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # Q, K, V
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)  # like nn.MultiheadAttention
        nn.init.zeros_(self.out_proj.bias)
        self.record_weights, self.weights = False, None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # (N, T, D) -> (N, T, D)
        """mask: bool, broadcasts to (N, heads, T, T), True for positions to attend to; see padding_mask."""
        N, T, D = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(N, T, 3, self.heads, D // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (N, heads, T, d) each
        rate = self.dropout if self.training else 0.0
        if self.record_weights:
            self.weights = attention_weights(queries, keys, mask)
            heads = F.dropout(self.weights, rate) @ values
        else:
            heads = F.scaled_dot_product_attention(queries, keys, values, mask, rate)
        joined: Tensor = self.out_proj(heads.transpose(1, 2).reshape(N, T, D))
        return joined

    def in_proj(self) -> nn.Linear:
        """The projection to Q, K and V as a layer with the same parameters, for initialization."""
        layer = nn.Linear(1, 1, device="meta")
        layer.weight, layer.bias = self.in_proj_weight, self.in_proj_bias
        return layer

    def multiply_adds(self, output: Tensor) -> int:
        """For one sequence, without the last projection; output (1, T, D)."""
        T, D = output.shape[-2:]
        return 3 * T * D * D + 2 * T * T * D  # in_proj; QKᵀ and the weighted mean

    def extra_repr(self) -> str:
        return f"{self.out_proj.in_features}, heads={self.heads}, dropout={self.dropout}"


@contextmanager
def record_attention(model: nn.Module) -> Iterator[list[SelfAttention]]:
    """Within this context each self-attention records the weights of its last call; yields them in order."""
    layers = [module for module in model.modules() if isinstance(module, SelfAttention)]
    for layer in layers:
        layer.record_weights = True
    try:
        yield layers
    finally:
        for layer in layers:
            layer.record_weights, layer.weights = False, None
