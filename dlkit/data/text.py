"""Text into words, brackets into trees, and files of text read with the place of what is wrong in them.

Words are those of the Penn Treebank, in lower case: "Don't!" is do, n't and !. Where a data set is written in words
already ("space"), they stand between spaces and are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dlkit.data.ragged import ranges, starts_of
from dlkit.data.samples import Samples, SequenceSamples, Splits, TreeSamples
from dlkit.durable import storage_errors
from dlkit.errors import DataError, UsageError
from dlkit.specs import ImageSpec, SequenceSpec, Spec, TreeSpec

LONGEST = 1 << 18  # bytes of one example: a line, a file, a field

WORD = re.compile(
    r"\w+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b"  # contractions, as the treebank parts them
    r"|\d+(?:[.,:]\d+)*\w*|\w+(?:-\w+)*|\.\.\.|--|[^\w\s]"
)
ESCAPES = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}", "``": '"', "''": '"'}
CURLY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "\0": " "})
BRACKETED = re.compile(r"[()]|[^() \t\r\n]+")


@dataclass(frozen=True)
class Parsed:
    """A tree: its nodes, a parent before its children, each with its label and its word where it has them."""

    labels: list[str | None]
    words: list[str | None]
    parents: list[int]  # -1 of the root
    reading: list[int]  # the nodes that have a word, in word order


def words_of(text: str, tokens: str) -> list[str]:
    """Text cut into words; `tokens` is "words" or "space"."""
    return text.split() if tokens == "space" else WORD.findall(text.translate(CURLY).lower())


def plain_word(word: str, tokens: str) -> str:
    """A word that stands in a treebank, without its escapes: -LRB- is (, 1\\/2 is 1/2."""
    if tokens == "space":
        return word
    word = word.lower()
    return ESCAPES.get(word) or word.replace("\\/", "/").replace("\\*", "*")


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


def _dependencies(lines: Sequence[str], labels: Sequence[str]) -> Parsed:
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    rows = [row for row in rows if row[0].isdecimal()]  # not 3-4, which is two words written as one, nor 3.1
    if any(len(row) < 7 or not row[6].isdecimal() for row in rows):
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


class Places(Protocol):
    """What numbers words."""

    def places(self, words: Iterable[str]) -> list[int]: ...


class Lexicon:
    """The words of a data set, each with its place."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def places(self, words: Iterable[str]) -> list[int]:
        """The place of each word; one not met before gets the next."""
        return [self._places.setdefault(word, len(self._places)) for word in words]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self._places)


@dataclass(frozen=True)
class SequenceCorpus:
    """Examples in words, by split: train, and validation and test where there are any."""

    examples: Mapping[str, Sequence[Sequence[str]]]
    targets: Mapping[str, Sequence[int]]
    tokens: str

    def splits(
        self, classes: tuple[str, ...], least: int, most: int, *, longest: int | None = None, notes: Sequence[str] = ()
    ) -> Splits:
        """The data set; its vocabulary is of the training split."""
        lexicon = Lexicon()
        encoded = {split: _sequences(rows, self.targets[split], lexicon) for split, rows in self.examples.items()}
        samples = {split: replace(part, lexicon=lexicon.words) for split, part in encoded.items()}
        words = vocabulary(samples["train"], least, most)
        spec = SequenceSpec(classes, len(words) + 2, words=words, tokens=self.tokens, longest=longest)
        cut = 0 if longest is None else sum(int((part.sizes > longest).sum()) for part in samples.values())
        warnings = [*notes, *([f"{cut:,} examples have more than {longest} words; the first are read."] if cut else [])]
        return _splits(spec, samples, warnings)


@dataclass(frozen=True)
class TreeCorpus:
    """Trees by split: train, and validation and test where there are any. meaning: the class of a label, -1 for none.

    Trees whose root has no class are left out.
    """

    trees: Mapping[str, Sequence[Parsed]]
    meaning: Mapping[str, int]
    tokens: str

    def splits(
        self,
        classes: tuple[str, ...],
        form: str,
        least: int,
        most: int,
        *,
        phrases: bool = False,
        labels: tuple[str, ...] = (),
    ) -> Splits:
        """The data set, as trees or as sequences; then phrases gives the training split every labelled phrase."""
        lexicon = Lexicon()
        encoded = {split: self._encoded(trees, lexicon) for split, trees in self.trees.items()}
        samples = {split: replace(part, lexicon=lexicon.words) for split, part in encoded.items()}
        words = vocabulary(samples["train"], least, most)
        if form == "trees":
            return _splits(TreeSpec(classes, len(words) + 2, words, self.tokens, labels), samples)
        flat = {split: _phrases(part, phrases and split == "train") for split, part in samples.items()}
        return _splits(SequenceSpec(classes, len(words) + 2, words=words, tokens=self.tokens), flat)

    def _encoded(self, trees: Sequence[Parsed], lexicon: Lexicon) -> TreeSamples:
        classes = [[-1 if label is None else self.meaning[label] for label in tree.labels] for tree in trees]
        kept = [place for place, labels in enumerate(classes) if labels[0] >= 0]
        return tree_samples([trees[place] for place in kept], [classes[place] for place in kept], lexicon, self.tokens)


