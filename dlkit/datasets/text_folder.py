"""Your own texts in folders: train/CLASS/*.txt, val/, test/; or CLASS/*.txt alone. A file is an example.

Classes and splits are those of the data set `folder`. Text is UTF-8. The vocabulary is the words that occur at least
`least` times in the training split, at most `vocabulary` of them. Texts are truncated to `longest` words. Tokenization:

  tokenizer  unicode (default of new runs): Unicode words (UAX 29); Chinese, Japanese, Thai etc. by character.
             words (recipes without a tokenizer): Penn Treebank words, for English
  normalize  nfc (default of new runs): composed accents; nfkc: also full-width and other compatibility letters; none
  lower      whether to lower-case the text
"""

from __future__ import annotations

from pathlib import Path

from dlkit.data.class_folders import FileKind, find_class_folders
from dlkit.data.splits import Splits
from dlkit.data.text import corpus as text
from dlkit.errors import UsageError

GIVES = ("sequences",)
TEXTS = FileKind("text", {".txt"})


def load(
    folder: Path,
    *,
    least: int = 2,
    vocabulary: int = 50000,
    longest: int = 400,
    tokenizer: str = "words",
    normalize: str = "none",
    lower: bool = True,
) -> Splits:
    """The splits of `folder`, tokenized.

    Raises:
        DataError: what `find_class_folders` raises, or a file that is not UTF-8, too long or without words.
    """
    text.check_options("text_folder", "sequences", least, vocabulary)
    if longest < 1:
        raise UsageError(f"data set 'text_folder' takes longest ≥ 1, not {longest}.")
    tokens = text.tokenization("text_folder", tokenizer, normalize, lower)
    folders = find_class_folders(folder, TEXTS)
    examples: dict[str, list[list[str]]] = {}
    targets: dict[str, list[int]] = {}
    for split, classes in folders.splits.items():
        files = [(path, target) for target, name in enumerate(folders.classes) for path in classes.get(name, ())]
        examples[split] = [text.read_words(path, tokens) for path, _ in files]
        targets[split] = [target for _, target in files]
    corpus = text.SequenceCorpus(examples, targets, tokens)
    return corpus.splits(folders.classes, least, vocabulary, longest=longest, notes=folders.notes)
