"""Batches of trees of any shape, ordered by level, so that one operation computes a level of all trees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit.data.splits import TreeSamples
from dlkit.data.text.ragged import ranges

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trees:
    """A batch of trees. The nodes of all trees are sorted by height: leaves first, children before their parents.

    N is the number of trees, M of output nodes, E of edges (nodes - N). All indices refer to the sorted nodes; all
    tensors are int64 and on one device, except `lengths`, which is on the CPU. A model returns logits (M, K), one row
    per node in `output_nodes`: the roots (M = N, in the order of the trees), every labelled node in training, or all
    nodes.
    """

    tokens: Tensor  # (nodes,) vocabulary ids, 0 for nodes without a word (1 is an unknown word)
    parents: Tensor  # (nodes,), -1 for a root
    children: Tensor  # (nodes, A), padded with -1; A is the largest number of children, at least 2
    tree: Tensor  # (nodes,) the tree of each node
    roots: Tensor  # (N,)
    output_nodes: Tensor  # (M,) grouped by tree, within a tree in the order of its samples
    levels: tuple[int, ...]  # (L + 1,): level l is nodes[levels[l] : levels[l + 1]]; its children precede levels[l]
    edges: Tensor  # (E, 2) child and parent, sorted by parent
    edge_levels: tuple[int, ...]  # (L + 1,): edges[edge_levels[l] : edge_levels[l + 1]] have parents of level l
    leaves: Tensor  # (N, T) the nodes with words, in word order, padded with -1
    lengths: Tensor  # (N,) number of words of each tree, on the CPU

    def __len__(self) -> int:
        """The number of output nodes, which is the size of a batch."""
        return len(self.output_nodes)

    def to(self, device: torch.device) -> Trees:
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("tokens", "parents", "children", "tree", "roots", "output_nodes", "edges", "leaves")
        }
        return replace(self, **moved)

    def chunk(self, count: int) -> tuple[Trees, ...]:
        """At most `count` parts, as from Tensor.chunk over the trees."""
        trees = torch.arange(len(self.roots), device=self.roots.device)
        return tuple(self._slice(int(part[0]), int(part[-1]) + 1) for part in trees.chunk(count))

    def _slice(self, first: int, last: int) -> Trees:
        """Trees first to last - 1."""
        mask = (self.tree >= first) & (self.tree < last)  # (nodes,)
        index = torch.cat([mask.cumsum(0) - 1, mask.new_full((1,), -1, dtype=torch.long)])  # old → new, -1 → -1
        edge_mask = mask[self.edges[:, 0]]
        counts, edge_counts = _counts_before(mask), _counts_before(edge_mask)
        return Trees(
            tokens=self.tokens[mask],
            parents=index[self.parents[mask]],
            children=index[self.children[mask]],
            tree=self.tree[mask] - first,
            roots=index[self.roots[first:last]],
            output_nodes=index[self.output_nodes[mask[self.output_nodes]]],
            levels=tuple(counts[level] for level in self.levels),
            edges=index[self.edges[edge_mask]],
            edge_levels=tuple(edge_counts[level] for level in self.edge_levels),
            leaves=index[self.leaves[first:last]],
            lengths=self.lengths[first:last],
        )


def _counts_before(mask: Tensor) -> list[int]:
    """The number of true elements before each position, and in total."""
    return [0, *mask.cumsum(0).tolist()]


def collate_trees(samples: TreeSamples, indices: Ints, lookup: Ints, outputs: str = "roots") -> tuple[Trees, Ints]:
    """Collate trees into one batch on the CPU; also returns the labels (M,) of its output nodes.

    outputs is "roots", "labelled" or "all"; `lookup` (ragged.token_lookup) maps words of the data set to ids.
    """
    first, sizes = samples.starts[indices], np.diff(samples.starts)[indices]  # (N,)
    offsets = np.cumsum(sizes) - sizes
    nodes = ranges(first, sizes)  # (nodes,) indices into the samples, tree after tree
    tree = np.repeat(np.arange(len(indices)), sizes)
    order = np.argsort(samples.heights[nodes], kind="stable")  # by level
    position = np.empty_like(order)  # the inverse of order
    position[order] = np.arange(len(order))
    local = samples.parents[nodes]
    parents = np.where(local < 0, -1, position[np.where(local < 0, 0, local + offsets[tree])])
    heights = samples.heights[nodes][order]
    levels = np.searchsorted(heights, np.arange(int(heights[-1]) + 2))
    edges, edge_levels = _edges(parents, position, levels)
    words = samples.words[nodes]
    tokens = np.where(words < 0, 0, lookup[words] if len(lookup) else 0)
    labels = samples.labels[nodes]
    output_nodes = _output_nodes(outputs, offsets, labels)
    leaves, lengths = _leaves(samples, first, sizes, offsets, position)
    trees = Trees(
        tokens=torch.from_numpy(tokens[order]),
        parents=torch.from_numpy(parents[order]),
        children=torch.from_numpy(_children(edges, samples.siblings[nodes][order], len(order))),
        tree=torch.from_numpy(tree[order]),
        roots=torch.from_numpy(position[offsets]),
        output_nodes=torch.from_numpy(position[output_nodes]),
        levels=tuple(levels.tolist()),
        edges=torch.from_numpy(edges),
        edge_levels=tuple(edge_levels.tolist()),
        leaves=torch.from_numpy(leaves),
        lengths=torch.from_numpy(lengths),
    )
    return trees, labels[output_nodes]


def _output_nodes(outputs: str, offsets: Ints, labels: Ints) -> Ints:
    if outputs == "roots":
        return offsets  # the root is the first node of a tree
    return np.flatnonzero(labels >= 0) if outputs == "labelled" else np.arange(len(labels))


def _edges(parents: Ints, position: Ints, levels: Ints) -> tuple[Ints, Ints]:
    """(E, 2) child and parent, sorted by parent, children in the order of the samples; and the start of each level."""
    has_parent = parents >= 0
    children, parents = position[has_parent], parents[has_parent]
    by_parent = np.argsort(parents, kind="stable")
    edges = np.stack([children[by_parent], parents[by_parent]], axis=1)
    return edges, np.searchsorted(edges[:, 1], levels)


def _children(edges: Ints, siblings: npt.NDArray[np.int32], nodes: int) -> Ints:
    """(nodes, A); siblings is the position of each node among the children of its parent."""
    width = max(2, int(siblings.max(initial=0)) + 1)
    children = np.full((nodes, width), -1, dtype=np.int64)
    children[edges[:, 1], siblings[edges[:, 0]]] = edges[:, 0]
    return children


def _leaves(samples: TreeSamples, first: Ints, sizes: Ints, offsets: Ints, position: Ints) -> tuple[Ints, Ints]:
    """(N, T) nodes with words, in word order, and their number in each tree."""
    reading = samples.reading[ranges(first, sizes)]  # nodes within their tree, in word order, padded with -1
    real = reading >= 0
    lengths = np.add.reduceat(real, offsets).astype(np.int64)
    nodes = position[reading[real] + np.repeat(offsets, lengths)]
    padded = np.full((len(sizes), int(lengths.max())), -1, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = nodes
    return padded, lengths
