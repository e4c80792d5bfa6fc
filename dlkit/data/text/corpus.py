"""Samples and vocabulary of a data set from words and trees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dlkit.data.splits import Samples, SequenceSamples, Splits, TreeSamples
from dlkit.data.text.lines import decode_text, read_example
from dlkit.data.text.ragged import ranges, row_starts
from dlkit.data.text.tokenization import tokenize, unescape_word
from dlkit.data.text.treebank import ParsedTree, siblings_and_heights
from dlkit.errors import DataError, UsageError
from dlkit.registry import did_you_mean
from dlkit.specs import NORMALIZATIONS, TOKENIZERS, ImageSpec, SequenceSpec, Spec, Tokenization, TreeSpec


class WordEncoder(Protocol):
    """Maps words to numbers."""

    def encode(self, words: Iterable[str]) -> list[int]: ...


class VocabularyBuilder:
    """Numbers the words of a data set from 0, in order of appearance."""

    def __init__(self) -> None:
        self._indices: dict[str, int] = {}

    def encode(self, words: Iterable[str]) -> list[int]:
        """The number of each word; a new word gets the next one."""
        return [self._indices.setdefault(word, len(self._indices)) for word in words]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self._indices)


@dataclass(frozen=True)
class SequenceCorpus:
    """Examples as words, by split: train and, if present, validation and test."""

    examples: Mapping[str, Sequence[Sequence[str]]]
    targets: Mapping[str, Sequence[int]]
    tokens: str

    def splits(
        self, classes: tuple[str, ...], least: int, most: int, *, longest: int | None = None, notes: Sequence[str] = ()
    ) -> Splits:
        """The data set; its vocabulary comes from the training split."""
        builder = VocabularyBuilder()
        encoded = {split: _sequences(rows, self.targets[split], builder) for split, rows in self.examples.items()}
        samples = {split: replace(part, vocabulary=builder.words) for split, part in encoded.items()}
        words = build_vocabulary(samples["train"], least, most)
        spec = SequenceSpec(classes, len(words) + 2, words=words, tokens=self.tokens, longest=longest)
        warnings = list(notes)
        if longest is not None and (long := sum(int((part.sizes > longest).sum()) for part in samples.values())):
            warnings.append(f"{long:,} examples have more than {longest} words and are truncated.")
        return _splits(spec, samples, warnings)


@dataclass(frozen=True)
class TreeCorpus:
    """Trees by split: train and, if present, validation and test.

    class_of maps labels to classes, or to -1 for none. Trees whose root has no class are skipped.
    """

    trees: Mapping[str, Sequence[ParsedTree]]
    class_of: Mapping[str, int]
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
        """The data set as trees or as sequences; with `phrases`, every labelled phrase is a training sequence."""
        builder = VocabularyBuilder()
        encoded = {split: self._encode(trees, builder) for split, trees in self.trees.items()}
        samples = {split: replace(part, vocabulary=builder.words) for split, part in encoded.items()}
        words = build_vocabulary(samples["train"], least, most)
        if form == "trees":
            return _splits(TreeSpec(classes, len(words) + 2, words, self.tokens, labels), samples)
        flat = {split: _phrases(part, phrases and split == "train") for split, part in samples.items()}
        return _splits(SequenceSpec(classes, len(words) + 2, words=words, tokens=self.tokens), flat)

    def _encode(self, trees: Sequence[ParsedTree], builder: VocabularyBuilder) -> TreeSamples:
        classes = [[-1 if label is None else self.class_of[label] for label in tree.labels] for tree in trees]
        used = [index for index, labels in enumerate(classes) if labels[0] >= 0]
        return tree_samples([trees[i] for i in used], [classes[i] for i in used], builder, self.tokens)


def _splits(spec: Spec, samples: Mapping[str, Samples], warnings: Sequence[str] = ()) -> Splits:
    return Splits(spec, samples["train"], samples.get("validation"), samples.get("test"), tuple(warnings))


def check_options(name: str, form: str, least: int, vocabulary: int) -> None:
    """Raises: UsageError if an option that all text data sets share is out of range."""
    if form not in ("sequences", "trees") or least < 1 or vocabulary < 1:
        raise UsageError(
            f"data set {name!r}: form is sequences or trees, and least and vocabulary are at least 1; "
            f"not form={form}, least={least}, vocabulary={vocabulary}."
        )


def tokenization(name: str, tokenizer: str, normalize: str, lower: bool) -> str:
    """The name of the tokenization that a data set's options select.

    Raises:
        UsageError: unknown tokenizer or normalization.
    """
    for option, value, choices in (("tokenizer", tokenizer, TOKENIZERS), ("normalize", normalize, NORMALIZATIONS)):
        if value not in choices:
            raise UsageError(f"data set {name!r} has no {option} {value!r}. {did_you_mean(value, choices)}")
    return Tokenization(tokenizer, normalize, lower).name


def build_vocabulary(samples: SequenceSamples | TreeSamples, least: int, most: int) -> tuple[str, ...]:
    """The `most` most frequent words of a training split among those that occur at least `least` times.

    The remaining words of the training split train the unknown word.

    Raises:
        DataError: no word occurs that often.
    """
    counts = word_counts(samples)
    order = np.argsort(-counts, kind="stable")[:most]
    words = tuple(samples.vocabulary[index] for index in order if counts[index] >= least)
    if not words:
        raise DataError(f"no word of the training split occurs {least} times. Set data.options.least=1.")
    return words


def restrict_vocabulary(spec: Spec, train: Samples) -> Spec:
    """The spec, its words restricted to those that occur in the training samples."""
    if isinstance(spec, ImageSpec) or not spec.words or not isinstance(train, SequenceSamples | TreeSamples):
        return spec
    counts = dict(zip(train.vocabulary, word_counts(train).tolist(), strict=True))
    words = tuple(word for word in spec.words if counts[word])
    return replace(spec, words=words, vocabulary=len(words) + 2)


def unknown_share(samples: SequenceSamples | TreeSamples, words: Iterable[str]) -> float:
    """The share of the samples' words, counted with repetition, outside `words`."""
    counts, known = word_counts(samples), set(words)
    unknown = sum(int(count) for word, count in zip(samples.vocabulary, counts, strict=True) if word not in known)
    return unknown / max(1, int(counts.sum()))


