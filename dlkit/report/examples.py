"""The samples shown in a report: thumbnails or lines of text, and explanations of some predictions."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dlkit import documents
from dlkit.data.images import decode as image_files
from dlkit.data.images.resize_crop import Pixels
from dlkit.errors import DlkitError, UsageError
from dlkit.evaluation.model_summary import ModelSummary
from dlkit.report.data import Omission, RunData, SampleResult
from dlkit.report.samples import EvaluatedSamples
from dlkit.specs import ImageSpec

if TYPE_CHECKING:
    from dlkit.explanation.records import Explanation

THUMBNAIL_SIDE = 96  # maximum pixels of the longer side
MAX_PER_CELL = 24  # thumbnails for a cell of the confusion matrix
MAX_TEXT = 400  # characters
MAX_FAILURES = 3  # samples that cannot be loaded before the rest is skipped
MAX_SAVED = 8  # images from the run's explanations/
SAVED_WIDTH = 1000  # pixels

Say = Callable[[str], None]


@dataclass(frozen=True)
class Preview:
    """A sample on the page: an image as a data: URI, or its text."""

    image: str = ""
    text: str = ""


@dataclass(frozen=True)
class ExplanationCard:
    """The explanation of a prediction on the page: an overlay, or words with their values."""

    caption: str
    note: str
    image: str = ""  # data: URI
    words: tuple[tuple[str, float], ...] = ()  # with values from -1 (against the class) to 1 (for it)
    correct: bool | None = None  # None if the target is unknown
    original: str = ""  # data: URI of the image without the overlay


@dataclass(frozen=True)
class RunContent:
    """A run with everything that its part of the page shows."""

    data: RunData
    summary: ModelSummary | None
    previews: Mapping[int | str, Preview]
    explanations: Sequence[ExplanationCard]
    saved_explanations: Sequence[ExplanationCard]
    omissions: Sequence[Omission]


def load_previews(samples: EvaluatedSamples, limit: int, say: Say) -> tuple[dict[int | str, Preview], list[Omission]]:
    """Previews of the first mistakes, and an omission if some cannot be loaded."""
    previews: dict[int | str, Preview] = {}
    failures: list[str] = []
    selected = rank_mistakes(samples.run_data.mistakes)[:limit]
    for result in selected:
        try:
            previews[result.id] = _preview(samples, result.id)
        except DlkitError as error:
            failures.append(str(error))
            if not previews and len(failures) == MAX_FAILURES:  # the data set itself is missing
                break
    if not failures:
        return previews, []
    missing = len(selected) - len(previews)
    reason = f"{missing:,} of {len(selected):,} mistakes cannot be shown: {failures[0]}"
    say(f"warning: {samples.run_data.name}: {reason}")
    return previews, [Omission(reason)]


def rank_mistakes(mistakes: Sequence[SampleResult]) -> list[SampleResult]:
    """The most confident mistakes of each pair of classes: the first of every pair precedes the second of any."""
    counts: dict[tuple[int, int], int] = defaultdict(int)
    ranked = []
    for result in mistakes:  # the most confident first
        pair = (result.target, result.predicted)
        if counts[pair] < MAX_PER_CELL:
            ranked.append((counts[pair], result))
        counts[pair] += 1
    return [result for _, result in sorted(ranked, key=lambda item: item[0])]


def explain_samples(samples: EvaluatedSamples, count: int, say: Say) -> tuple[list[ExplanationCard], list[Omission]]:
    """Explanations of `count` mistakes and as many correct predictions, by the model's default method."""
    data = samples.run_data
    selected = [*data.mistakes[:count], *_correct_results(data, count)]
    if not selected:
        return [], []

    from dlkit.explanation.explain import explain
    from dlkit.explanation.records import Explanation

    try:
        inputs = [_source(samples, result.id) for result in selected]
        say(f"explaining {len(inputs)} predictions of {data.name}")
        answers = list(explain(data.run, inputs, write=False, checkpoint=data.checkpoint, say=say))
    except UsageError:  # no method fits the network, which the user cannot change
        return [], []
    except DlkitError as error:
        return [], [Omission(f"No predictions are explained: {error}")]
    return [
        _card(data, result, answer)
        for result, answer in zip(selected, answers, strict=True)
        if isinstance(answer, Explanation) and answer.target_index == result.predicted  # a text may be split otherwise
    ], []


