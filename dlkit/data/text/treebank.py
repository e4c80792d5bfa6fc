"""Readers of trees: bracketed, as in treebanks, or as the head of each word, as in CoNLL-U."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from dlkit.data.text.lines import MAX_BYTES, quote, read_lines
from dlkit.errors import DataError

BRACKETED = re.compile(r"[()]|[^() \t\r\n]+")
DEPENDENCIES = re.compile(rb"#|\d+([-.]\d+)?\t")  # starts a line of CoNLL-U, never a bracketed tree

MAX_DIGITS = 9  # of the number of a word


@dataclass(frozen=True)
class ParsedTree:
    """A tree: nodes parents before children, each with its label and word, or None."""

    labels: list[str | None]
    words: list[str | None]
    parents: list[int]  # -1 of the root
    reading: list[int]  # the nodes with words, in word order


def parse_tree(text: str) -> ParsedTree:
    """Parse a bracketed tree: (3 (2 a) (4 gem)). A node has a word or children; its label is optional.

    Raises:
        DataError: not such a tree; the message does not name the file.
    """
    tree = ParsedTree([], [], [], [])
    path: list[int] = []  # open nodes
    loose: list[list[str]] = []  # tokens directly in each open node
    for token in BRACKETED.findall(text):
        if token == ")":
            if not path:
                raise DataError("unbalanced brackets: one ) too many")
            _close(tree, path.pop(), loose.pop())
        elif not path and (tree.parents or token != "("):
            side = "after" if tree.parents else "before"
            raise DataError(f"{quote(token)} {side} the tree; a tree looks like (3 (2 a) (4 gem))")
        elif token == "(":
            tree.parents.append(path[-1] if path else -1)
            tree.labels.append(None)
            tree.words.append(None)
            path.append(len(tree.parents) - 1)
            loose.append([])
        elif path[-1] + 1 < len(tree.parents):
            raise DataError(f"{quote(token)} is next to a bracketed node; put it in brackets of its own")
        else:
            loose[-1].append(token)
    if path:
        raise DataError(f"unbalanced brackets: {len(path)} not closed")
    if not tree.parents:
        raise DataError("empty")
    return tree


def _close(tree: ParsedTree, node: int, loose: Sequence[str]) -> None:
    inner = node + 1 < len(tree.parents)
    most = 1 if inner else 2
    if len(loose) > most:
        raise DataError(f"a node contains {quote(' '.join(loose))}; it takes a label and one word")
    if not inner:
        if not loose:
            raise DataError("a node contains no word")
        tree.words[node] = loose[-1]
        tree.reading.append(node)
    if len(loose) == most:
        tree.labels[node] = loose[0]


def read_trees(path: Path, labels: Sequence[str] = (), shown: str = "") -> Iterator[ParsedTree]:
    """Read the trees of a file, one per line. Labels must be among `labels` if any are given.

    Raises:
        DataError: the message names the file (as `shown`, if given) and the line.
    """
    for number, line in read_lines(path, shown):
        try:
            yield parse_labelled_tree(line, labels)
        except DataError as error:
            raise DataError(f"{shown or path}:{number}: {error}.") from error


def read_dependencies(path: Path, labels: Sequence[str] = ()) -> Iterator[ParsedTree]:
    """The dependency trees of a CoNLL-U file; the comment `# label = CLASS` before a tree gives its label.

    Raises:
        DataError: the message names the file, and the first line of the tree.
    """
    block: list[tuple[int, str]] = []
    for number, line in chain(read_lines(path), [(0, "")]):  # the empty line after the last tree is optional
        if line.strip():
            block.append((number, line))
        elif block:
            try:
                yield _parse_dependencies([text for _, text in block], labels)
            except DataError as error:
                raise DataError(f"{path}:{block[0][0]}: {error}.") from error
            block = []


def split_examples(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Split a pipe or file into trees, each with its first line number: bracketed lines, or CoNLL-U blocks.

    A block longer than MAX_BYTES is cut shortly after it.
    """
    first, block = 0, bytearray()
    for number, line in enumerate(lines, start=1):
        if block and line.strip():
            block += b"\n" + line if len(block) <= MAX_BYTES else b""
        elif block:
            yield first, bytes(block)
            block.clear()
        elif DEPENDENCIES.match(line):
            first, block = number, bytearray(line)
        else:
            yield number, line
    if block:
        yield first, bytes(block)


