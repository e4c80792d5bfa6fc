"""brackets: what does [MAX 2 [MIN 4 7 ] 0 ] give? Nested operations over digits; made by code, nothing to download.

After Nangia and Bowman, "ListOps: a diagnostic dataset for latent tree learning", 2018 (1804.06028). Operations: [MAX,
[MIN, [MED (the median, of an even number the lower of the two in the middle) and [SM (the sum, modulo 10). The
ten answers are the classes; the best reachable accuracy is 1, as every answer is computed.

form "sequences" is the expression as it is written, "trees" its structure. An operation's tree is binary, as ListOps
has it: ((((([MAX 2) 9) …) 0) ]), or, with binary=false, a node with the operation's word and its arguments below.
nodes says which nodes of a tree have a label: "root", or "all" that have a value, each digit and inner expression too.

depth is that of the deepest expression, length the most words, arguments the most that an operation has. Whether an
expression is one of train or of test is decided by a hash of it, so none is in both, however many are asked for.
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
INNER = 0.3  # how probable an argument is an expression of its own, where it may be
TEST_SHARE = 8  # one expression in so many is one of test

ABOUT = About(
    title="Nested list operations over digits, made by code",
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
    """Make both splits up from `seed`."""
    _check(form, train, test, depth, length, arguments, nodes, seed)
    made = {
        split: [_tree(found, binary, nodes == "all") for found in _made(count, split, depth, length, arguments, seed)]
        for split, count in (("train", train), ("test", test))
    }
    corpus = text.TreeCorpus(made, {digit: int(digit) for digit in DIGITS}, "space")
    return corpus.splits(DIGITS, form, 1, 100, labels=DIGITS)


def value(expression: Expression) -> int:
    """What an expression gives."""
    if isinstance(expression, int):
        return expression
    operation, arguments = expression
    return OPERATIONS[operation]([value(argument) for argument in arguments])


def written(expression: Expression) -> str:
    """[MAX 2 9 [MIN 4 7 ] 0 ]"""
    if isinstance(expression, int):
        return str(expression)
    operation, arguments = expression
    return " ".join([operation, *map(written, arguments), "]"])


def _check(form: str, train: int, test: int, depth: int, length: int, arguments: int, nodes: str, seed: int) -> None:
    text.check_options("brackets", form, 1, 1)
    right = 1 <= depth <= 50 and 2 <= arguments <= 50 and length >= arguments + 2 and nodes in ("root", "all")
    if not right or min(train, test) < 1 or seed < 0:
        raise UsageError(
            "data set 'brackets' takes depth 1 to 50, arguments 2 to 50, length from arguments + 2, nodes root or all, "
            f"train and test from 1 and seed from 0; not depth={depth}, arguments={arguments}, length={length}, "
            f"nodes={nodes}, train={train}, test={test}, seed={seed}."
        )


def _made(count: int, split: str, depth: int, length: int, arguments: int, seed: int) -> Iterator[Expression]:
    rng = random.Random(f"{seed} {split}")
    while count:
        found = _expression(rng, depth, arguments)
        words = written(found)
        of_test = zlib.crc32(words.encode()) % TEST_SHARE == 0
        if of_test == (split == "test") and words.count(" ") < length:
            count -= 1
            yield found


def _expression(rng: random.Random, depth: int, most: int) -> Expression:
    operation = list(OPERATIONS)[int(rng.random() * len(OPERATIONS))]
    count = 2 + int(rng.random() * (most - 1))
    return operation, [
        _expression(rng, depth - 1, most) if depth > 1 and rng.random() < INNER else int(rng.random() * 10)
        for _ in range(count)
    ]


def _tree(expression: Expression, binary: bool, label_all: bool) -> ParsedTree:
    tree = ParsedTree([], [], [], [])
    (_add_binary if binary else _add)(tree, expression, -1)
    if not label_all:
        tree.labels[1:] = [None] * (len(tree.labels) - 1)
    return tree


def _node(tree: ParsedTree, parent: int, label: str | None, word: str | None = None) -> int:
    """Add a node; returns its place."""
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
    """Left first: the innermost node joins the operation and its first argument, the outermost closes the bracket."""
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
