"""Text data sets under `dataset check`: copies, contradicting labels, cut texts and unknown words."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dlkit.data import folders
from dlkit.data.checks.near_texts import near_pairs
from dlkit.data.checks.survey import FAULT, IMBALANCE, NOTE, Finding, advice
from dlkit.data.images.formats import EXTENSIONS
from dlkit.data.splits import Samples, SequenceSamples, Splits
from dlkit.data.text.corpus import unknown_share
from dlkit.errors import UsageError
from dlkit.specs import SequenceSpec

SHOWN = 8  # words of a text in a message
Copy = tuple[str, int, int]  # split, index, target


def is_text_folder(path: Path) -> bool:
    """Whether the files below a folder are texts, and none an image."""
    suffixes = {os.path.splitext(name)[1].lower() for name in folders.files_below(path, lambda error: None)}
    return ".txt" in suffixes and not suffixes & set(EXTENSIONS)


def parts_of(name: str, data: Splits) -> dict[str, SequenceSamples]:
    """The splits of a text data set.

    Raises:
        UsageError: it holds trees, or sequences of numbers.
    """
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    parts = {split: part for split, part in named.items() if part is not None}
    if not all(_is_text(part) for part in parts.values()) or not isinstance(data.spec, SequenceSpec):
        raise UsageError(f"dataset check looks at images and texts; data set {name!r} has neither.")
    return {split: part for split, part in parts.items() if isinstance(part, SequenceSamples)}


def findings(parts: Mapping[str, SequenceSamples], spec: SequenceSpec) -> Iterator[Finding]:
    copies: dict[bytes, list[Copy]] = defaultdict(list)
    for split, samples in parts.items():
        for index, target in enumerate(samples.targets.tolist()):
            copies[samples.values[samples.starts[index] : samples.starts[index + 1]].tobytes()].append(
                (split, index, target)
            )
    for group in copies.values():
        if len(group) > 1:
            yield from _of_copies(group, parts, spec)
    yield from _of_near_copies(parts)
    yield from _of_balance(parts["train"], spec)
    for split, samples in parts.items():
        yield from _of_split(split, samples, spec)


def counts(parts: Mapping[str, SequenceSamples], classes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Split → class → texts."""
    return {split: dict(Counter(classes[target] for target in part.targets.tolist())) for split, part in parts.items()}


def _is_text(samples: Samples) -> bool:
    return isinstance(samples, SequenceSamples) and bool(samples.vocabulary)


def _of_copies(group: list[Copy], parts: Mapping[str, SequenceSamples], spec: SequenceSpec) -> Iterator[Finding]:
    labels = sorted({spec.classes[target] for _, _, target in group})
    last_split, last, _ = group[-1]
    text = _shown(parts[last_split], last)
    for split, index, _ in group:
        path = f"{split}[{index}]"
        if len(labels) > 1:
            yield Finding(FAULT, "two-classes", path, f"the same text has contradicting labels, {labels}: {text}")
        elif split != last_split:
            yield Finding(FAULT, "leak", path, f"is a copy of {last_split}[{last}]: {text}")
        elif index != last:
            yield Finding(NOTE, "duplicate", path, f"is a copy of {last_split}[{last}]: {text}")


def _of_near_copies(parts: Mapping[str, SequenceSamples]) -> Iterator[Finding]:
    located = [(split, index) for split, samples in parts.items() for index in range(len(samples))]
    for first, second, similarity in near_pairs(list(parts.values())):
        (first_split, first_index), (split, index) = located[first], located[second]
        kind = "near-duplicate" if split == first_split else "near-leak"
        message = f"shares {similarity:.0%} of its word pairs with {first_split}[{first_index}]"
        yield Finding(NOTE, kind, f"{split}[{index}]", f"{message}: {_shown(parts[split], index)}")


def _of_balance(train: SequenceSamples, spec: SequenceSpec) -> Iterator[Finding]:
    counts = np.bincount(train.targets, minlength=len(spec.classes))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] >= IMBALANCE * counts[least]:
        message = f"{counts[most]:,} texts of {spec.classes[most]!r}, {counts[least]:,} of {spec.classes[least]!r}"
        yield Finding(NOTE, "imbalance", "train", message + advice(int(counts[most]), int(counts[least])))


def _of_split(split: str, samples: SequenceSamples, spec: SequenceSpec) -> Iterator[Finding]:
    for index in np.flatnonzero(samples.sizes > (spec.longest or np.inf)).tolist():
        yield Finding(
            NOTE, "long", f"{split}[{index}]", f"has {samples.sizes[index]:,} words; {spec.longest} are read."
        )
    for index in np.flatnonzero(samples.sizes == 1).tolist():
        yield Finding(NOTE, "short", f"{split}[{index}]", f"is a single word: {_shown(samples, index)}")
    if split != "train" and len(samples.values):
        share = unknown_share(samples, spec.words)
        yield Finding(NOTE, "unknown-words", split, f"{share:.1%} of its words are not in the vocabulary.")


def _shown(samples: SequenceSamples, index: int) -> str:
    words = samples.values[samples.starts[index] : samples.starts[index + 1]]
    more = " …" if len(words) > SHOWN else ""
    return " ".join(samples.vocabulary[word] for word in words[:SHOWN]) + more
