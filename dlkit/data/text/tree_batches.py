"""Trees of any shape as one batch, ordered by level, so that a level is computed for all trees at once."""

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
    """A batch of trees. The nodes of all of them stand in one row, by height: leaves first, a child before its parent.

    nodes is their number, N that of the trees, M of the answers that are asked for, E of the edges (nodes - N).
    All indices are into the row of nodes; all tensors are int64 and on one device but `lengths`, which is on the CPU.
    A model gives logits (M, K), one row for each node in `asked`: the roots alone (M = N, in the trees' order), or
    every labelled node in training, or all nodes.
    """

    tokens: Tensor  # (nodes,) vocabulary ids, 0 where a node has no word (1 is an unknown word)
    parents: Tensor  # (nodes,), -1 of a root
    children: Tensor  # (nodes, A), -1 behind the last; A is the most children of a node, and 2 at least
    tree: Tensor  # (nodes,) which tree a node belongs to
    roots: Tensor  # (N,)
    asked: Tensor  # (M,) grouped by tree, in each in the order in which the tree is written
    levels: tuple[
        int, ...
    ]  # (L + 1,): level l is nodes[levels[l] : levels[l + 1]]; its children stand before levels[l]
    edges: Tensor  # (E, 2) child and parent, sorted by parent
    edge_levels: tuple[int, ...]  # (L + 1,): the edges whose parent is of level l are edges[edge_levels[l] : …[l + 1]]
    leaves: Tensor  # (N, T) the nodes that have a word, in word order; -1 behind the last
    lengths: Tensor  # (N,) words of each tree, on the CPU

    def __len__(self) -> int:
        """The answers that are asked for, which is what a batch counts."""
        return len(self.asked)

    def to(self, device: torch.device) -> Trees:
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("tokens", "parents", "children", "tree", "roots", "asked", "edges", "leaves")
        }
        return replace(self, **moved)

    def chunk(self, count: int) -> tuple[Trees, ...]:
        """At most `count` parts of whole trees, as Tensor.chunk cuts the trees."""
        trees = torch.arange(len(self.roots), device=self.roots.device)
        return tuple(self._part(int(part[0]), int(part[-1]) + 1) for part in trees.chunk(count))

    def _part(self, first: int, last: int) -> Trees:
        """The trees numbered first to last (excluded)."""
        kept = (self.tree >= first) & (self.tree < last)  # (nodes,)
        places = torch.cat([kept.cumsum(0) - 1, kept.new_full((1,), -1, dtype=torch.long)])  # of -1: -1
        edges_kept = kept[self.edges[:, 0]]
        counts, edge_counts = _before(kept), _before(edges_kept)
        return Trees(
            tokens=self.tokens[kept],
            parents=places[self.parents[kept]],
            children=places[self.children[kept]],
            tree=self.tree[kept] - first,
            roots=places[self.roots[first:last]],
            asked=places[self.asked[kept[self.asked]]],
            levels=tuple(counts[level] for level in self.levels),
            edges=places[self.edges[edges_kept]],
            edge_levels=tuple(edge_counts[level] for level in self.edge_levels),
            leaves=places[self.leaves[first:last]],
            lengths=self.lengths[first:last],
        )


def _before(kept: Tensor) -> list[int]:
    """How many of the first 0, 1, 2 … are kept."""
    return [0, *kept.cumsum(0).tolist()]


def gathered(samples: TreeSamples, indices: Ints, lookup: Ints, asked: str = "roots") -> tuple[Trees, Ints]:
    """These trees as one batch on the CPU, and the labels (M,) of the nodes asked: "roots", "labelled" or "all".

    lookup, of ragged.token_lookup, gives each of the samples' words its id.
    """
    first, sizes = samples.starts[indices], np.diff(samples.starts)[indices]  # (N,)
    offsets = np.cumsum(sizes) - sizes
    written = ranges(first, sizes)  # (nodes,) the nodes in the order in which they are written, tree after tree
    tree = np.repeat(np.arange(len(indices)), sizes)
    order = np.argsort(samples.heights[written], kind="stable")  # by level
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    local = samples.parents[written]
    parents = np.where(local < 0, -1, place[np.where(local < 0, 0, local + offsets[tree])])  # by writing order
    heights = samples.heights[written][order]
    levels = np.searchsorted(heights, np.arange(int(heights[-1]) + 2))
    edges, edge_levels = _edges(parents, place, levels)
    words = samples.words[written]
    tokens = np.where(words < 0, 0, lookup[words] if len(lookup) else 0)
    labels = samples.labels[written]
    chosen = _asked(asked, offsets, labels)
    leaves, lengths = _leaves(samples, first, sizes, offsets, place)
    trees = Trees(
        tokens=torch.from_numpy(tokens[order]),
        parents=torch.from_numpy(parents[order]),
        children=torch.from_numpy(_children(edges, samples.siblings[written][order], len(order))),
        tree=torch.from_numpy(tree[order]),
        roots=torch.from_numpy(place[offsets]),
        asked=torch.from_numpy(place[chosen]),
        levels=tuple(levels.tolist()),
        edges=torch.from_numpy(edges),
        edge_levels=tuple(edge_levels.tolist()),
        leaves=torch.from_numpy(leaves),
        lengths=torch.from_numpy(lengths),
    )
    return trees, labels[chosen]


def _asked(asked: str, offsets: Ints, labels: Ints) -> Ints:
    if asked == "roots":
        return offsets  # a tree is written from its root
    return np.flatnonzero(labels >= 0) if asked == "labelled" else np.arange(len(labels))


def _edges(parents: Ints, place: Ints, levels: Ints) -> tuple[Ints, Ints]:
    """(E, 2) child and parent by parent, children as written; and where each level's begin."""
    below = parents >= 0
    children, above = place[below], parents[below]
    by_parent = np.argsort(above, kind="stable")
    edges = np.stack([children[by_parent], above[by_parent]], axis=1)
    return edges, np.searchsorted(edges[:, 1], levels)


def _children(edges: Ints, siblings: npt.NDArray[np.int32], nodes: int) -> Ints:
    """(nodes, A), siblings being each node's place among its parent's children."""
    most = int(siblings.max(initial=0)) + 1
    children = np.full((nodes, max(2, most)), -1, dtype=np.int64)
    children[edges[:, 1], siblings[edges[:, 0]]] = edges[:, 0]
    return children


def _leaves(samples: TreeSamples, first: Ints, sizes: Ints, offsets: Ints, place: Ints) -> tuple[Ints, Ints]:
    """(N, T) nodes that have a word, in word order, and how many of each tree."""
    reading = samples.reading[ranges(first, sizes)]  # local nodes in word order, -1 behind the last
    real = reading >= 0
    lengths = np.add.reduceat(real, offsets).astype(np.int64)
    nodes = place[reading[real] + np.repeat(offsets, lengths)]
    padded = np.full((len(sizes), int(lengths.max())), -1, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = nodes
    return padded, lengths