def saved_explanations(data: RunData) -> list[ExplanationCard]:
    """The images that `dlkit explain` wrote to the run folder, the first few by name."""
    cards = []
    for path in sorted((data.run.path / "explanations").glob("*.json"))[:MAX_SAVED]:
        try:
            document = documents.read(path)
            image = image_files.decode(path.with_suffix(".png"), 3)
            image.thumbnail((SAVED_WIDTH, SAVED_WIDTH))
            flagged = ", flagged" if document["sanity"]["flagged"] else ""
            note = f"deletion {document['deletion_auc']:.2f}, insertion {document['insertion_auc']:.2f}{flagged}"
            caption = f"{Path(document['path']).name}: {document['target']} by {document['method']}"
            cards.append(ExplanationCard(caption, note, _data_uri(image, "WEBP")))
        except (OSError, ValueError, KeyError, TypeError, DlkitError):
            continue  # of an older form, or not written by dlkit
    return cards


def _preview(samples: EvaluatedSamples, id: int | str) -> Preview:
    """Raises: DlkitError if the sample cannot be loaded."""
    if isinstance(samples.run_data.spec, ImageSpec):
        return Preview(image=_thumbnail(_to_image(samples.pixels(id))))
    text = samples.text(id)
    return Preview(text=text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…")


def _source(samples: EvaluatedSamples, id: int | str) -> bytes:
    """A sample as input of explain: an image file, a text, or a tree."""
    if isinstance(samples.run_data.spec, ImageSpec):
        return _encode(_to_image(samples.pixels(id)), "PNG")
    return samples.source_text(id).encode()


def _correct_results(data: RunData, count: int) -> list[SampleResult]:
    """The first correct prediction of each class, for up to `count` classes."""
    first: dict[int, SampleResult] = {}
    for result in data.results:
        if result.target == result.predicted and len(first) < count:
            first.setdefault(result.target, result)
    return list(first.values())


def _card(data: RunData, result: SampleResult, explanation: Explanation) -> ExplanationCard:
    from dlkit.explanation import overlay

    target, predicted = (data.spec.classes[index] for index in (result.target, result.predicted))
    correct = result.target == result.predicted
    caption = f"{predicted} at {100 * result.probability:.1f} %" + ("" if correct else f", is {target}")
    note = f"{explanation.method}, insertion {explanation.insertion_auc:.2f}{', flagged' * explanation.sanity.flagged}"
    if explanation.image is None:
        largest = max(abs(word.value) for word in explanation.words) or 1.0
        words = tuple((word.word, word.value / largest) for word in explanation.words)
        return ExplanationCard(caption, note, words=words, correct=correct)
    original = _thumbnail(_to_image(explanation.image))
    image = _thumbnail(overlay.render_overlay(explanation, THUMBNAIL_SIDE))
    return ExplanationCard(caption, note, image, correct=correct, original=original)


def _thumbnail(image: Image.Image) -> str:
    """A data: URI of at most THUMBNAIL_SIDE pixels; small grayscale images are lossless."""
    if max(image.size) > THUMBNAIL_SIDE:
        image = image.copy()
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    lossless = image.mode == "L" and max(image.size) <= THUMBNAIL_SIDE // 2
    return _data_uri(image, "PNG" if lossless else "WEBP")


def _data_uri(image: Image.Image, format: str) -> str:
    return f"data:image/{format.lower()};base64,{base64.b64encode(_encode(image, format)).decode('ascii')}"


def _encode(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    settings: dict[str, Any] = {"quality": 80} if format == "WEBP" else {"optimize": True}
    image.save(buffer, format=format, **settings)
    return buffer.getvalue()


def _to_image(pixels: Pixels) -> Image.Image:  # (C, H, W)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
