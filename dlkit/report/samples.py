"""The samples of a run's evaluation as they are now: pixels, text or trees. Nothing is downloaded."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from dlkit.config.resolve import data_for
from dlkit.config.schema import Data
from dlkit.data.fingerprint import fingerprint
from dlkit.data.images import decode as image_files
from dlkit.data.images.resize_crop import Pixels
from dlkit.data.splits import ImageFiles, ImageSource, Samples, SequenceSamples, TreeSamples
from dlkit.errors import DataError
from dlkit.report.data import RunData
from dlkit.runs.data_of_run import data_of_run
from dlkit.specs import ImageSpec

BRACKETS = {"(": "-LRB-", ")": "-RRB-"}  # the words of a treebank for brackets


class EvaluatedSamples:
    """Loads single samples of a run's evaluation; images by the loader of eval, so they are what the network saw."""

    def __init__(self, run_data: RunData, data_dir: Path | str | None = None) -> None:
        self.run_data, self.data_dir = run_data, data_dir

    def pixels(self, id: int | str) -> Pixels:
        """A preprocessed image, (C, H, W)."""
        spec = self.run_data.spec
        assert isinstance(spec, ImageSpec)
        if isinstance(id, str):
            return image_files.load(Path(id) if os.path.lexists(id) else self._relocate(id), spec)

        from dlkit.data.loader import take
        from dlkit.evaluation.matching import resize_samples

        samples = resize_samples(take(self._samples, np.array([self._check_index(id)])), spec)
        assert not isinstance(samples, ImageFiles | SequenceSamples | TreeSamples)
        pixels: Pixels = samples.images[0]
        return pixels

    def text(self, id: int | str) -> str:
        """The words of a text or a tree."""
        samples, index = self._samples, self._check_index(id)
        if not isinstance(samples, SequenceSamples | TreeSamples) or not samples.vocabulary:
            raise DataError("the samples are vectors of numbers, which cannot be shown.")
        part = slice(samples.starts[index], samples.starts[index + 1])
        if isinstance(samples, SequenceSamples):
            words = samples.values[part]
        else:
            reading = samples.reading[part]
            words = samples.words[part][reading[reading >= 0]]
        return " ".join(samples.vocabulary[word] for word in words.tolist())

    def source_text(self, id: int | str) -> str:
        """A text or a tree in the notation that explain reads."""
        samples = self._samples
        return format_tree(samples, self._check_index(id)) if isinstance(samples, TreeSamples) else self.text(id)

    def _relocate(self, id: str) -> ImageSource:
        """An image in the data set's present folder, or one that is not a file of its own."""
        before, now = self.run_data.recipe.data.dir, self._data.dir
        if before is not None and now is not None and Path(id).is_relative_to(before):
            path = Path(now) / Path(id).relative_to(before)
            if path.is_file():
                return path
        return self._archived_images.get(id, Path(id))

    def _check_index(self, id: int | str) -> int:
        if not isinstance(id, int) or not 0 <= id < len(self._samples):
            raise DataError(f"predictions.jsonl has a sample that is not in the data set: {id}.")
        return id

    @cached_property
    def _data(self) -> Data:
        """The evaluated data set."""
        recipe, name = self.run_data.recipe, self.run_data.evaluation["dataset"]
        if name == recipe.data.name:
            return data_of_run(self.run_data.run, recipe.data, self.data_dir)
        folder = None if self.data_dir is None else os.fspath(self.data_dir)
        return data_for(recipe.model.name, name, folder, recipe.data.options)

    @cached_property
    def _archived_images(self) -> dict[str, ImageSource]:
        """The images that are not files of their own, by their names in predictions.jsonl."""
        samples, _, _ = self._split
        sources = samples.paths if isinstance(samples, ImageFiles) else []
        return {str(source): source for source in sources if not isinstance(source, Path)}

    @cached_property
    def _samples(self) -> Samples:
        """The evaluated split; raises DataError if it is missing or has changed."""
        samples, name, classes = self._split
        if samples is None or isinstance(samples, ImageFiles):
            raise DataError(f"data set {name!r} has no {self.run_data.evaluation['split']} split in memory now.")
        if fingerprint(samples, classes) != self.run_data.evaluation.get("fingerprint"):
            raise DataError(f"data set {name!r} has changed since the run was evaluated.")
        return samples

    @cached_property
    def _split(self) -> tuple[Samples | None, str, tuple[str, ...]]:
        """The evaluated split as it is now, the name of the data set and its classes."""
        from dlkit.data import loader
        from dlkit.data.library import splits

        recipe, evaluation, data = self.run_data.recipe, self.run_data.evaluation, self._data
        available = splits(data, allow_download=False)
        samples = loader.split(available, data.validation, recipe.train.seed).get(evaluation["split"])
        return samples, data.name, available.spec.classes


def format_tree(samples: TreeSamples, index: int) -> str:
    """A tree without labels in brackets, ((a) (gem)), or as CoNLL-U if its inner nodes have words."""
    part = slice(samples.starts[index], samples.starts[index + 1])
    words, parents = samples.words[part].tolist(), samples.parents[part].tolist()
    children: list[list[int]] = [[] for _ in words]
    for node in np.argsort(samples.siblings[part], kind="stable").tolist():
        if parents[node] >= 0:
            children[parents[node]].append(node)
    if any(inner and word >= 0 for inner, word in zip(children, words, strict=True)):
        return _format_conllu([samples.vocabulary[word] for word in words], parents, samples.reading[part].tolist())
    texts = [""] * len(words)
    for node in reversed(range(len(words))):  # a parent precedes its children
        word = samples.vocabulary[words[node]] if words[node] >= 0 else ""
        texts[node] = f"({' '.join(texts[child] for child in children[node]) or BRACKETS.get(word, word)})"
    return texts[0]


def _format_conllu(words: list[str], parents: list[int], reading: list[int]) -> str:
    numbers = {node: number for number, node in enumerate(reading, start=1)} | {-1: 0}
    rows = ((str(numbers[node]), words[node], *"____", str(numbers[parents[node]]), *"___") for node in reading)
    return "\n".join("\t".join(row) for row in rows)
