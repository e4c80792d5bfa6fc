"""Duplicate images in the data of a run, by the digests that the run records anyway."""

from __future__ import annotations

from collections.abc import Mapping

from dlkit.data.fingerprint import Files
from dlkit.data.splits import Samples, SequenceSamples


def duplicate_notes(files: Files) -> list[str]:
    """A line for each split that contains images of train, and one if an image is in two classes."""
    notes = []
    train = {file.sha256 for file in files.get("train", ())}
    for split, split_files in files.items():
        count = sum(file.sha256 in train for file in split_files) if split != "train" else 0
        if count:
            notes.append(leak_note(count, len(split_files), split))
    labels: dict[str, set[str]] = {}
    for file in (file for split_files in files.values() for file in split_files):
        labels.setdefault(file.sha256, set()).add(file.label)
    ambiguous = [sorted(names) for names in labels.values() if len(names) > 1]
    if ambiguous:
        first, second = ambiguous[0][:2]
        notes.append(f"{len(ambiguous)} images are in two classes, such as {first!r} and {second!r}.")
    return notes


def text_leak_notes(parts: Mapping[str, Samples]) -> list[str]:
    """A line for each split that contains texts of train, word for word."""
    texts = {
        split: [part.values[start:end].tobytes() for start, end in zip(part.starts, part.starts[1:], strict=False)]
        for split, part in parts.items()
        if isinstance(part, SequenceSamples) and part.vocabulary
    }
    train = set(texts.pop("train", ()))
    counts = {split: sum(text in train for text in part) for split, part in texts.items()}
    return [leak_note(count, len(texts[split]), split, "texts") for split, count in counts.items() if count]


def leak_note(count: int, total: int, split: str, unit: str = "images") -> str:
    return f"{count} of {total} {split} {unit} are also in train: {split} metrics will be optimistic."
