"""Trees as they are written: in brackets, as a treebank has them, or as each word's head, as CoNLL-U has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from dlkit.data.text.lines import LONGEST, lines_of, quoted
from dlkit.errors import DataError

BRACKETED = re.compile(r"[()]|[^() \t\r\n]+")
DEPENDENCIES = re.compile(rb"#|\d+([-.]\d+)?\t")  # how a line of CoNLL-U begins; a tree in brackets never does

MOST_DIGITS = 9  # of the number of a word


@dataclass(frozen=True)
class Parsed:
    """A tree: its nodes, a parent before its children, each with its label and its word where it has them."""

    labels: list[str | None]
    words: list[str | None]
    parents: list[int]  # -1 of the root
    reading: list[int]  # the nodes that have a word, in word order


def parse_tree(text: str) -> Parsed:
    """A tree in brackets: (3 (2 a) (4 gem)). A node has a word or children; its label may be left out.

    Raises:
        DataError: what is wrong, without its place.
    """
    tree = Parsed([], [], [], [])
    path: list[int] = []  # the nodes that are open
    loose: list[list[str]] = []  # of each, the words that stand in it directly
    for token in BRACKETED.findall(text):
        if token == ")":
            if not path:
                raise DataError("unbalanced brackets: a ) too many")
            _close(tree, path.pop(), loose.pop())
        elif not path and (tree.parents or token != "("):
            where = "behind" if tree.parents else "before"
            raise DataError(f"{quoted(token)} stands {where} the tree, which is written like (3 (2 a) (4 gem))")
        elif token == "(":
            tree.parents.append(path[-1] if path else -1)
            tree.labels.append(None)
            tree.words.append(None)
            path.append(len(tree.parents) - 1)
            loose.append([])
        elif path[-1] + 1 < len(tree.parents):
            raise DataError(f"{quoted(token)} stands beside a bracketed part; give it brackets of its own")
        else:
            loose[-1].append(token)
    if path:
        raise DataError(f"unbalanced brackets: {len(path)} not closed")
    if not tree.parents:
        raise DataError("empty")
    return tree


def _close(tree: Parsed, node: int, loose: Sequence[str]) -> None:
    inner = node + 1 < len(tree.parents)
    most = 1 if inner else 2
    if len(loose) > most:
        raise DataError(f"a node holds {quoted(' '.join(loose))}; it takes a label and one word")
    if not inner:
        if not loose:
            raise DataError("a node holds no word")
        tree.words[node] = loose[-1]
        tree.reading.append(node)
    if len(loose) == most:
        tree.labels[node] = loose[0]


def read_trees(path: Path, labels: Sequence[str] = (), shown: str = "") -> Iterator[Parsed]:
    """The trees of a file, one a line. Where labels are given, a node's label is one of them.

    Raises:
        DataError: the message names the file, as `shown` where that is given, and the line.
    """
    for number, line in lines_of(path, shown):
        try:
            yield labelled_tree(line, labels)
        except DataError as error:
            raise DataError(f"{shown or path}:{number}: {error}.") from error


def read_dependencies(path: Path, labels: Sequence[str] = ()) -> Iterator[Parsed]:
    """The dependency trees of a CoNLL-U file; a tree's label stands before it as `# label = CLASS`.

    Raises:
        DataError: the message names the file, and the line where the tree begins.
    """
    block: list[tuple[int, str]] = []
    for number, line in chain(lines_of(path), [(0, "")]):  # behind the last tree the empty line may be missing
        if line.strip():
            block.append((number, line))
        elif block:
            try:
                yield _dependencies([text for _, text in block], labels)
            except DataError as error:
                raise DataError(f"{path}:{block[0][0]}: {error}.") from error
            block = []


def examples(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The trees of a pipe or file and the numbers of their lines: one a line in brackets, CoNLL-U up to an empty line.

    Of a longer block no more is kept than tells that it is too long.
    """
    begun, block = 0, bytearray()
    for number, line in enumerate(lines, start=1):
        if block and line.strip():
            block += b"\n" + line if len(block) <= LONGEST else b""
        elif block:
            yield begun, bytes(block)
            block.clear()
        elif DEPENDENCIES.match(line):
            begun, block = number, bytearray(line)
        else:
            yield number, line
    if block:
        yield begun, bytes(block)


