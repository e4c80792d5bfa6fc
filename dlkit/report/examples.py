"""Samples as a report shows them: small pictures or a line of text, and where in a picture the answer came from.

Images come through the same loader as in eval, so what is shown is what the network saw. Nothing is downloaded.
"""

from __future__ import annotations

import base64
import io
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dlkit import documents
from dlkit.config.resolve import data_for
from dlkit.config.schema import Data
from dlkit.data.fingerprint import fingerprint
from dlkit.data.images import decode as image_files
from dlkit.data.images.resize_crop import Pixels
from dlkit.data.splits import ImageFiles, ImageSource, Samples, SequenceSamples, TreeSamples
from dlkit.errors import DataError, DlkitError, UsageError
from dlkit.evaluation.model_summary import ModelSummary
from dlkit.report.data import Answer, Facts, Gap
from dlkit.runs.data_of_run import data_of_run
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    from dlkit.explanation.records import Explanation

SIDE = 96  # pixels of a thumbnail's longer side, at most
A_CELL = 24  # thumbnails of a cell of the confusion matrix, at most
LONGEST_TEXT = 400  # characters
BRACKETS = {"(": "-LRB-", ")": "-RRB-"}  # words, as a treebank writes them
TRIES = 3  # samples that cannot be had before all are given up
MOST_EXPLANATIONS = 8  # pictures taken from the run's explanations/
EXPLANATION_WIDTH = 1000  # pixels

Say = Callable[[str], None]


@dataclass(frozen=True)
class Look:
    """What a sample looks like: a picture as a data: URI, or its words."""

    picture: str = ""
    text: str = ""


@dataclass(frozen=True)
class Explained:
    """A picture of where an answer came from, or its words, and what is known of it."""

    caption: str
    note: str
    picture: str = ""  # data: URI
    words: tuple[tuple[str, float], ...] = ()  # each speaks for the class, up to 1, or against it, down to -1
    right: bool | None = None  # None where the truth is not known
    original: str = ""  # data: URI of the image alone, where it is not a part of the picture


@dataclass(frozen=True)
class Story:
    """A run and all that its part of the page is made of."""

    facts: Facts
    summary: ModelSummary | None
    looks: Mapping[int | str, Look]
    explained: Sequence[Explained]
    kept: Sequence[Explained]
    gaps: Sequence[Gap]