def words_below(tree: Parsed, most: int) -> list[str]:
    """The words below each node of a tree in brackets, `most` of them at most."""
    words = [str(tree.words[node]) for node in tree.reading]
    counts = [int(word is not None) for word in tree.words]
    firsts = [0, *accumulate(counts[:-1])]  # a node is written before all that is below it
    for node in range(len(counts) - 1, 0, -1):
        counts[tree.parents[node]] += counts[node]
    spans = zip(firsts, counts, strict=True)
    return [" ".join(words[first : first + min(count, most)] + ["…"] * (count > most)) for first, count in spans]


def _splits(spec: Spec, samples: Mapping[str, Samples], warnings: Sequence[str] = ()) -> Splits:
    return Splits(spec, samples["train"], samples.get("validation"), samples.get("test"), tuple(warnings))


def check_options(name: str, form: str, least: int, vocabulary: int) -> None:
    """Raises: UsageError where an option that the sets of text share is out of its range."""
    if form not in ("sequences", "trees") or least < 1 or vocabulary < 1:
        raise UsageError(
            f"data set {name!r} takes form sequences or trees, and least and vocabulary from 1; "
            f"not form={form}, least={least}, vocabulary={vocabulary}."
        )


def vocabulary(samples: SequenceSamples | TreeSamples, least: int, most: int) -> tuple[str, ...]:
    """The words that occur at least `least` times in a training split, the most frequent first, `most` of them at most.

    Those of the training split that are left out are what an unknown word is learnt from.

    Raises:
        DataError: none does.
    """
    counts = word_counts(samples)
    order = np.argsort(-counts, kind="stable")[:most]
    words = tuple(samples.lexicon[place] for place in order if counts[place] >= least)
    if not words:
        raise DataError(f"no word of the training split occurs {least} times; set data.options.least=1.")
    return words


def known_words(spec: Spec, train: Samples) -> Spec:
    """The spec with those of its words alone that occur in the training samples."""
    if isinstance(spec, ImageSpec) or not spec.words or not isinstance(train, SequenceSamples | TreeSamples):
        return spec
    counts = dict(zip(train.lexicon, word_counts(train).tolist(), strict=True))
    words = tuple(word for word in spec.words if counts[word])
    return replace(spec, words=words, vocabulary=len(words) + 2)


def word_counts(samples: SequenceSamples | TreeSamples) -> npt.NDArray[np.int64]:
    """How often each word of the lexicon occurs."""
    places = samples.values if isinstance(samples, SequenceSamples) else samples.words[samples.words >= 0]
    return np.bincount(places, minlength=len(samples.lexicon))


def tree_samples(
    parsed: Sequence[Parsed], classes: Sequence[Sequence[int]], lexicon: Places, tokens: str
) -> TreeSamples:
    """Trees as samples, classes[i] being those of the nodes of tree i, -1 where a node has none."""
    rows = [_row(tree, lexicon, tokens) for tree in parsed]
    columns = [np.array(list(chain.from_iterable(column)), dtype=np.int32) for column in zip(*rows, strict=True)]
    words, parents, siblings, heights, reading = columns or [np.zeros(0, np.int32)] * 5
    labels = np.array(list(chain.from_iterable(classes)), dtype=np.int64)
    starts = starts_of([len(tree.parents) for tree in parsed])
    return TreeSamples(words, parents, siblings, heights, reading, labels, starts, labels[starts[:-1]])


def _row(tree: Parsed, lexicon: Places, tokens: str) -> tuple[list[int], ...]:
    """words, parents, siblings, heights and reading of one tree, as TreeSamples has them."""
    known = iter(lexicon.places(plain_word(word, tokens) for word in tree.words if word is not None))
    words = [-1 if word is None else next(known) for word in tree.words]
    reading = tree.reading + [-1] * (len(words) - len(tree.reading))
    return (words, tree.parents, *_shape(tree.parents), reading)


