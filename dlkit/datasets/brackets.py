"""brackets: the value of [MAX 2 [MIN 4 7 ] 0 ], nested operations over digits; generated, no download.

After Nangia and Bowman, "ListOps: a diagnostic dataset for latent tree learning", 2018 (1804.06028). Operations: [MAX,
[MIN, [MED (the median; for an even number of arguments the lower of the two middle ones) and [SM (the sum modulo 10).
The ten values are the classes; the best possible accuracy is 1, as every value is computed.

form "sequences" is the expression as text, "trees" its structure. The tree of an operation is binary, as in ListOps:
((((([MAX 2) 9) …) 0) ]), or, with binary=false, a node with the word of the operation and the arguments as children.
nodes selects the labelled nodes of a tree: "root", or "all" nodes with a value, including digits and subexpressions.

depth, length (words) and arguments (of an operation) are maximums. A hash assigns each expression to train or test, so
that none is in both, regardless of their sizes.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator

from dlkit.data.splits import About, Splits
from dlkit.data.text import corpus as text
from dlkit.data.text.treebank import ParsedTree
from dlkit.errors import UsageError

GIVES = ("sequences", "trees")
DIGITS = tuple("0123456789")
OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MAX": max,
    "[MIN": min,
    "[MED": lambda values: sorted(values)[(len(values) - 1) // 2],
    "[SM": lambda values: sum(values) % 10,
}
INNER = 0.3  # probability that an argument is an expression, up to the maximum depth
TEST_SHARE = 8  # one expression in 8 is for test

ABOUT = About(
    title="Nested list operations over digits, generated",
    classes=10,
    sizes={"train": 20_000, "test": 2000},
    licence="none needed: the expressions are computed",
    citation="after Nangia and Bowman, 1804.06028, 2018",
)

Expression = int | tuple[str, list["Expression"]]


def load(
    folder: object = None,
    *,
    form: str = "sequences",
    train: int = 20000,
    test: int = 2000,
    depth: int = 4,
    length: int = 60,
    arguments: int = 5,
    binary: bool = True,
    nodes: str = "root",
    seed: int = 0,
) -> Splits:
    """Generate both splits from `seed`."""
    _check(form, train, test, depth, length, arguments, nodes, seed)
    trees = {
        split: [
            _tree(expression, binary, nodes == "all")
            for expression in _generate(count, split, depth, length, arguments, seed)
        ]
        for split, count in (("train", train), ("test", test))
    }
    corpus = text.TreeCorpus(trees, {digit: int(digit) for digit in DIGITS}, "space")
    return corpus.splits(DIGITS, form, 1, 100, labels=DIGITS)


def value(expression: Expression) -> int:
    """The value of an expression."""
    if isinstance(expression, int):
        return expression
    operation, arguments = expression
    return OPERATIONS[operation]([value(argument) for argument in arguments])


def format_expression(expression: Expression) -> str:
    """[MAX 2 9 [MIN 4 7 ] 0 ]"""
    if isinstance(expression, int):
        return str(expression)
    operation, arguments = expression
    return " ".join([operation, *map(format_expression, arguments), "]"])


def _check(form: str, train: int, test: int, depth: int, length: int, arguments: int, nodes: str, seed: int) -> None:
    text.check_options("brackets", form, 1, 1)
    is_valid = 1 <= depth <= 50 and 2 <= arguments <= 50 and length >= arguments + 2 and nodes in ("root", "all")
    if not is_valid or min(train, test) < 1 or seed < 0:
        raise UsageError(
            "data set 'brackets' takes depth 1 to 50, arguments 2 to 50, length ≥ arguments + 2, nodes root or all, "
            f"train and test ≥ 1 and seed ≥ 0; not depth={depth}, arguments={arguments}, length={length}, "
            f"nodes={nodes}, train={train}, test={test}, seed={seed}."
        )


def _generate(count: int, split: str, depth: int, length: int, arguments: int, seed: int) -> Iterator[Expression]:
    rng = random.Random(f"{seed} {split}")
    while count:
        expression = _expression(rng, depth, arguments)
        words = format_expression(expression)
        is_test = zlib.crc32(words.encode()) % TEST_SHARE == 0
        if is_test == (split == "test") and words.count(" ") < length:
            count -= 1
            yield expression


def _expression(rng: random.Random, depth: int, max_arguments: int) -> Expression:
    operation = list(OPERATIONS)[int(rng.random() * len(OPERATIONS))]
    count = 2 + int(rng.random() * (max_arguments - 1))
    return operation, [
        _expression(rng, depth - 1, max_arguments) if depth > 1 and rng.random() < INNER else int(rng.random() * 10)
        for _ in range(count)
    ]


def _tree(expression: Expression, binary: bool, label_all: bool) -> ParsedTree:
    tree = ParsedTree([], [], [], [])
    (_add_binary if binary else _add)(tree, expression, -1)
    if not label_all:
        tree.labels[1:] = [None] * (len(tree.labels) - 1)
    return tree


def _node(tree: ParsedTree, parent: int, label: str | None, word: str | None = None) -> int:
    """Add a node and return its index."""
    node = len(tree.parents)
    tree.parents.append(parent)
    tree.labels.append(label)
    tree.words.append(word)
    if word is not None:
        tree.reading.append(node)
    return node


def _add(tree: ParsedTree, expression: Expression, parent: int) -> None:
    if isinstance(expression, int):
        _node(tree, parent, str(expression), str(expression))
        return
    operation, arguments = expression
    node = _node(tree, parent, str(value(expression)), operation)
    for argument in arguments:
        _add(tree, argument, node)


def _add_binary(tree: ParsedTree, expression: Expression, parent: int) -> None:
    """Left-branching: the innermost node joins the operation and its first argument, the outermost the bracket."""
    if isinstance(expression, int):
        _node(tree, parent, str(expression), str(expression))
        return
    operation, arguments = expression
    spine = [_node(tree, parent, str(value(expression)))]
    for _ in arguments:
        spine.append(_node(tree, spine[-1], None))
    _node(tree, spine[-1], None, operation)
    for node, argument in zip(reversed(spine[1:]), arguments, strict=True):
        _add_binary(tree, argument, node)
    _node(tree, spine[0], None, "]")