def word_counts(samples: SequenceSamples | TreeSamples) -> npt.NDArray[np.int64]:
    """The number of occurrences of each word of the vocabulary: (V,)."""
    words = samples.values if isinstance(samples, SequenceSamples) else samples.words[samples.words >= 0]
    return np.bincount(words, minlength=len(samples.vocabulary))


def tree_samples(
    parsed: Sequence[ParsedTree], classes: Sequence[Sequence[int]], encoder: WordEncoder, tokens: str
) -> TreeSamples:
    """Trees as samples; classes[i] are the classes of the nodes of tree i, -1 for none."""
    rows = [_row(tree, encoder, tokens) for tree in parsed]
    columns = [np.array(list(chain.from_iterable(column)), dtype=np.int32) for column in zip(*rows, strict=True)]
    words, parents, siblings, heights, reading = columns or [np.zeros(0, np.int32)] * 5
    labels = np.array(list(chain.from_iterable(classes)), dtype=np.int64)
    starts = row_starts([len(tree.parents) for tree in parsed])
    return TreeSamples(words, parents, siblings, heights, reading, labels, starts, labels[starts[:-1]])


def _row(tree: ParsedTree, encoder: WordEncoder, tokens: str) -> tuple[list[int], ...]:
    """words, parents, siblings, heights and reading of one tree, as in TreeSamples."""
    ids = iter(encoder.encode(unescape_word(word, tokens) for word in tree.words if word is not None))
    words = [-1 if word is None else next(ids) for word in tree.words]
    reading = tree.reading + [-1] * (len(words) - len(tree.reading))
    return (words, tree.parents, *siblings_and_heights(tree.parents), reading)


def _sequences(
    examples: Sequence[Sequence[str]], targets: Sequence[int], builder: VocabularyBuilder
) -> SequenceSamples:
    values = [index for words in examples for index in builder.encode(words)]
    starts = row_starts([len(words) for words in examples])
    return SequenceSamples(np.array(values, dtype=np.int32), starts, np.array(targets, dtype=np.int64))


def _phrases(samples: TreeSamples, all_nodes: bool) -> SequenceSamples:
    """The words below the root of each tree, or below every labelled node, in word order."""
    firsts, counts = _spans(samples)
    heads = np.flatnonzero(samples.labels >= 0) if all_nodes else samples.starts[:-1]
    nodes = samples.reading + np.repeat(samples.starts[:-1], samples.sizes)
    words = samples.words[nodes[samples.reading >= 0]]  # of all trees; those of one node are contiguous
    values = words[ranges(firsts[heads], counts[heads])]
    return SequenceSamples(values, row_starts(counts[heads]), samples.labels[heads], samples.vocabulary)


def _spans(samples: TreeSamples) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each node, the index of its first word among the words of all trees, and the number of its words."""
    counts = (samples.words >= 0).astype(np.int64)
    firsts = np.cumsum(counts) - counts
    parents = samples.parents + np.repeat(samples.starts[:-1], samples.sizes)  # meaningless for roots
    for height in range(int(samples.heights.max(initial=0)) + 1):
        nodes = np.flatnonzero((samples.heights == height) & (samples.parents >= 0))
        np.add.at(counts, parents[nodes], counts[nodes])
    return firsts, counts


def read_words(path: Path, tokens: str) -> list[str]:
    """Read the words of a file that is one example.

    Raises:
        DataError: not UTF-8, too long, or without words; the message names the file.
    """
    try:
        words = tokenize(decode_text(read_example(path)), tokens)
    except DataError as error:
        raise DataError(f"{path}: {error}.") from error
    if not words:
        raise DataError(f"{path}: contains no words.")
    return words
