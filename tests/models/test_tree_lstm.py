"""Tree-LSTM against a recursion a node at a time, and its gradients against finite differences."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trees_by_hand import SPEC, Node, as_batch, binary, chain, dependency, logits

from dlkit import registry
from dlkit.data.text.tree_batches import Trees
from dlkit.errors import DataError, UsageError
from dlkit.layers.tree_recursion import child_sum_lstm, descent, nary_lstm
from dlkit.models.tree_lstm import TreeLSTM

SLOW = pytest.mark.slow
NAMES = ("tree_lstm", "child_sum_tree_lstm")
EXTRAS: list[dict[str, Any]] = [
    {},
    {"bidirectional": True},
    {"leaf_encoder": "lstm"},
    {"leaf_encoder": "bilstm", "bidirectional": True},
]
every_name = pytest.mark.parametrize("name", NAMES)
every_extra = pytest.mark.parametrize("extra", EXTRAS, ids=str)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, **options: Any) -> TreeLSTM:
    """A small one, its biases and vectors drawn too, in double precision."""
    torch.manual_seed(0)
    options = {"hidden_size": 6, "embedding_size": 5, **options}
    model = registry.load("models", name).build(SPEC, **registry.resolved_options("models", name, options))
    assert isinstance(model, TreeLSTM)
    with torch.no_grad():
        model.embedding.weight[1:].normal_()
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) if parameter.ndim == 1 else 0)
    return model.double().eval()


def some_trees(name: str, count: int = 12) -> list[Node]:
    draw = random.Random(1)
    make = binary if name == "tree_lstm" else dependency
    return [make(draw, 1 + number * 2 % 19) for number in range(count)]


@every_name
@pytest.mark.parametrize("bidirectional", [False, True])
def test_all_nodes_are_those_of_a_recursion_a_node_at_a_time(name: str, bidirectional: bool) -> None:
    model, roots = build(name, bidirectional=bidirectional), some_trees(name)
    expected = logits(roots, model.state_dict(), arity=2 if name == "tree_lstm" else 0)
    torch.testing.assert_close(model(as_batch(roots)), expected, rtol=0, atol=1e-10)


@every_name
def test_single_precision_keeps_within_a_hundred_thousandth_of_the_recursion(name: str) -> None:
    model, roots = build(name, hidden_size=50).float(), some_trees(name)
    state = {key: value.double() for key, value in model.state_dict().items()}
    expected = logits(roots, state, arity=2 if name == "tree_lstm" else 0)
    torch.testing.assert_close(model(as_batch(roots)).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "make"), [("tree_lstm", dependency), ("child_sum_tree_lstm", binary)])
def test_each_form_takes_the_others_trees(name: str, make: Any) -> None:
    draw = random.Random(2)
    roots = [make(draw, words) for words in (1, 2, 9, 14)]
    arity = as_batch(roots).children.shape[1] if name == "tree_lstm" else 0
    model = build(name, bidirectional=True, **({"arity": arity} if arity else {}))
    torch.testing.assert_close(model(as_batch(roots)), logits(roots, model.state_dict(), arity), rtol=0, atol=1e-10)


def test_a_missing_child_has_a_state_of_zeros() -> None:
    lonely = Node(None, [Node(None, [Node("w1")]), Node("w2", [Node("w3")])])  # one child each, and a word above
    model = build("tree_lstm", bidirectional=True)
    expected = logits([lonely], model.state_dict(), arity=2)
    torch.testing.assert_close(model(as_batch([lonely])), expected, rtol=0, atol=1e-10)


@every_name
@every_extra
def test_a_tree_is_answered_alike_alone_and_in_a_batch(name: str, extra: dict[str, Any]) -> None:
    model, roots = build(name, **extra).float(), some_trees(name)
    alone = torch.cat([model(as_batch([root])) for root in roots])
    torch.testing.assert_close(model(as_batch(roots)), alone, rtol=1e-5, atol=1e-5)


@every_name
@every_extra
def test_the_roots_logits_are_those_of_all_nodes_at_the_roots(name: str, extra: dict[str, Any]) -> None:
    model, trees = build(name, **extra), as_batch(some_trees(name))
    everywhere = torch.empty(len(trees.tokens), 3, dtype=torch.double)
    everywhere[trees.output_nodes] = model(trees)
    torch.testing.assert_close(model(replace(trees, output_nodes=trees.roots)), everywhere[trees.roots])


def test_a_leaf_encoder_reads_the_sentence_in_its_order() -> None:
    model, root = build("tree_lstm", leaf_encoder="lstm"), binary(random.Random(3), 7)
    trees = as_batch([root])
    read, _ = model.encoder.forwards.kernel(model.embedding(trees.tokens[trees.leaves]))  # type: ignore[union-attr]
    plain = build("tree_lstm", embedding_size=6)
    plain.load_state_dict(
        {**plain.state_dict(), **{f"up.{key}": value for key, value in model.up.state_dict().items()}}
    )
    plain.output.load_state_dict(model.output.state_dict())
    vectors = torch.zeros(len(trees.tokens), 6, dtype=torch.double)
    vectors[trees.leaves[0]] = read[0].detach()
    plain.embedding = nn.Embedding.from_pretrained(vectors)  # each node a word of its own
    own = replace(trees, tokens=torch.arange(len(trees.tokens)).where(trees.tokens > 0, 0))
    torch.testing.assert_close(model(trees), plain(own))


@every_name
@every_extra
def test_gradient_reaches_every_parameter(name: str, extra: dict[str, Any]) -> None:
    model, trees = build(name, **extra), as_batch(some_trees(name))
    F.cross_entropy(model(trees), torch.arange(len(trees)) % 3).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in model.parameters())


@every_name
@every_extra
def test_gradients_are_those_of_the_recursion(name: str, extra: dict[str, Any]) -> None:
    if extra.get("leaf_encoder"):
        pytest.skip("the recursion has no leaf encoder")
    model, roots = build(name, **extra), some_trees(name)
    upstream = torch.randn(len(as_batch(roots)), 3, dtype=torch.double)
    ours = torch.autograd.grad(model(as_batch(roots)), list(model.parameters()), upstream)
    state = dict(model.named_parameters())
    hand = torch.autograd.grad(logits(roots, state, 2 if name == "tree_lstm" else 0), list(state.values()), upstream)
    for key, one, other in zip(state, ours, hand, strict=True):
        if key == "embedding.weight":
            other[0] = 0  # no word's
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}")


def leaves_and_weights(K: int, u_columns: int, inner: int, one_input: bool) -> tuple[Tensor, ...]:
    H, leaves = 2, 5
    shapes = [(leaves, H), (leaves, H), ((K + 3) * H,) if one_input else (inner, (K + 3) * H), ((K + 3) * H, u_columns)]
    return tuple(torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes)


@pytest.mark.parametrize("one_input", [False, True])
def test_written_gradients_are_finite_differences(one_input: bool) -> None:
    torch.manual_seed(0)
    children = torch.tensor([[0, 1], [3, -1], [5, 2], [7, 6], [8, 4]])
    levels = (0, 5, 7, 8, 8, 9, 10)  # one of them empty, as where a batch was parted
    assert torch.autograd.gradcheck(
        lambda *given: nary_lstm(*given, children, levels), leaves_and_weights(2, 4, 5, one_input)
    )
    edges = torch.tensor(
        [[child, 5 + row] for row, pair in enumerate(children.tolist()) for child in pair if child >= 0]
    )
    assert torch.autograd.gradcheck(
        lambda *given: child_sum_lstm(*given, edges, (0, 0, 3, 5, 5, 7, 9), levels),
        leaves_and_weights(1, 2, 5, one_input),
    )


def test_descent_orders_nodes_by_their_distance_from_the_root() -> None:
    trees = as_batch(some_trees("child_sum_tree_lstm"))
    way, depth = descent(trees.parents, trees.children, trees.levels), []
    for node in range(len(trees.tokens)):
        steps = 0
        while trees.parents[node] >= 0:
            node, steps = int(trees.parents[node]), steps + 1
        depth.append(steps)
    by_depth = torch.tensor(depth)[way.order]
    assert (by_depth.diff() >= 0).all() and torch.equal(way.order[way.position], torch.arange(len(depth)))
    assert way.levels == [0, *torch.bincount(by_depth).cumsum(0).tolist()]


@every_name
@every_extra
def test_a_batch_in_parts_gives_the_same_logits(name: str, extra: dict[str, Any]) -> None:
    model, trees = build(name, **extra), as_batch(some_trees(name))
    parts: tuple[Trees, ...] = trees.chunk(3)
    torch.testing.assert_close(torch.cat([model(part) for part in parts]), model(trees))


@pytest.mark.parametrize(
    ("name", "way"), [("tree_lstm", "up"), pytest.param("child_sum_tree_lstm", "both", marks=SLOW)]
)
def test_a_tree_of_depth_5000_is_computed_and_learned_from(name: str, way: str) -> None:
    model, trees = build(name, bidirectional=way == "both").float(), as_batch([chain(5_001)], outputs="roots")
    assert len(trees.levels) == 5_002
    model(trees).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_lone_words_are_trees() -> None:
    model = build("tree_lstm", bidirectional=True)
    roots = [Node("w1"), Node("w5")]
    torch.testing.assert_close(model(as_batch(roots)), logits(roots, model.state_dict(), 2))
    model(as_batch(roots)).sum().backward()


def test_half_precision_around_it_leaves_the_recursion_in_single() -> None:
    model, trees = build("tree_lstm").float(), as_batch(some_trees("tree_lstm"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = model(trees)
    near.float().sum().backward()
    torch.testing.assert_close(near.float(), model(trees), rtol=0, atol=0.05)
    assert all(weight.grad is not None and weight.grad.dtype == torch.float for weight in model.parameters())


def test_a_node_of_three_children_is_refused_with_what_to_do() -> None:
    root = Node(None, [Node("w1"), Node("w2"), Node("w3")])
    with pytest.raises(DataError, match=r"a node has 3 children.*child_sum_tree_lstm.*model\.options\.arity=3"):
        build("tree_lstm")(as_batch([root]))
    assert build("tree_lstm", arity=3)(as_batch([root])).shape == (4, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"composition": "sum"},
        {"arity": 1},
        {"leaf_encoder": "gru"},
        {"bidirectional": "yes"},
        {"embedding_dropout": 1.0},
        {"forget_bias": "high"},
        {"hidden_size": 0},
    ],
    ids=str,
)
def test_wrong_options_are_told_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"model option {next(iter(options))} is "):
        build("tree_lstm", **options)


def test_forget_gates_start_open() -> None:
    torch.manual_seed(0)
    options = registry.resolved_options("models", "tree_lstm", {"forget_bias": 1.5})
    model = registry.load("models", "tree_lstm").build(SPEC, **options)
    assert (model.up.b[:150] == 1.5).all() and not model.up.b[150:].any()
