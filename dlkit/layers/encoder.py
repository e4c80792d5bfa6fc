"""The transformer's encoder block: self-attention, then two dense layers per position, both with residual connections.

Vaswani et al., "Attention is all you need", 2017 (1706.03762), figure 1. The normalization stands before each branch
and not behind the addition, as in Dosovitskiy et al. 2020 (2010.11929), section 3.1:

    x ← x + attention(norm(x))
    x ← x + mlp(norm(x))

The parts have the names of torchvision's block, so that its weights load unchanged.
"""

from __future__ import annotations

from torch import Tensor, nn

from dlkit.layers.attention import SelfAttention
from dlkit.layers.dropout import dropout as dropout_of


class EncoderBlock(nn.Module):
    """x (N, T, D) -> (N, T, D), with `hidden` units between the two dense layers.

    dropout stands behind each branch and behind the activation; attention_dropout is of the attention weights;
    drop_path is what leaves a whole branch out (dlkit.layers.drop_path), or nn.Identity().
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: nn.Module,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = SelfAttention(width, heads, attention_dropout)
        self.dropout = dropout_of(dropout)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), activation, dropout_of(dropout), nn.Linear(hidden, width), dropout_of(dropout)
        )
        self.drop_path = drop_path or nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # (N, T, D) -> (N, T, D)
        """mask: as for dlkit.layers.attention.SelfAttention."""
        x = x + self.drop_path(self.dropout(self.self_attention(self.ln_1(x), mask)))
        x = x + self.drop_path(self.mlp(self.ln_2(x)))
        return x
