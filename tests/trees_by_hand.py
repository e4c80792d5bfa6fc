"""Trees made up at random, and Tree-LSTM a node at a time as the paper says: the oracle of the batched one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlkit.data.text.corpus import VocabularyBuilder, tree_samples
from dlkit.data.text.ragged import token_lookup
from dlkit.data.text.tree_batches import Trees, collate_trees
from dlkit.data.text.treebank import ParsedTree
from dlkit.specs import TreeSpec

WORDS = tuple(f"w{number}" for number in range(20))
SPEC = TreeSpec(classes=("0", "1", "2"), vocabulary=len(WORDS) + 2, words=WORDS, tokens="space")


@dataclass
class Node:
    word: str | None
    children: list[Node] = field(default_factory=list)
    h: Tensor | None = None
    down: Tensor | None = None


def binary(draw: random.Random, words: int) -> Node:
    """A binary tree of that many leaves, cut at random places."""
    if words == 1:
        return Node(draw.choice(WORDS))
    left = draw.randrange(1, words)
    return Node(None, [binary(draw, left), binary(draw, words - left)])


def dependency(draw: random.Random, words: int) -> Node:
    """A tree with a word at every node, each hung on any one before it."""
    nodes = [Node(draw.choice(WORDS)) for _ in range(words)]
    for place, node in enumerate(nodes[1:], start=1):
        draw.choice(nodes[:place]).children.append(node)
    return nodes[0]


def chain(words: int) -> Node:
    """A binary tree as deep as it can be."""
    node = Node(WORDS[0])
    for place in range(1, words):
        node = Node(None, [node, Node(WORDS[place % len(WORDS)])])
    return node


def in_order(root: Node) -> list[tuple[Node, int]]:
    """Each node and its parent's place, -1 of the root; no recursion, so that depth does not matter."""
    order, waiting = [], [(root, -1)]
    while waiting:
        node, parent = waiting.pop()
        order.append((node, parent))
        waiting += [(child, len(order) - 1) for child in reversed(node.children)]
    return order


def as_batch(roots: list[Node], outputs: str = "all") -> Trees:
    parsed = []
    for root in roots:
        order = in_order(root)
        words = [node.word for node, _ in order]
        reading = [place for place, word in enumerate(words) if word is not None]
        parsed.append(ParsedTree([None] * len(order), words, [parent for _, parent in order], reading))
    builder = VocabularyBuilder()
    samples = tree_samples(parsed, [[0] * len(tree.words) for tree in parsed], builder, "space")
    return collate_trees(samples, np.arange(len(roots)), token_lookup(builder.words, WORDS), outputs)[0]


Weights = dict[str, Tensor]  # w, b and u of a layer: gates f, i, o, u one below the other


def up(node: Node, embedding: Tensor, weights: Weights, arity: int) -> tuple[Tensor, Tensor]:
    """h and c of a node from its children's, by recursion: N-ary, or with arity 0 child-sum. Fills in each node's h."""
    below = [up(child, embedding, weights, arity) for child in node.children]
    x = torch.zeros_like(embedding[0]) if node.word is None else embedding[WORDS.index(node.word) + 2]
    h, c = nary(x, below, weights, arity) if arity else child_sum(x, below, weights)
    node.h = h
    return h, c


def down(node: Node, weights: Weights, arity: int, side: int = 0, above: tuple[Tensor, Tensor] | None = None) -> None:
    """From the root down over h: what a node gets from its parent comes in at the place of its side."""
    assert node.h is not None
    zeros = (torch.zeros_like(node.h), torch.zeros_like(node.h))
    below = [above if place == side and above is not None else zeros for place in range(arity)]
    state = nary(node.h, below, weights, arity)
    node.down = state[0]
    for place, child in enumerate(node.children):
        down(child, weights, arity, place if arity > 1 else 0, state)


def nary(x: Tensor, below: list[tuple[Tensor, Tensor]], weights: Weights, arity: int) -> tuple[Tensor, Tensor]:
    """Equations 9 to 14."""
    H = len(weights["b"]) // 4
    w_f, w_i, w_o, w_u = weights["w"].split(H)
    b_f, b_i, b_o, b_u = weights["b"].split(H)
    *u_f, u_i, u_o, u_u = weights["u"].split(H)
    i, o, u = w_i @ x + b_i, w_o @ x + b_o, w_u @ x + b_u
    forget = [w_f @ x + b_f for _ in range(arity)]
    for place, (h, _) in enumerate(below):
        columns = slice(place * H, (place + 1) * H)
        i, o, u = i + u_i[:, columns] @ h, o + u_o[:, columns] @ h, u + u_u[:, columns] @ h
        forget = [f + block[:, columns] @ h for f, block in zip(forget, u_f, strict=True)]
    c = i.sigmoid() * u.tanh()
    for f, (_, c_k) in zip(forget, below, strict=False):
        c = c + f.sigmoid() * c_k
    return o.sigmoid() * c.tanh(), c


def child_sum(x: Tensor, below: list[tuple[Tensor, Tensor]], weights: Weights) -> tuple[Tensor, Tensor]:
    """Equations 2 to 8."""
    H = len(weights["b"]) // 4
    w_f, w_i, w_o, w_u = weights["w"].split(H)
    b_f, b_i, b_o, b_u = weights["b"].split(H)
    u_f, u_i, u_o, u_u = weights["u"].split(H)
    s = sum((h for h, _ in below), start=torch.zeros_like(b_f))
    i, o, u = w_i @ x + u_i @ s + b_i, w_o @ x + u_o @ s + b_o, w_u @ x + u_u @ s + b_u
    c = i.sigmoid() * u.tanh()
    for h, c_k in below:
        c = c + torch.sigmoid(w_f @ x + u_f @ h + b_f) * c_k
    return o.sigmoid() * c.tanh(), c


def logits(roots: list[Node], state: Weights, arity: int) -> Tensor:
    """The logits of all nodes, trees as they are written, of a tree_lstm with these weights and no leaf encoder."""
    rows = []
    for root in roots:
        up(root, state["embedding.weight"], {name: state[f"up.{name}"] for name in "wbu"}, arity)
        if "down.w" in state:
            down(root, {name: state[f"down.{name}"] for name in "wbu"}, max(arity, 1))
        for node, _ in in_order(root):
            assert node.h is not None
            rows.append(node.h if node.down is None else torch.cat([node.h, node.down]))
    return F.linear(torch.stack(rows), state["output.weight"], state["output.bias"])