def parse_example(text: str, labels: Sequence[str]) -> ParsedTree:
    """Parse a tree in either form. Raises DataError without file and line."""
    if DEPENDENCIES.match(text.encode()):
        return _parse_dependencies(text.split("\n"), labels)
    return parse_labelled_tree(text, labels)


def _parse_dependencies(lines: Sequence[str], labels: Sequence[str]) -> ParsedTree:
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    rows = [row for row in rows if row[0].isdecimal()]  # not 3-4, a contraction, nor 3.1, an empty node
    if any(len(row) < 7 or not row[6].isdecimal() or len(row[6]) > MAX_DIGITS for row in rows):
        raise DataError("the line of a word has no head in its seventh column")
    tree = tree_from_heads([row[1] for row in rows], [int(row[6]) for row in rows])
    comments = (line[1:].partition("=") for line in lines if line.startswith("#"))
    tree.labels[0] = next((value.strip() for key, _, value in comments if key.strip() == "label"), None)
    return _check_labels(tree, labels)


def parse_labelled_tree(line: str, labels: Sequence[str]) -> ParsedTree:
    """Parse a bracketed tree and check its labels. Raises DataError without file and line."""
    return _check_labels(parse_tree(line), labels)


def _check_labels(tree: ParsedTree, labels: Sequence[str]) -> ParsedTree:
    for label in tree.labels:
        if labels and label is not None and label not in labels:
            raise DataError(f"{quote(label)} is not a label; the labels are {', '.join(labels)}")
    return tree


def subtree_words(tree: ParsedTree, most: int) -> list[str]:
    """The words of each node's subtree, in word order, truncated after `most` words."""
    below: list[list[int]] = [[] for _ in tree.parents]  # per node, its first most + 1 positions in word order
    for position, node in enumerate(tree.reading):
        below[node].append(position)
    for node in range(len(below) - 1, 0, -1):
        parent = tree.parents[node]
        below[parent] = sorted(below[parent] + below[node])[: most + 1]
    words = [str(tree.words[node]) for node in tree.reading]
    return [" ".join([words[i] for i in positions[:most]] + ["…"] * (len(positions) > most)) for positions in below]


def tree_from_heads(words: Sequence[str], heads: Sequence[int]) -> ParsedTree:
    """A dependency tree, a word per node. heads (T,) are numbered from 1, and 0 marks the root, as in CoNLL-U.

    Raises:
        DataError: not exactly one root, a head out of range, or a cycle.
    """
    if len(heads) != len(words) or not all(0 <= head <= len(words) for head in heads):
        raise DataError(f"{len(words)} words need one head each, from 0 (the root) to {len(words)}; not {list(heads)}")
    if list(heads).count(0) != 1:
        raise DataError(f"{list(heads).count(0)} words have the head 0; a tree has exactly one root")
    below: list[list[int]] = [[] for _ in range(len(words) + 1)]
    for word, head in enumerate(heads, start=1):
        below[head].append(word)
    order = [below[0][0]]  # words, numbered from 1, heads before dependents
    for word in order:
        order += below[word]
    if len(order) < len(words):
        raise DataError(f"{len(words) - len(order)} words form a cycle")
    nodes = {word: node for node, word in enumerate(order)} | {0: -1}
    return ParsedTree(
        labels=[None] * len(order),
        words=[words[word - 1] for word in order],
        parents=[nodes[heads[word - 1]] for word in order],
        reading=[nodes[word] for word in range(1, len(words) + 1)],
    )


def siblings_and_heights(parents: Sequence[int]) -> tuple[list[int], list[int]]:
    """Each node's position among its siblings, and its height; parents precede their children."""
    siblings, counts, heights = [0] * len(parents), [0] * len(parents), [0] * len(parents)
    for node, parent in enumerate(parents):
        if parent >= 0:
            siblings[node] = counts[parent]
            counts[parent] += 1
    for node in range(len(parents) - 1, 0, -1):
        heights[parents[node]] = max(heights[parents[node]], heights[node] + 1)
    return siblings, heights
