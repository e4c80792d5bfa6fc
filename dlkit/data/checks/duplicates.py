"""Images that stand twice in the data of a run, found at no cost by the digests that a run takes anyway."""

from __future__ import annotations

from dlkit.data.fingerprint import Files


def told(files: Files) -> list[str]:
    """A line where a split holds images of train, and where one image stands under two classes."""
    notes = []
    known = {file.sha256 for file in files.get("train", ())}
    for split, listed in files.items():
        count = sum(file.sha256 in known for file in listed) if split != "train" else 0
        if count:
            notes.append(f"{count} of {len(listed)} {split} images are also in train: its results will flatter.")
    labels: dict[str, set[str]] = {}
    for file in (file for listed in files.values() for file in listed):
        labels.setdefault(file.sha256, set()).add(file.label)
    twice = [sorted(names) for names in labels.values() if len(names) > 1]
    if twice:
        first, second = twice[0][:2]
        notes.append(f"{len(twice)} images stand under two classes, such as {first!r} and {second!r}.")
    return notes
