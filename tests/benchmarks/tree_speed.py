"""Tree-LSTM, a level of all trees at a time, against a node at a time: `python tests/benchmarks/tree_speed.py [N [T]]`.

64 made-up binary trees of 19 words, about what SST has; word vectors of 300, hidden size 150, five classes at every
node; N rounds, on T CPU threads (9, and as many as torch takes). Both ways have the same weights and give the same
logits, which is asserted:

    node     a recursion by hand: a cell call a node, whose gates are one matrix product
    level    dlkit's tree_lstm or child_sum_tree_lstm

The two run in turn; the median of the ratios within a round is what counts. Last, the training speed of tree_lstm in
trees a second at batch 25: forward, backward and an Adagrad step, batches ready-made.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from trees_by_hand import SPEC, WORDS, Node, as_batch, binary, in_order

from dlkit import registry
from dlkit.training import memory

TREES, LENGTH = 64, 19
State = tuple[Tensor, Tensor]


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = registry.resolved_options("models", name, {"hidden_size": 150, "embedding_size": 300, "dropout": 0.0})
    model: nn.Module = registry.load("models", name).build(SPEC, **options)
    return model


def by_node(model: nn.Module, roots: list[Node], binary_form: bool) -> Tensor:
    """Logits of every node, as a tutorial would write it: the words at once, then a call of the cell a node."""
    w, b, u, H = model.up.w, model.up.b, model.up.u, 150
    states = []

    def visit(node: Node) -> State:
        below = [visit(child) for child in node.children]
        if node.word is not None:
            x = model.embedding.weight[WORDS.index(node.word) + 2][None]
            i, o, g = F.linear(x, w[H:], b[H:]).chunk(3, dim=1)
            c = i.sigmoid() * g.tanh()
        elif binary_form:
            (h_l, c_l), (h_r, c_r) = below
            gates = F.linear(torch.cat([h_l, h_r], dim=1), u, torch.cat([b[:H], b]))
            f_l, f_r, i, o, g = gates.chunk(5, dim=1)
            c = i.sigmoid() * g.tanh() + f_l.sigmoid() * c_l + f_r.sigmoid() * c_r
        else:
            h, c_k = torch.cat([h for h, _ in below]), torch.cat([c for _, c in below])
            i, o, g = F.linear(h.sum(0, keepdim=True), u[H:], b[H:]).chunk(3, dim=1)
            f = F.linear(h, u[:H], b[:H]).sigmoid()
            c = i.sigmoid() * g.tanh() + (f * c_k).sum(0, keepdim=True)
        states.append((o.sigmoid() * c.tanh(), c))
        places[id(node)] = len(states) - 1
        return states[-1]

    rows = []
    for root in roots:
        states, places = [], {}
        visit(root)
        rows += [states[places[id(node)]][0] for node, _ in in_order(root)]
    logits: Tensor = model.output(torch.cat(rows))
    return logits


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def compare(name: str, rounds: int) -> None:
    draw = random.Random(0)
    roots, model = [binary(draw, LENGTH) for _ in range(TREES)], build(name)
    trees = as_batch(roots)

    def node() -> Tensor:
        return by_node(model, roots, name == "tree_lstm")

    def level() -> Tensor:
        return model(trees)  # type: ignore[no-any-return]

    torch.testing.assert_close(level(), node(), rtol=0, atol=1e-5)
    for what, ways in {
        "forward": (torch.no_grad()(node), torch.no_grad()(level)),
        "training": (lambda: node().square().mean().backward(), lambda: level().square().mean().backward()),
    }.items():
        pairs = [(seconds(ways[0]), seconds(ways[1])) for _ in range(rounds)]
        ratios = [slow / quick for slow, quick in pairs]
        best = TREES / statistics.median(quick for _, quick in pairs)
        span = f"{min(ratios):.0f} to {max(ratios):.0f}"
        print(f"{name}  {what}: {statistics.median(ratios):.1f} × the recursion ({span}), {best:,.0f} trees/s")


def training_speed(batches: int = 40, size: int = 25) -> None:
    draw, model = random.Random(0), build("tree_lstm")
    ready = [as_batch([binary(draw, LENGTH) for _ in range(size)]) for _ in range(batches)]
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)

    def epoch() -> None:
        for trees in ready:
            optimizer.zero_grad()
            F.cross_entropy(model(trees), torch.zeros(len(trees), dtype=torch.long)).backward()
            optimizer.step()

    epoch()
    print(f"tree_lstm, training at batch {size}: {batches * size / seconds(epoch):,.0f} trees/s")


if __name__ == "__main__":
    memory.keep_freed()  # as train does
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else torch.get_num_threads())
    for name in ("tree_lstm", "child_sum_tree_lstm"):
        compare(name, int(sys.argv[1]) if len(sys.argv) > 1 else 9)
    training_speed()
