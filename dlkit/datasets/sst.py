"""SST, the Stanford Sentiment Treebank: 11,855 sentences of film reviews, parsed, with a label for every phrase.

Socher, Perelygin, Wu, Chuang, Manning, Ng and Potts, "Recursive deep models for semantic compositionality over a
sentiment treebank", EMNLP 2013. Five classes, or two (sst_binary: without neutral sentences; the neutral
phrases of the others have no label).

form "trees" is the trees with a label on every node, "sequences" the same sentences as words. With phrases, every
labelled phrase of the training split is an example of its own in the sequences, as in Tai, Socher and Manning (2015).
Words are lower-cased; those of the vocabulary occur at least `least` times in the training split.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dlkit import atomic_io
from dlkit.data.download.archives import extract
from dlkit.data.download.http import UnreachableError
from dlkit.data.splits import About, Source, Splits
from dlkit.data.text import corpus as text
from dlkit.data.text import treebank
from dlkit.errors import UsageError, VerificationError
from dlkit.specs import SequenceSpec, TreeSpec

VARIANTS = {"sst": {}, "sst_binary": {"binary": True}}
GIVES = ("sequences", "trees")

ARCHIVE = "trainDevTestTrees_PTB.zip"
MIRRORS = ("https://nlp.stanford.edu/sentiment/", "http://nlp.stanford.edu/sentiment/")
SHA256 = "sha256:5c613a4f673fc74097d523a2c83f38e0cc462984d847b82c7aaf36b01cbbbfcc"
CONTENTS = {
    "train.txt": (2_160_058, "e2f3f41b0b1e6d4dddc0effe3bfc2d27ed8928079aa9a03d652311614fc5feb7"),
    "dev.txt": (280_825, "0e9336aed6e4730e19f58d00a77b3f0297efdb755f7b5e598c98a05e3f97ea40"),
    "test.txt": (559_614, "6e54806dee95cf80cd918e7dfb3f6770f6df24bf826f289a4d1f709e1c8f6761"),
}
FILES = {"train": "train.txt", "validation": "dev.txt", "test": "test.txt"}
LABELS = ("0", "1", "2", "3", "4")
FINE = ("very negative", "negative", "neutral", "positive", "very positive")
COARSE = ("negative", "positive")
AS_COARSE = (0, 0, -1, 1, 1)
FINE_VOCABULARY, COARSE_VOCABULARY = 8217, 7142  # with default options, including padding and the unknown word

FIVE = About(
    title="Stanford Sentiment Treebank, parsed sentences of film reviews",
    classes=5,
    sizes={"train": 8544, "validation": 1101, "test": 2210},
    licence="none stated by its authors; they ask to be cited",
    citation="Socher et al., EMNLP 2013",
    files={ARCHIVE: [Source(mirror + ARCHIVE, SHA256, 789_539) for mirror in MIRRORS], **dict.fromkeys(CONTENTS, ())},
)
ABOUT = {
    "sst": FIVE,
    "sst_binary": replace(
        FIVE,
        title="Stanford Sentiment Treebank, positive or negative",
        classes=2,
        sizes={"train": 6920, "validation": 872, "test": 1821},
    ),
}


def fetch(folder: Path, download: Callable[[str], Path]) -> None:
    """Install the three files, from the archive, or directly from the folder of --from."""
    try:
        packed = download(ARCHIVE)
    except UnreachableError as error:
        _copy(folder, download, error)
    else:
        _unpack(packed, folder)
    for name in CONTENTS:  # before the digests are compared, since an error with its line is more helpful
        list(treebank.read_trees(folder / name, LABELS, shown=name))


def spec(
    *,
    form: str = "sequences",
    binary: bool = False,
    phrases: bool = False,
    least: int = 2,
    vocabulary: int = 50000,
) -> SequenceSpec | TreeSpec | None:
    """The spec without its words; None if the options change the vocabulary, which then depends on the data."""
    if (least, vocabulary) != (2, 50000):
        return None
    classes, size = (COARSE, COARSE_VOCABULARY) if binary else (FINE, FINE_VOCABULARY)
    if form == "trees":
        return TreeSpec(classes, size, labels=LABELS)
    return SequenceSpec(classes, size)


def load(
    folder: Path,
    *,
    form: str = "sequences",
    binary: bool = False,
    phrases: bool = False,
    least: int = 2,
    vocabulary: int = 50000,
) -> Splits:
    """The published splits; validation is dev."""
    text.check_options("sst", form, least, vocabulary)
    if phrases and form == "trees":
        raise UsageError("data set 'sst' takes phrases only with form=sequences; its trees contain all phrases.")
    files = {split: list(treebank.read_trees(folder / name, LABELS, shown=name)) for split, name in FILES.items()}
    class_of = dict(zip(LABELS, AS_COARSE if binary else range(5), strict=True))
    corpus = text.TreeCorpus(files, class_of, tokens="words")
    return corpus.splits(COARSE if binary else FINE, form, least, vocabulary, phrases=phrases, labels=LABELS)


def _copy(folder: Path, download: Callable[[str], Path], archive: UnreachableError) -> None:
    for name in CONTENTS:
        try:
            source = download(name)
        except UnreachableError as error:
            raise archive from error
        with atomic_io.storage_errors(folder):
            shutil.copyfile(source, folder / name)


def _unpack(packed: Path, folder: Path) -> None:
    unpacked = folder / "unpacked"
    extract(packed, unpacked)
    with atomic_io.storage_errors(folder):
        for name in CONTENTS:
            file = next(iter(sorted(unpacked.rglob(name))), None)
            if file is None:
                raise VerificationError(f"{ARCHIVE} has no {name}.")
            file.rename(folder / name)
        shutil.rmtree(unpacked)
