"""Validation and test samples that the weights a run starts from were trained on: found by their digests.

A run lists the digest of each of its files; the training split of a data set without files is made again, and believed
where its fingerprint is what was noted. What an exported file or a run started from is known by the same records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.errors import DlkitError
from dlkit.runs.run_folder import RunFolder
from dlkit.training.weights import TrainedOn

if TYPE_CHECKING:
    from dlkit.data.fingerprint import Files
    from dlkit.data.splits import Samples

CHECKED = ("validation", "test")


def warnings(
    sources: Sequence[TrainedOn], splits: Mapping[str, Samples], data: Data, files: Files | None = None
) -> list[str]:
    """A sentence for each of the sources that was trained on samples of the validation or the test split.

    `data` is what the splits come from, `files` the digests of those of them that are files.
    """
    found = []
    for split in CHECKED if sources else ():
        if split not in splits:
            continue
        digests = list(_digests(splits[split], (files or {}).get(split)))
        noun = "images" if hasattr(splits[split], "images") or hasattr(splits[split], "paths") else "examples"
        for source in sources:
            known = _trained_on(source, data)
            count = sum(digest in known for digest in digests)
            if count:
                told = f"{count:,} of {len(digests):,} {split} {noun} were in the training data of {source['name']!r}"
                advice = f"the {split} results will be optimistic. Use the same --seed for both, or test on other data."
                found.append(f"{told}, whose weights this starts from: {advice}")
    return found


def _trained_on(source: TrainedOn, data: Data) -> set[str]:
    """The digests of the samples that a source was trained on; none where it cannot be told."""
    from dlkit.data.fingerprint import read_files

    try:
        run = RunFolder(Path(str(source.get("run"))))
        if run.data_files.is_file() and run.info().get("run_id") == source.get("run_id"):
            return {file.sha256 for file in read_files(run.data_files).get("train", ())}
        return set(_made_again(source, data))
    except (DlkitError, ValueError, TypeError, KeyError):  # data that went, or a file that says something odd
        return set()


def _made_again(source: Mapping[str, Any], data: Data) -> Iterator[str]:
    """The digests of a training split, cut as it was then, where it still is what it was then."""
    from dlkit.data import loader
    from dlkit.data.fingerprint import fingerprint

    theirs = Data.model_validate(source.get("data"))
    if theirs.name == data.name:  # it may lie elsewhere now; the fingerprint tells whether it is the same
        theirs = theirs.model_copy(update={"dir": data.dir})
    elif theirs.dir is not None:
        return
    found = library.splits(theirs, allow_download=False)
    train = loader.split(found, theirs.validation, int(source.get("seed", 0)))["train"]
    if fingerprint(train, found.spec.classes) == source.get("sha256"):
        yield from _digests(train)


def _digests(samples: Samples, files: Iterable[Any] | None = None) -> Iterator[str]:
    """SHA-256 of each sample: of a file's bytes, of an image's pixels, of a sequence or tree."""
    import numpy as np

    from dlkit.data.fingerprint import file_digests
    from dlkit.data.splits import ImageFiles, MemoryImages, SequenceSamples
    from dlkit.data.text.encoding import decode_samples

    if isinstance(samples, ImageFiles):
        listed = files or file_digests(samples, tuple(map(str, range(int(samples.targets.max(initial=0)) + 1))))
        yield from (file.sha256 for file in listed)
    elif isinstance(samples, MemoryImages):
        gray = samples.images.shape[1] == 3 and bool((samples.images == samples.images[:, :1]).all())
        for image in samples.images[:, :1] if gray else samples.images:
            yield hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
    elif isinstance(samples, SequenceSamples) and not samples.vocabulary:
        for first, last in zip(samples.starts[:-1], samples.starts[1:], strict=True):
            yield hashlib.sha256(np.ascontiguousarray(samples.values[first:last]).data).hexdigest()
    else:
        for text in decode_samples(samples, range(len(samples))):
            yield hashlib.sha256(repr(text).encode("utf-8", "surrogatepass")).hexdigest()
