"""Words and trees into the samples and the vocabulary of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dlkit.data.splits import Samples, SequenceSamples, Splits, TreeSamples
from dlkit.data.text.lines import decoded, read_example
from dlkit.data.text.ragged import ranges, starts_of
from dlkit.data.text.tokenization import plain_word, words_of
from dlkit.data.text.treebank import Parsed, shape
from dlkit.errors import DataError, UsageError
from dlkit.registry import did_you_mean
from dlkit.specs import NORMALIZATIONS, TOKENIZERS, ImageSpec, SequenceSpec, Spec, Tokenization, TreeSpec


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


def _splits(spec: Spec, samples: Mapping[str, Samples], warnings: Sequence[str] = ()) -> Splits:
    return Splits(spec, samples["train"], samples.get("validation"), samples.get("test"), tuple(warnings))


def check_options(name: str, form: str, least: int, vocabulary: int) -> None:
    """Raises: UsageError where an option that the sets of text share is out of its range."""
    if form not in ("sequences", "trees") or least < 1 or vocabulary < 1:
        raise UsageError(
            f"data set {name!r} takes form sequences or trees, and least and vocabulary from 1; "
            f"not form={form}, least={least}, vocabulary={vocabulary}."
        )


def tokenization(name: str, tokenizer: str, normalize: str, lower: bool) -> str:
    """The name of the tokenization that these options of a data set choose.

    Raises:
        UsageError: there is none of that kind.
    """
    for option, value, choices in (("tokenizer", tokenizer, TOKENIZERS), ("normalize", normalize, NORMALIZATIONS)):
        if value not in choices:
            raise UsageError(f"data set {name!r} has no {option} {value!r}. {did_you_mean(value, choices)}")
    return Tokenization(tokenizer, normalize, lower).name


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


def unknown_share(samples: SequenceSamples | TreeSamples, words: Iterable[str]) -> float:
    """The share of the samples' words that are not among `words`."""
    counts, known = word_counts(samples), set(words)
    unknown = sum(int(count) for word, count in zip(samples.lexicon, counts, strict=True) if word not in known)
    return unknown / max(1, int(counts.sum()))


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
    return (words, tree.parents, *shape(tree.parents), reading)


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