def labelled_example(written: str, labels: Sequence[str]) -> Parsed:
    """A tree in either form; raises DataError without the place."""
    if DEPENDENCIES.match(written.encode()):
        return _dependencies(written.split("\n"), labels)
    return labelled_tree(written, labels)


def _dependencies(lines: Sequence[str], labels: Sequence[str]) -> Parsed:
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    rows = [row for row in rows if row[0].isdecimal()]  # not 3-4, which is two words written as one, nor 3.1
    if any(len(row) < 7 or not row[6].isdecimal() or len(row[6]) > MOST_DIGITS for row in rows):
        raise DataError("a word's line has no head in its seventh column")
    tree = tree_of_heads([row[1] for row in rows], [int(row[6]) for row in rows])
    notes = (line[1:].partition("=") for line in lines if line.startswith("#"))
    tree.labels[0] = next((value.strip() for key, _, value in notes if key.strip() == "label"), None)
    return _checked(tree, labels)


def labelled_tree(line: str, labels: Sequence[str]) -> Parsed:
    """A tree whose labels are known; raises DataError without the place."""
    return _checked(parse_tree(line), labels)


def _checked(tree: Parsed, labels: Sequence[str]) -> Parsed:
    for label in tree.labels:
        if labels and label is not None and label not in labels:
            raise DataError(f"{quoted(label)} is no label; there are {', '.join(labels)}")
    return tree


def words_below(tree: Parsed, most: int) -> list[str]:
    """The words below each node, its own among them, in word order and `most` of them at most."""
    below: list[list[int]] = [[] for _ in tree.parents]  # of each node, the first places in word order, one more
    for place, node in enumerate(tree.reading):
        below[node].append(place)
    for node in range(len(below) - 1, 0, -1):
        parent = tree.parents[node]
        below[parent] = sorted(below[parent] + below[node])[: most + 1]
    words = [str(tree.words[node]) for node in tree.reading]
    return [" ".join([words[place] for place in places[:most]] + ["…"] * (len(places) > most)) for places in below]


def tree_of_heads(words: Sequence[str], heads: Sequence[int]) -> Parsed:
    """A dependency tree: every node has a word. heads (T,) are counted from 1, 0 is the root's, as CoNLL writes them.

    Raises:
        DataError: not one root, a head that is no word, or words that hang on each other in a circle.
    """
    if len(heads) != len(words) or not all(0 <= head <= len(words) for head in heads):
        raise DataError(f"{len(words)} words take a head each, from 0 (the root) to {len(words)}; not {list(heads)}")
    if list(heads).count(0) != 1:
        raise DataError(f"{list(heads).count(0)} words have the head 0; a tree has one root")
    below: list[list[int]] = [[] for _ in range(len(words) + 1)]
    for word, head in enumerate(heads, start=1):
        below[head].append(word)
    order = [below[0][0]]  # the words, numbered from 1, a head before its dependents
    for word in order:
        order += below[word]
    if len(order) < len(words):
        raise DataError(f"{len(words) - len(order)} words hang on each other in a circle")
    places = {word: place for place, word in enumerate(order)} | {0: -1}
    return Parsed(
        labels=[None] * len(order),
        words=[words[word - 1] for word in order],
        parents=[places[heads[word - 1]] for word in order],
        reading=[places[word] for word in range(1, len(words) + 1)],
    )


def shape(parents: Sequence[int]) -> tuple[list[int], list[int]]:
    """Each node's place among its siblings, and its height; parents stand before their children."""
    siblings, counts, heights = [0] * len(parents), [0] * len(parents), [0] * len(parents)
    for node, parent in enumerate(parents):
        if parent >= 0:
            siblings[node] = counts[parent]
            counts[parent] += 1
    for node in range(len(parents) - 1, 0, -1):
        heights[parents[node]] = max(heights[parents[node]], heights[node] + 1)
    return siblings, heights