def _sequences(examples: Sequence[Sequence[str]], targets: Sequence[int], lexicon: Lexicon) -> SequenceSamples:
    places = [place for words in examples for place in lexicon.places(words)]
    starts = starts_of([len(words) for words in examples])
    return SequenceSamples(np.array(places, dtype=np.int32), starts, np.array(targets, dtype=np.int64))


def _phrases(samples: TreeSamples, every: bool) -> SequenceSamples:
    """The words below the root of each tree, or below every labelled node, in their order."""
    firsts, counts = _spans(samples)
    chosen = np.flatnonzero(samples.labels >= 0) if every else samples.starts[:-1]
    nodes = samples.reading + np.repeat(samples.starts[:-1], samples.sizes)
    words = samples.words[nodes[samples.reading >= 0]]  # of all trees; a node's own stand behind one another
    values = words[ranges(firsts[chosen], counts[chosen])]
    return SequenceSamples(values, starts_of(counts[chosen]), samples.labels[chosen], samples.lexicon)


def _spans(samples: TreeSamples) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of each node, the first of its words among the words of all trees, and how many there are."""
    counts = (samples.words >= 0).astype(np.int64)
    firsts = np.cumsum(counts) - counts
    above = samples.parents + np.repeat(samples.starts[:-1], samples.sizes)  # of a root: not used
    for height in range(int(samples.heights.max(initial=0)) + 1):
        nodes = np.flatnonzero((samples.heights == height) & (samples.parents >= 0))
        np.add.at(counts, above[nodes], counts[nodes])
    return firsts, counts


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


def _shape(parents: Sequence[int]) -> tuple[list[int], list[int]]:
    """Each node's place among its siblings, and its height; parents stand before their children."""
    siblings, counts, heights = [0] * len(parents), [0] * len(parents), [0] * len(parents)
    for node, parent in enumerate(parents):
        if parent >= 0:
            siblings[node] = counts[parent]
            counts[parent] += 1
    for node in range(len(parents) - 1, 0, -1):
        heights[parents[node]] = max(heights[parents[node]], heights[node] + 1)
    return siblings, heights


def lines_of(path: Path, shown: str = "") -> Iterator[tuple[int, str]]:
    """The lines of a file of UTF-8 text with their numbers, from 1, without their ends; errors call the file `shown`.

    Raises:
        DataError: no such file, a line that is not UTF-8 or too long; the message names file and line.
    """
    for number, line in enumerate(_raw_lines(path), start=1):
        try:
            yield number, decoded(line)
        except DataError as error:
            raise DataError(f"{shown or path}:{number}: {error}.") from error


def words_in_file(path: Path, tokens: str) -> list[str]:
    """The words of a file that is one example.

    Raises:
        DataError: not UTF-8, too long, or without a word; the message names the file.
    """
    try:
        words = words_of(decoded(read_example(path)), tokens)
    except DataError as error:
        raise DataError(f"{path}: {error}.") from error
    if not words:
        raise DataError(f"{path}: holds no word.")
    return words


def read_example(path: Path) -> bytes:
    """A file's bytes, no more than tell that it is too long; raises DataError without the place where it is none."""
    if not path.is_file():
        raise DataError("not a regular file" if path.exists() else "there is no such file")
    with storage_errors(path), open(path, "rb") as file:
        return file.read(LONGEST + 1)


def decoded(raw: bytes) -> str:
    """One example as text.

    Raises:
        DataError: too long, or not UTF-8; without its place.
    """
    if len(raw) > LONGEST:
        raise DataError(f"more than the {LONGEST:,} bytes that an example may have")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = raw.count(b"\n", 0, error.start) + 1, raw[error.start]
        where = f"line {line}: " if line > 1 else ""
        raise DataError(f"{where}byte 0x{byte:02x} is not UTF-8") from None


def _raw_lines(path: Path) -> Iterator[bytes]:
    if not path.is_file():
        raise DataError(f"{path}: {'not a regular file' if path.exists() else 'there is no such file'}.")
    with storage_errors(path), open(path, "rb") as file:
        while line := file.readline(LONGEST + 3):  # no more of a line than tells that it is too long
            yield line.rstrip(b"\r\n")


def quoted(text: str) -> str:
    """A word as an error message names it, cut where it is long."""
    return ascii(text if len(text) <= 40 else text[:37] + "…")
