"""Your own trees: a folder with train.txt, and dev.txt (or val.txt) and test.txt, one bracketed tree per line.

A node is (LABEL WORD) or (LABEL NODE NODE …): (3 (2 a) (4 gem)). Labels are the classes; they are required
only at the root. Instead of .txt, .conllu files contain dependency trees as in Universal Dependencies: a line per word,
with its form and head in columns 2 and 7, an empty line after each tree, and `# label = CLASS` before it. Words are
lower-cased and normalized (normalize=nfc, the default of new runs, nfkc or none) by default; those of the vocabulary
occur at least `least` times in train.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlkit.config.split_names import resolve_splits
from dlkit.data.classes import natural
from dlkit.data.splits import Splits
from dlkit.data.text import corpus as text
from dlkit.data.text import treebank
from dlkit.errors import DataError

GIVES = ("sequences", "trees")
READERS = {".txt": treebank.read_trees, ".conllu": treebank.read_dependencies}


def load(
    folder: Path,
    *,
    form: str = "sequences",
    phrases: bool = False,
    least: int = 2,
    vocabulary: int = 50000,
    normalize: str = "none",
    lower: bool = True,
) -> Splits:
    """The splits of `folder`.

    Raises:
        DataError: no train file, an invalid tree, or a label that is not in train; with file and line.
    """
    text.check_options("trees", form, least, vocabulary)
    tokens = text.tokenization("trees", "words", normalize, lower)
    files = _files(folder)
    train = list(READERS[files["train"].suffix](files["train"]))
    labels = sorted({label for tree in train for label in tree.labels if label is not None}, key=natural)
    if len(labels) < 2:
        raise DataError(f"{files['train']}: its trees have {len(labels)} labels; a classifier needs two.")
    trees = {split: train if split == "train" else list(_read_trees(path, labels)) for split, path in files.items()}
    for split, path in files.items():
        if missing := sum(tree.labels[0] is None for tree in trees[split]):
            raise DataError(f"{path}: {missing} of {len(trees[split])} trees have no label at the root.")
    corpus = text.TreeCorpus(trees, {label: index for index, label in enumerate(labels)}, tokens)
    return corpus.splits(tuple(labels), form, least, vocabulary, phrases=phrases, labels=tuple(labels))


def _read_trees(path: Path, labels: list[str]) -> Iterator[treebank.ParsedTree]:
    return READERS[path.suffix](path, labels)


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder.")
    names = {path.name: path.stem for path in sorted(folder.iterdir()) if path.suffix in READERS}
    splits = resolve_splits(folder, names)
    if "train" not in splits:
        raise DataError(f"{folder}: has neither train.txt nor train.conllu.")
    return {split: folder / name for split, name in splits.items()}
