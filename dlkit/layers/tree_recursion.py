"""LSTM over trees, one level of all trees at a time: N-ary and child-sum composition, with explicit gradients.

Tai, Socher and Manning, "Improved semantic representations from tree-structured long short-term memory networks", 2015
(1503.00075), section 3. Nodes, edges and levels as in data.text.tree_batches: nodes stand by level, every child before
its parent; those of level 0, the leaves, have no child, and all others are inner nodes. Gates stand beside each other
in the order f, i, o, u; in an N-ary cell there is an f a child.

Autograd would copy all states, or add up a gradient of U, at every level. Here a level costs a dozen calls, the
gradient of U is one product over all nodes, and time and memory grow with the nodes, whatever their depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def first_states(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """h and c (n, H) of nodes without a child, from W x + b of the gates i, o and u (n, 3H)."""
    i, o, u = inputs.chunk(3, dim=1)
    c = i.sigmoid() * u.tanh()
    return o.sigmoid() * c.tanh(), c


def nary_lstm(h: Tensor, c: Tensor, inputs: Tensor, u: Tensor, children: Tensor, levels: Sequence[int]) -> Tensor:
    """The states h (nodes, H) of all nodes, from those of level 0. Equations 9 to 14 of the paper.

        f_k = σ(W_f x + Σ_l U_f^kl h_l + b_f)     i, o = σ(W x + Σ_l U^l h_l + b)     u = tanh(W x + Σ_l U^l h_l + b)
        c = i ⊙ u + Σ_k f_k ⊙ c_k                 h = o ⊙ tanh(c)

    h, c (leaves, H); inputs: W x + b of the other nodes (inner, (K + 3)H), or b alone ((K + 3)H,) where they have no x;
    u ((K + 3)H, K·H); children (inner, K), -1 where one is missing: its state is 0.
    """
    states: Tensor = _Nary.apply(*_one_type(h, c, inputs, u), children, levels)
    return states


def child_sum_lstm(
    h: Tensor,
    c: Tensor,
    inputs: Tensor,
    u: Tensor,
    edges: Tensor,
    edge_levels: Sequence[int],
    levels: Sequence[int],
) -> Tensor:
    """The states h (nodes, H) of all nodes, from those of level 0. Equations 2 to 8, for any number of children.

        s = Σ_k h_k     i, o = σ(W x + U s + b)     u = tanh(W x + U s + b)     f_k = σ(W_f x + U_f h_k + b_f)
        c = i ⊙ u + Σ_k f_k ⊙ c_k                   h = o ⊙ tanh(c)

    h, c (leaves, H); inputs (inner, 4H) or (4H,) as in `nary_lstm`; u (4H, H); edges (E, 2), child and parent.
    """
    states: Tensor = _ChildSum.apply(*_one_type(h, c, inputs, u), edges, edge_levels, levels)
    return states


@dataclass(frozen=True)
class Descent:
    """The nodes by their distance from the root, for computation from the root down."""

    order: Tensor  # (nodes,) the node at each position, numbered as in the trees
    position: Tensor  # (nodes,) the inverse
    parent: Tensor  # (nodes - roots, A) the position of the parent in the column of the child's side, else -1
    levels: list[int]  # roots first


def descent(parents: Tensor, children: Tensor, levels: Sequence[int]) -> Descent:
    """parents (nodes,), children (nodes, A) and levels as in dlkit.data.text.tree_batches."""
    depth = torch.zeros_like(parents)
    for a, b in reversed(list(pairwise(levels[:-1]))):  # the highest level has only roots
        depth[a:b] = torch.where(parents[a:b] < 0, 0, depth[parents[a:b]] + 1)
    order = depth.argsort(stable=True)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=order.device)
    counts = depth.bincount()
    below = order[int(counts[0]) :]  # all nodes that have a parent
    side = children[parents[below]] == below[:, None]  # (below, A)
    parent = torch.where(side, position[parents[below]][:, None], -1)
    return Descent(order, position, parent, [0, *counts.cumsum(0).tolist()])


def _one_type(*tensors: Tensor) -> list[Tensor]:
    """Autocast may have reduced the precision of some; the recursion uses the highest."""
    widest = max((tensor.dtype for tensor in tensors), key=lambda dtype: dtype.itemsize)
    return [tensor.to(widest) for tensor in tensors]


def _spans(levels: Sequence[int]) -> list[tuple[int, int]]:
    """Start and end of each level above 0, counted from the first node above level 0."""
    return [(a - levels[1], b - levels[1]) for a, b in pairwise(levels[1:]) if a < b]


class _Nary(torch.autograd.Function):
    """One more row than nodes: a missing child, number -1, is the last row, of zeros."""

    @staticmethod
    def forward(
        ctx: Any, h_0: Tensor, c_0: Tensor, inputs: Tensor, u: Tensor, children: Tensor, levels: Sequence[int]
    ) -> Tensor:
        (first, H), (inner, K) = h_0.shape, children.shape
        children = children.where(children >= 0, first + inner)
        h, c = h_0.new_zeros(first + inner + 1, H), h_0.new_zeros(first + inner + 1, H)
        h[:first], c[:first] = h_0, c_0
        below = h_0.new_empty(inner, K * H)  # the children's h, concatenated
        gates, tanh_c = h_0.new_empty(inner, (K + 3) * H), h_0.new_empty(inner, H)
        for a, b in _spans(levels):
            kids, g, level = children[a:b].reshape(-1), gates[a:b], slice(first + a, first + b)
            torch.index_select(h, 0, kids, out=below[a:b].view(-1, H))
            torch.addmm(inputs[a:b] if inputs.ndim == 2 else inputs, below[a:b], u.t(), out=g)
            g[:, :-H].sigmoid_()
            g[:, -H:].tanh_()
            f, i, o = g[:, : K * H].view(b - a, K, H), g[:, -3 * H : -2 * H], g[:, -2 * H : -H]
            kept = f * c.index_select(0, kids).view(-1, K, H)
            torch.addcmul(kept.sum(1), i, g[:, -H:], out=c[level])
            torch.tanh(c[level], out=tanh_c[a:b])
            torch.mul(o, tanh_c[a:b], out=h[level])
        ctx.save_for_backward(u, children, below, gates, tanh_c, c)
        ctx.levels, ctx.one_input = levels, inputs.ndim == 1
        return h[:-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, children, below, gates, tanh_c, c = ctx.saved_tensors
        (inner, K), H = children.shape, tanh_c.shape[1]
        first = len(grad) - inner
        f, i, o, g = gates.unflatten(1, (K + 3, H)).split((K, 1, 1, 1), dim=1)
        # the derivative with respect to a node's c through f, i and u; to its h through o; and to its c through h
        by_c = torch.cat([f * (1 - f) * c[children], i * (1 - i) * g, i * (1 - g * g)], dim=1)  # (inner, K + 2, H)
        by_h, c_by_h = (o * (1 - o))[:, 0] * tanh_c, o[:, 0] * (1 - tanh_c * tanh_c)
        d_h, d_c = torch.cat([grad, grad.new_zeros(1, H)]), grad.new_zeros(len(grad) + 1, H)
        d_gates = torch.empty_like(gates)
        for a, b in reversed(list(_spans(ctx.levels))):
            kids, d, level = children[a:b].reshape(-1), d_gates[a:b].view(-1, K + 3, H), slice(first + a, first + b)
            d_state = torch.addcmul(d_c[level], d_h[level], c_by_h[a:b])[:, None]
            torch.mul(by_c[a:b, :-1], d_state, out=d[:, : K + 1])
            torch.mul(by_h[a:b], d_h[level], out=d[:, -2])
            torch.mul(by_c[a:b, -1], d_state[:, 0], out=d[:, -1])
            d_h.index_add_(0, kids, (d_gates[a:b] @ u).view(-1, H))
            d_c.index_add_(0, kids, (f[a:b] * d_state).view(-1, H))
        d_inputs = d_gates.sum(0) if ctx.one_input else d_gates
        return d_h[:first], d_c[:first], d_inputs, d_gates.t() @ below, None, None


class _ChildSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h_0: Tensor,
        c_0: Tensor,
        inputs: Tensor,
        u: Tensor,
        edges: Tensor,
        edge_levels: Sequence[int],
        levels: Sequence[int],
    ) -> Tensor:
        first, H = h_0.shape
        inner = levels[-1] - first
        kids, owners = edges[:, 0].contiguous(), edges[:, 1] - first
        h, c = h_0.new_empty(first + inner, H), h_0.new_empty(first + inner, H)
        h[:first], c[:first] = h_0, c_0
        h_kids, sums = h_0.new_empty(len(kids), H), h_0.new_zeros(inner, H)
        f, gates, tanh_c = torch.empty_like(h_kids), h_0.new_empty(inner, 3 * H), h_0.new_empty(inner, H)
        spans = [
            (a - first, b - first, p, q)
            for (a, b), (p, q) in zip(pairwise(levels[1:]), pairwise(edge_levels[1:]), strict=True)
            if a < b
        ]
        for a, b, p, q in spans:
            level, below, above = slice(first + a, first + b), kids[p:q], owners[p:q]
            torch.index_select(h, 0, below, out=h_kids[p:q])
            sums.index_add_(0, above, h_kids[p:q])
            own = inputs[a:b] if inputs.ndim == 2 else inputs.expand(b - a, -1)
            g = torch.addmm(own[:, H:], sums[a:b], u[H:].t(), out=gates[a:b])
            torch.addmm(own[:, :H].index_select(0, above - a), h_kids[p:q], u[:H].t(), out=f[p:q]).sigmoid_()
            g[:, : 2 * H].sigmoid_()
            g[:, 2 * H :].tanh_()
            torch.mul(g[:, :H], g[:, 2 * H :], out=c[level])
            c.index_add_(0, above + first, f[p:q] * c.index_select(0, below))
            torch.tanh(c[level], out=tanh_c[a:b])
            torch.mul(g[:, H : 2 * H], tanh_c[a:b], out=h[level])
        ctx.save_for_backward(u, kids, owners, h_kids, sums, f, gates, tanh_c, c)
        ctx.spans, ctx.one_input = spans, inputs.ndim == 1
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, kids, owners, h_kids, sums, f, gates, tanh_c, c = ctx.saved_tensors
        inner, H = tanh_c.shape
        first = len(grad) - inner
        i, o, g = gates.chunk(3, dim=1)
        f_by_c, i_by_c, g_by_c = f * (1 - f) * c[kids], i * (1 - i) * g, i * (1 - g * g)
        by_h, c_by_h = o * (1 - o) * tanh_c, o * (1 - tanh_c * tanh_c)
        d_h, d_c, d_f, d_gates = grad.clone(), torch.zeros_like(grad), torch.empty_like(f), torch.empty_like(gates)
        for a, b, p, q in reversed(ctx.spans):
            level, d, above = slice(first + a, first + b), d_gates[a:b], owners[p:q] - a
            d_state = torch.addcmul(d_c[level], d_h[level], c_by_h[a:b])
            torch.mul(i_by_c[a:b], d_state, out=d[:, :H])
            torch.mul(by_h[a:b], d_h[level], out=d[:, H : 2 * H])
            torch.mul(g_by_c[a:b], d_state, out=d[:, 2 * H :])
            d_kept = d_state.index_select(0, above)
            torch.mul(f_by_c[p:q], d_kept, out=d_f[p:q])
            d_h.index_add_(0, kids[p:q], torch.addmm((d @ u[H:]).index_select(0, above), d_f[p:q], u[:H]))
            d_c.index_add_(0, kids[p:q], f[p:q] * d_kept)
        d_u = torch.cat([d_f.t() @ h_kids, d_gates.t() @ sums])
        d_inputs = torch.cat([torch.zeros_like(sums).index_add_(0, owners, d_f), d_gates], dim=1)
        return d_h[:first], d_c[:first], d_inputs.sum(0) if ctx.one_input else d_inputs, d_u, None, None, None
