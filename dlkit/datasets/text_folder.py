"""Your own texts in folders: train/CLASS/*.txt, val/, test/; or CLASS/*.txt alone. A file is an example.

Classes and splits are found as in the data set `folder`. Text is UTF-8, cut into words in lower case; those of the
vocabulary occur at least `least` times in the training split, `vocabulary` of them at most. Of each text the first
`longest` words are read.
"""

from __future__ import annotations

from pathlib import Path

from dlkit.data.splits import Splits
from dlkit.data.text import corpus as text
from dlkit.datasets import folder as folders
from dlkit.errors import UsageError

GIVES = ("sequences",)
TEXTS = folders.Kind("text", {".txt"})


def load(folder: Path, *, least: int = 2, vocabulary: int = 50000, longest: int = 400) -> Splits:
    """The splits found in `folder`, read and cut into words.

    Raises:
        DataError: what `folder` raises, and a file that is not UTF-8, too long or without a word.
    """
    text.check_options("text_folder", "sequences", least, vocabulary)
    if longest < 1:
        raise UsageError(f"data set 'text_folder' takes longest from 1; not {longest}.")
    found = folders.class_folders(folder, TEXTS)
    examples: dict[str, list[list[str]]] = {}
    targets: dict[str, list[int]] = {}
    for split, classes in found.splits.items():
        files = [(path, target) for target, name in enumerate(found.classes) for path in classes.get(name, ())]
        examples[split] = [text.words_in_file(path, "words") for path, _ in files]
        targets[split] = [target for _, target in files]
    corpus = text.SequenceCorpus(examples, targets, "words")
    return corpus.splits(found.classes, least, vocabulary, longest=longest, notes=found.notes)