class Originals:
    """The samples of a run's evaluation, to be looked at one at a time."""

    def __init__(self, facts: Facts, data_dir: Path | str | None = None) -> None:
        self.facts, self.data_dir = facts, data_dir

    def look(self, id: int | str) -> Look:
        """Raises: DlkitError where the sample cannot be had."""
        if isinstance(self.facts.spec, ImageSpec):
            return Look(picture=_thumbnail(self.pixels(id)))
        text = self._text(id)
        return Look(text=text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…")

    def source(self, id: int | str) -> bytes:
        """A sample as explain takes it: an image's file, a text, or a tree in brackets."""
        if isinstance(self.facts.spec, ImageSpec):
            return _encoded(Image.fromarray(_channels_last(self.pixels(id))), "PNG")
        samples, place = self._samples, self._place(id)
        return (written(samples, place) if isinstance(samples, TreeSamples) else self._text(id)).encode()

    def pixels(self, id: int | str) -> Pixels:
        """An image as the network saw it, (C, H, W)."""
        spec = self.facts.spec
        assert isinstance(spec, ImageSpec)
        if isinstance(id, str):
            return image_files.load(Path(id) if os.path.lexists(id) else self._moved(id), spec)

        from dlkit.data.loader import take
        from dlkit.evaluation.matching import resize_samples

        one = resize_samples(take(self._samples, np.array([self._place(id)])), spec)
        assert not isinstance(one, ImageFiles | SequenceSamples | TreeSamples)
        pixels: Pixels = one.images[0]
        return pixels

    def _moved(self, id: str) -> ImageSource:
        """An image that is no file of its own, or one where the data lies now."""
        before, now = self.facts.recipe.data.dir, self._data.dir
        if before is not None and now is not None and Path(id).is_relative_to(before):
            path = Path(now) / Path(id).relative_to(before)
            if path.is_file():
                return path
        return self._stored.get(id, Path(id))

    @cached_property
    def _data(self) -> Data:
        """What was evaluated."""
        recipe, name = self.facts.recipe, self.facts.evaluation["dataset"]
        if name == recipe.data.name:
            return data_of_run(self.facts.run, recipe.data, self.data_dir)
        place = None if self.data_dir is None else os.fspath(self.data_dir)
        return data_for(recipe.model.name, name, place, recipe.data.options)

    @cached_property
    def _stored(self) -> dict[str, ImageSource]:
        """The images that are no files of their own, by what eval calls them."""
        samples, _, _ = self._evaluated
        found = samples.paths if isinstance(samples, ImageFiles) else []
        return {str(source): source for source in found if not isinstance(source, Path)}

    def _place(self, id: int | str) -> int:
        if not isinstance(id, int) or not 0 <= id < len(self._samples):
            raise DataError(f"predictions.jsonl names a sample that the data set does not have: {id}.")
        return id

    @cached_property
    def _samples(self) -> Samples:
        """The split that was evaluated; the data set must be there, and what it was."""
        samples, name, classes = self._evaluated
        if samples is None or isinstance(samples, ImageFiles):
            raise DataError(f"data set {name!r} has no {self.facts.evaluation['split']} split in memory now.")
        if fingerprint(samples, classes) != self.facts.evaluation.get("fingerprint"):
            raise DataError(f"data set {name!r} is not what it was when the run was evaluated.")
        return samples

    @cached_property
    def _evaluated(self) -> tuple[Samples | None, str, tuple[str, ...]]:
        """The split that was evaluated as it is now, the data set's name and its classes."""
        from dlkit.data import loader
        from dlkit.data.library import splits

        recipe, evaluation, data = self.facts.recipe, self.facts.evaluation, self._data
        found = splits(data, allow_download=False)
        samples = loader.split(found, data.validation, recipe.train.seed).get(evaluation["split"])
        return samples, data.name, found.spec.classes

    def _text(self, id: int | str) -> str:
        samples, place = self._samples, self._place(id)
        if not isinstance(samples, SequenceSamples | TreeSamples) or not samples.lexicon:
            raise DataError("its samples are vectors of numbers, which say nothing to the eye.")
        part = slice(samples.starts[place], samples.starts[place + 1])
        if isinstance(samples, SequenceSamples):
            places = samples.values[part]
        else:
            reading = samples.reading[part]
            places = samples.words[part][reading[reading >= 0]]
        return " ".join(samples.lexicon[place] for place in places.tolist())


def written(samples: TreeSamples, place: int) -> str:
    """A tree without labels, in brackets, ((a) (gem)), or as CoNLL-U where inner nodes have words."""
    part = slice(samples.starts[place], samples.starts[place + 1])
    words, parents = samples.words[part].tolist(), samples.parents[part].tolist()
    children: list[list[int]] = [[] for _ in words]
    for node in np.argsort(samples.siblings[part], kind="stable").tolist():
        if parents[node] >= 0:
            children[parents[node]].append(node)
    if any(inner and word >= 0 for inner, word in zip(children, words, strict=True)):
        return _conllu([samples.lexicon[word] for word in words], parents, samples.reading[part].tolist())
    texts = [""] * len(words)
    for node in reversed(range(len(words))):  # a parent stands before its children
        word = samples.lexicon[words[node]] if words[node] >= 0 else ""
        texts[node] = f"({' '.join(texts[child] for child in children[node]) or BRACKETS.get(word, word)})"
    return texts[0]


def _conllu(words: list[str], parents: list[int], reading: list[int]) -> str:
    numbers = {node: number for number, node in enumerate(reading, start=1)} | {-1: 0}
    rows = ((str(numbers[node]), words[node], *"____", str(numbers[parents[node]]), *"___") for node in reading)
    return "\n".join("\t".join(row) for row in rows)


def looks(originals: Originals, most: int, say: Say) -> tuple[dict[int | str, Look], list[Gap]]:
    """The mistakes that a person looks at first, at most so many; and what kept the others from being shown."""
    found: dict[int | str, Look] = {}
    failures: list[str] = []
    chosen = shown_first(originals.facts.wrong)[:most]
    for answer in chosen:
        try:
            found[answer.id] = originals.look(answer.id)
        except DlkitError as error:
            failures.append(str(error))
            if not found and len(failures) == TRIES:  # it is the data set that is missing
                break
    gaps = []
    if failures:
        count = len(chosen) - len(found)
        told = f"{count:,} of {len(chosen):,} mistakes cannot be looked at: {failures[0]}"
        gaps.append(Gap(told))
        say(f"warning: {originals.facts.name}: {told}")
    return found, gaps


def shown_first(wrong: Sequence[Answer]) -> list[Answer]:
    """Of each pair of classes the most confident mistakes, and of those the first of every pair before the second."""
    ranks: dict[tuple[int, int], int] = defaultdict(int)
    ranked = []
    for answer in wrong:  # the most confident first
        pair = (answer.target, answer.predicted)
        if ranks[pair] < A_CELL:
            ranked.append((ranks[pair], answer))
        ranks[pair] += 1
    return [answer for _, answer in sorted(ranked, key=lambda one: one[0])]


def explained(originals: Originals, each: int, say: Say) -> tuple[list[Explained], list[Gap]]:
    """The run's explanations of so many mistakes and as many right answers, made by the method that fits it."""
    facts = originals.facts
    chosen = [*facts.wrong[:each], *_right_ones(facts, each)]
    if not chosen:
        return [], []

    from dlkit.explanation.explain import explain
    from dlkit.explanation.records import Explanation

    try:
        sources = [originals.source(answer.id) for answer in chosen]
        say(f"explaining {len(sources)} answers of {facts.name}")
        answers = list(explain(facts.run, sources, write=False, checkpoint=facts.checkpoint, say=say))
    except UsageError:  # no method fits the network, which is nothing that anyone could mend
        return [], []
    except DlkitError as error:
        return [], [Gap(f"No answers are explained: {error}")]
    return [
        _beside(facts, answer, found)
        for answer, found in zip(chosen, answers, strict=True)
        if isinstance(found, Explanation) and found.target_index == answer.predicted  # a text may be cut anew
    ], []


def kept(facts: Facts) -> list[Explained]:
    """The pictures that `dlkit explain` left in the run's folder, the first few by name."""
    found = []
    for path in sorted((facts.run.path / "explanations").glob("*.json"))[:MOST_EXPLANATIONS]:
        try:
            document = documents.read(path)
            picture = image_files.decode(path.with_suffix(".png"), 3)
            picture.thumbnail((EXPLANATION_WIDTH, EXPLANATION_WIDTH))
            flagged = ", flagged" if document["sanity"]["flagged"] else ""
            note = f"deletion {document['deletion_auc']:.2f}, insertion {document['insertion_auc']:.2f}{flagged}"
            caption = f"{Path(document['path']).name}: {document['target']} by {document['method']}"
            found.append(Explained(caption, note, _uri(_encoded(picture, "WEBP"), "webp")))
        except (OSError, ValueError, KeyError, TypeError, DlkitError):
            continue  # of an earlier form, or somebody else's
    return found


def _right_ones(facts: Facts, count: int) -> list[Answer]:
    """The first right answer of as many classes as there can be."""
    found: dict[int, Answer] = {}
    for answer in facts.answers:
        if answer.target == answer.predicted and len(found) < count:
            found.setdefault(answer.target, answer)
    return list(found.values())


def _beside(facts: Facts, answer: Answer, explanation: Explanation) -> Explained:
    from dlkit.explanation import overlay

    true, predicted = (facts.spec.classes[place] for place in (answer.target, answer.predicted))
    right = answer.target == answer.predicted
    told = f"{predicted} at {100 * answer.probability:.1f} %" + ("" if right else f", is {true}")
    note = f"{explanation.method}, insertion {explanation.insertion_auc:.2f}{', flagged' * explanation.sanity.flagged}"
    if explanation.image is None:
        full = max(abs(word.value) for word in explanation.words) or 1.0
        words = tuple((word.word, word.value / full) for word in explanation.words)
        return Explained(told, note, words=words, right=right)
    original = _picture(Image.fromarray(_channels_last(explanation.image)))
    return Explained(told, note, _picture(overlay.render_overlay(explanation, SIDE)), right=right, original=original)


def _thumbnail(pixels: Pixels) -> str:
    return _picture(Image.fromarray(_channels_last(pixels)))


def _picture(image: Image.Image) -> str:
    """A data: URI. What is small is kept as it is, the rest made small."""
    if max(image.size) > SIDE:
        image = image.copy()
        image.thumbnail((SIDE, SIDE))
    exact = image.mode == "L" and max(image.size) <= SIDE // 2
    return _uri(_encoded(image, "PNG"), "png") if exact else _uri(_encoded(image, "WEBP"), "webp")


def _encoded(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    settings: dict[str, Any] = {"quality": 80} if format == "WEBP" else {"optimize": True}
    image.save(buffer, format=format, **settings)
    return buffer.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _channels_last(pixels: Pixels) -> Pixels:
    """(C, H, W) → (H, W) of one channel, else (H, W, C): as Pillow takes it."""
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
