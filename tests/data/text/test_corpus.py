"""Text, trees and numbers as data: data reads back as format_expression, and errors name file and line."""

from __future__ import annotations

import random
import zipfile
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlkit import cache, registry
from dlkit.config.resolve import resolve
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.checks.check import check
from dlkit.data.checks.near_texts import SHORTEST, SIMILAR, near_pairs
from dlkit.data.download import store as dataset_cache
from dlkit.data.download.download import digest
from dlkit.data.fingerprint import fingerprint
from dlkit.data.inputs import LoadedInput
from dlkit.data.loader import split
from dlkit.data.splits import SequenceSamples, Splits, TreeSamples
from dlkit.data.text import corpus
from dlkit.data.text import treebank as treebanks
from dlkit.data.text.word_vectors import read_vectors
from dlkit.datasets import adding, brackets, sst, text_csv, text_folder, trees
from dlkit.errors import DataError, UsageError, VerificationError
from dlkit.evaluation.coverage import Coverage, Limits
from dlkit.specs import SequenceSpec
from dlkit.training.inputs import prepare

SST = {
    "train.txt": "(3 (2 A) (4 gem))\n(1 (2 (2 so) (1 dull)) (2 .))\n(2 (2 A) (2 film))\n(4 (4 gem) (2 .))\n" * 2,
    "dev.txt": "(0 (1 dull) (2 film))\n(2 neutral)\n",
    "test.txt": "(4 (3 (2 -LRB-) (4 gem)) (2 -RRB-))\n",
}


def sequences(samples: object) -> list[str]:
    assert isinstance(samples, SequenceSamples)
    words = [samples.vocabulary[index] for index in samples.values]
    return [" ".join(words[a:b]) for a, b in zip(samples.starts, samples.starts[1:], strict=False)]


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    return write(tmp_path / "sst", dict(SST))


# -- words and brackets


def bracketed(draw: random.Random, depth: int) -> str:
    label = draw.choice(["", "0 ", "4 "])
    if depth == 0 or draw.random() < 0.3:
        return f"({label}{draw.choice(['a', 'gem', '-LRB-'])})"
    return f"({label}{' '.join(bracketed(draw, depth - 1) for _ in range(draw.randint(1, 3)))})"


def format_tree(tree: treebanks.ParsedTree) -> str:
    children: list[list[int]] = [[] for _ in tree.parents]
    for node, parent in enumerate(tree.parents[1:], start=1):
        children[parent].append(node)

    def at(node: int) -> str:
        inner = tree.words[node] or " ".join(map(at, children[node]))
        return f"({tree.labels[node] + ' ' if tree.labels[node] else ''}{inner})"

    return at(0)


def test_formatting_a_parsed_tree_returns_its_text() -> None:
    draw = random.Random(0)
    for _ in range(200):
        text = bracketed(draw, 5)
        assert format_tree(treebanks.parse_tree(text)) == text


def test_a_tree_of_depth_5000_is_read() -> None:
    tree = treebanks.parse_tree("(2 (2 a) " * 5000 + "(2 b)" + ")" * 5000)
    samples = corpus.tree_samples([tree], [[-1] * len(tree.parents)], corpus.VocabularyBuilder(), "words")
    assert samples.heights[0] == 5000 and len(tree.words) == 10_001


@pytest.mark.parametrize(
    ("format_expression", "message"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("(2 (2 a) (2 b)", "1 not closed"),
        ("(2 a))", "too many"),
        (")", "too many"),
        ("(2 a) (2 b)", "after the tree"),
        ("a gem", "before the tree"),
        ("(2 a gem)", "a label and one word"),
        ("(2 x (2 a))", "a label and one word"),
        ("(2 (2 a) gem)", "next to a bracketed node"),
        ("(2 ())", "contains no word"),
    ],
)
def test_an_invalid_tree_is_reported(format_expression: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        treebanks.parse_tree(format_expression)


def test_a_tree_of_heads_has_every_word_at_a_node_and_keeps_their_order() -> None:
    tree = treebanks.tree_from_heads(["the", "cat", "sat", "down"], [2, 3, 0, 3])
    assert [tree.words[node] for node in tree.reading] == ["the", "cat", "sat", "down"]
    heads = {tree.words[node]: parent if parent < 0 else tree.words[parent] for node, parent in enumerate(tree.parents)}
    assert heads == {"the": "cat", "cat": "sat", "sat": -1, "down": "sat"}
    assert all(parent < node for node, parent in enumerate(tree.parents))


@pytest.mark.parametrize(
    ("heads", "message"),
    [([2, 1, 0], "cycle"), ([0, 0, 1], "one root"), ([2, 3, 9], "from 0"), ([0, 1], "one head each")],
)
def test_heads_that_are_not_a_tree_are_reported(heads: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        treebanks.tree_from_heads(["a", "b", "c"], heads)


# -- the treebank


def test_sst_gives_trees_with_a_label_on_every_node(treebank: Path) -> None:
    splits = sst.load(treebank, form="trees", least=1)
    train = splits.train
    assert isinstance(train, TreeSamples) and len(train) == 8 and splits.spec.classes == sst.FINE
    first = slice(train.starts[0], train.starts[1])
    assert train.labels[first].tolist() == [3, 2, 4] and train.parents[first].tolist() == [-1, 0, 0]
    assert [train.vocabulary[index] if index >= 0 else None for index in train.words[first]] == [None, "a", "gem"]


def test_sst_gives_the_same_sentences_as_words(treebank: Path) -> None:
    splits = sst.load(treebank, least=1)
    assert sequences(splits.train)[:3] == ["a gem", "so dull .", "a film"]
    assert sequences(splits.test) == ["( gem )"] and splits.train.targets[:3].tolist() == [3, 1, 2]


def test_phrases_are_the_words_below_every_labelled_node_of_train_alone(treebank: Path) -> None:
    splits = sst.load(treebank, least=1, phrases=True)
    assert sequences(splits.train)[:8] == ["a gem", "a", "gem", "so dull .", "so dull", "so", "dull", "."]
    assert splits.train.targets[:8].tolist() == [3, 2, 4, 1, 2, 2, 1, 2] and len(splits.validation or ()) == 2


def test_binary_sst_leaves_neutral_sentences_out_and_neutral_phrases_unlabelled(treebank: Path) -> None:
    splits = sst.load(treebank, form="trees", binary=True, least=1)
    train = splits.train
    assert isinstance(train, TreeSamples) and splits.spec.classes == sst.COARSE
    assert train.targets[:3].tolist() == [1, 0, 1] and len(splits.validation or ()) == 1
    assert train.labels[train.starts[1] : train.starts[2]].tolist() == [0, -1, -1, 0, -1]


def test_the_vocabulary_is_of_train_and_of_what_occurs_often_enough(treebank: Path) -> None:
    spec = sst.load(treebank, least=3).spec
    assert not isinstance(spec, type(None)) and set(spec.words) == {"a", "gem", "."}  # type: ignore[union-attr]
    with pytest.raises(DataError, match="least=1"):
        sst.load(treebank, least=100)


def test_words_of_the_validation_part_alone_are_not_known(tmp_path: Path) -> None:
    rows = "".join(f"common only{number},{number % 2}\n" for number in range(40))
    write(tmp_path, {"a.csv": "text,label\n" + rows})
    options = {"data.dir": str(tmp_path / "a.csv"), "data.options.least": 1, "data.validation": 0.25}
    data = prepare(resolve("lstm", "text_csv", flags=options).recipe, lambda message: None)
    held_out = {word for words in sequences(data.splits["validation"]) for word in words.split()} - {"common"}
    assert len(held_out) == 10 and not held_out & set(data.spec.words)  # type: ignore[union-attr]
    assert "common" in data.spec.words and len(data.spec.words) == 31  # type: ignore[union-attr]


@pytest.fixture
def pinned(treebank: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The small treebank in index of the published one; an empty cache."""
    monkeypatch.setattr(sst, "CONTENTS", {n: ((treebank / n).stat().st_size, digest(treebank / n)) for n in SST})
    trusted = {**sst.FIVE.files, sst.ARCHIVE: [replace(sst.FIVE.files[sst.ARCHIVE][0], digest="", size=0)]}
    monkeypatch.setattr(sst, "ABOUT", {name: replace(about, files=trusted) for name, about in sst.ABOUT.items()})
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    return treebank


@pytest.mark.parametrize("packed", [False, True])
def test_sst_is_installed_from_its_files_or_its_archive(pinned: Path, packed: bool, tmp_path: Path) -> None:
    folder = pinned
    if packed:
        (folder := tmp_path / "packed").mkdir()
        with zipfile.ZipFile(folder / sst.ARCHIVE, "w") as archive:
            for name in SST:
                archive.write(pinned / name, f"trees/{name}")
    assert dataset_cache.download("sst", str(folder)).fetched
    assert cache.present(cache.datasets_dir() / "sst") and library.info("sst_binary").state == "cached"
    binary = library.splits(Data(name="sst_binary", options={"form": "trees"}))
    assert binary.spec.kind == "trees" and len(binary.spec.classes) == 2
    assert library.splits(Data(name="sst")).spec.kind == "sequences"


def test_a_file_that_is_not_ssts_is_refused(pinned: Path) -> None:
    (pinned / "test.txt").write_text(SST["test.txt"].replace("gem", "ham"))
    with pytest.raises(VerificationError, match=r"test\.txt"):
        dataset_cache.download("sst", str(pinned))


BAD_LINES = {
    "unbalanced": ("(2 (2 a) (2 b)", "not closed"),
    "label": ("(2 (7 a) (2 b))", "'7' is not a label; the labels are 0, 1, 2, 3, 4"),
    "empty": ("", "empty"),
    "long": ("(2 " + "a" * 1_000_000 + ")", "262,144 bytes"),
    "not UTF-8": (b"(2 \xff)", "0xff is not UTF-8"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_of_a_treebank_is_named_by_file_and_line(name: str, pinned: Path) -> None:
    line, message = BAD_LINES[name]
    before = SST["train.txt"].encode()
    (pinned / "train.txt").write_bytes(before + (line if isinstance(line, bytes) else line.encode()) + b"\n" + before)
    with pytest.raises(DataError, match=f"^train.txt:9: .*{message}") as caught:
        dataset_cache.download("sst", str(pinned))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert not cache.present(cache.datasets_dir() / "sst")


# -- trees of one's own


def test_trees_of_ones_own_have_the_labels_of_train_for_classes(treebank: Path) -> None:
    (treebank / "dev.txt").write_text("(3 a)\n(4 b)\n")
    splits = trees.load(treebank, form="trees", least=1)
    assert splits.spec.classes == ("1", "2", "3", "4") and len(splits.train) == 8
    (treebank / "dev.txt").write_text("(3 a)\n(9 b)\n")
    with pytest.raises(DataError, match=r"dev\.txt:2: '9' is not a label"):
        trees.load(treebank, form="trees")


CONLLU = """# text = The cat sat
# label = calm
1\tThe\tthe\tDET\t_\t_\t2\tdet\t_\t_
2-3\tcatsat\t_\t_\t_\t_\t_\t_\t_\t_
2\tcat\tcat\tNOUN\t_\t_\t3\tnsubj\t_\t_
3\tsat\tsit\tVERB\t_\t_\t0\troot\t_\t_

# label = wild
1\tRun\trun\tVERB\t_\t_\t0\troot\t_\t_
"""


def test_dependency_trees_are_read_from_heads(tmp_path: Path) -> None:
    write(tmp_path, {"train.conllu": CONLLU})
    splits = trees.load(tmp_path, form="trees", least=1)
    train = splits.train
    assert isinstance(train, TreeSamples) and splits.spec.classes == ("calm", "wild")
    assert train.targets.tolist() == [0, 1] and train.sizes.tolist() == [3, 1]
    assert [train.vocabulary[index] for index in train.words[:3]] == ["sat", "cat", "the"]
    assert sequences(trees.load(tmp_path, least=1).train) == ["the cat sat", "run"]
    write(tmp_path, {"train.conllu": CONLLU.replace("\t0\troot", "\t1\troot", 1)})
    with pytest.raises(DataError, match=r"train\.conllu:1: 0 words have the head 0"):
        trees.load(tmp_path)


# -- texts of one's own


def test_a_head_of_5000_digits_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "train.conllu").write_text("1\ta\t_\t_\t_\t_\t" + "9" * 5000 + "\n")
    with pytest.raises(DataError, match=r"train.conllu:1: the line of a word has no head"):
        list(treebanks.read_dependencies(tmp_path / "train.conllu"))


def test_a_folder_of_texts_has_its_classes_and_splits(tmp_path: Path) -> None:
    write(tmp_path, {f"train/{kind}/{n}.txt": f"a {kind} film {n}" for kind in ("good", "bad") for n in range(3)})
    write(tmp_path, {"test/bad/x.txt": "so\nbad", "train/good/notes.md": "x", "train/good/.hidden.txt": "x"})
    splits = text_folder.load(tmp_path, least=1)
    assert splits.spec.classes == ("bad", "good") and sequences(splits.train)[0] == "a bad film 0"
    assert sequences(splits.test) == ["so bad"] and any("notes.md" in warning for warning in splits.warnings)


def test_long_texts_are_truncated_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.txt": "x " * 50, "b/1.txt": "y y"})
    splits = text_folder.load(tmp_path, longest=10)
    assert splits.spec.longest == 10 and "1 examples have more than 10 words and are truncated" in splits.warnings[0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "message"), [(b" \n", "no word"), (b"a\nb\xff", "line 2: byte 0xff"), (b"a" * 300_000, "262,144")]
)
def test_a_bad_text_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path, {"a/1.txt": "x", "b/bad.txt": content})
    with pytest.raises(DataError, match=rf"b/bad\.txt: .*{message}"):
        text_folder.load(tmp_path)


CSV = 'id,text,label\n1,"a ""good"" one",5\n2,"two\nlines, good",5\n3,bad,10\n4,bad one,10\n'


def test_a_table_is_read_with_its_quotes_and_labels_in_natural_order(tmp_path: Path) -> None:
    splits = text_csv.load(write(tmp_path, {"a.csv": "\ufeff" + CSV}) / "a.csv", least=1)
    assert splits.spec.classes == ("5", "10") and splits.train.targets.tolist() == [0, 0, 1, 1]
    assert sequences(splits.train) == ['a " good " one', "two lines , good", "bad", "bad one"]


def test_a_folder_of_tables_has_splits_and_tsv_has_no_quotes(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"train.tsv": 'text\tlabel\n"a\tx\nb"\ty\n', "dev.tsv": "label\ttext\ny\tb\n", "test.csv": "text,label\na,x\n"},
    )
    splits = text_csv.load(tmp_path, least=1)
    assert sequences(splits.train) == ['" a', 'b "'] and sequences(splits.validation) == ["b"]
    assert splits.validation is not None and splits.validation.targets.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("review,label\na,1\n", ":1: has no column 'text'.*--text-column"),
        ("text,text,label\na,b,1\n", ":1: has 2 columns named 'text'"),
        ("", ":1: has no column 'text'"),
        ("text,label\na,1\nb\n", ":3: 1 fields, but the header has 2"),
        ("text,label\na,1\n,2\n", ":3: the text is empty"),
        ("text,label\na,1\nb, \n", ":3: the field 'label' is empty"),
        ("text,label\na,1\n\n", ":3: 0 fields"),
        ('text,label\na,1\n"b,2\n', ":3: unexpected end of data"),
        (b"text,label\na,1\n\xe9,2\n", ":3: byte 0xe9 is not UTF-8"),
        ("text,label\na,1\n" + "x" * 1_000_000 + ",2\n", ":3: more than 262,144 bytes"),
        ("text,label\na,1\nb,1\n", "1 label only"),
        ("text,label\n" + "".join(f"a,{number}\n" for number in range(1001)), "1,001 different labels"),
    ],
)
def test_an_invalid_table_is_reported_by_file_and_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"a\.csv{message}|a\.csv: .*{message}") as caught:
        text_csv.load(write(tmp_path, {"a.csv": content}) / "a.csv", least=1)
    assert "\n" not in str(caught.value)


def test_a_label_missing_from_train_is_reported_by_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, {"train.csv": "text,label\na,good\nb,bad\n", "test.csv": "text,label\na,good\nb,god\n"})
    with pytest.raises(DataError, match=r"test\.csv:3: the label 'god' is not in train\. Did you mean 'good'"):
        text_csv.load(tmp_path, least=1)


# -- generated


def computed(words: list[str]) -> int:
    """What an expression gives, by a stack."""
    stack: list[Any] = []
    for word in words:
        if word != "]":
            stack.append(int(word) if word.isdecimal() else word)
            continue
        values: list[int] = []
        while isinstance(stack[-1], int):
            values.insert(0, stack.pop())
        ranked = sorted(values)
        answers = {
            "[MAX": ranked[-1],
            "[MIN": ranked[0],
            "[MED": ranked[(len(ranked) - 1) // 2],
            "[SM": sum(values) % 10,
        }
        stack.append(answers[stack.pop()])
    assert len(stack) == 1
    return int(stack[0])


def test_brackets_answers_are_what_the_expressions_give() -> None:
    splits = brackets.load(train=300, test=100)
    assert splits.test is not None
    for part in (splits.train, splits.test):
        assert [computed(found.split()) for found in sequences(part)] == part.targets.tolist()
    assert not set(sequences(splits.train)) & set(sequences(splits.test))
    assert len(set(splits.train.targets.tolist())) == 10


@pytest.mark.parametrize("binary", [True, False])
def test_brackets_trees_are_the_same_expressions(binary: bool) -> None:
    flat, found = brackets.load(train=100, test=1), brackets.load(train=100, test=1, form="trees", binary=binary)
    train = found.train
    assert isinstance(train, TreeSamples) and (train.targets == flat.train.targets).all()
    nodes = train.reading + np.repeat(train.starts[:-1], train.sizes)
    words = [train.vocabulary[index] for index in train.words[nodes[train.reading >= 0]]]
    assert words == [word for row in sequences(flat.train) for word in row.split() if binary or word != "]"]
    assert (train.siblings <= 1).all() or not binary
    everything = brackets.load(train=100, test=1, form="trees", binary=binary, nodes="all").train
    assert isinstance(everything, TreeSamples) and (everything.labels >= 0).sum() > (train.labels >= 0).sum() == 100


def test_test_expressions_do_not_depend_on_the_training_size_and_limits_hold() -> None:
    one, other = brackets.load(train=10, test=50), brackets.load(train=20, test=50)
    assert sequences(one.test) == sequences(other.test)
    shallow = brackets.load(train=200, test=10, depth=1, length=7, arguments=5)
    assert shallow.train.sizes.max() <= 7 and all(row.count("[") == 1 for row in sequences(shallow.train))  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="depth=0"):
        brackets.load(depth=0)


def test_adding_asks_for_the_sum_of_the_two_marked_numbers() -> None:
    train = adding.load(train=50, test=5, steps=20).train
    assert isinstance(train, SequenceSamples)
    values = train.values.reshape(50, 20, 2)
    for sequence, target in zip(values, train.targets, strict=True):
        first, second = np.flatnonzero(sequence[:, 1])
        assert first < 10 <= second and target == pytest.approx(sequence[first, 0] + sequence[second, 0])


# -- vectors and fingerprints


def test_vectors_of_known_words_are_read_and_counted(tmp_path: Path) -> None:
    write(tmp_path, {"v.txt": "the 1 2\n. . 3 4\ngem 5 6\ngem 7 8\n"})
    indices, rows = read_vectors(tmp_path / "v.txt", ("gem", "rare", "the"), 2)
    assert dict(zip(indices.tolist(), rows.tolist(), strict=True)) == {2: [1, 2], 0: [5, 6]}
    write(tmp_path, {"w.txt": "3 2\nthe 1 2\n"})  # as word2vec writes it
    assert read_vectors(tmp_path / "w.txt", ("the",), 2)[1].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2\nfilm 1\n", r":2: a word and 1 numbers, but the embedding takes 2; the lines before have that many"),
        ("the 1 2 3\n", r":1: a word and 3 numbers, but the embedding takes 2; set model\.options\.embedding_size=3"),
        ("the 1 2\ngem 1\n", ":2: a word and 1 numbers"),
        ("the 1 2\ngem 1 x\n", ":2: contains a field that is not a number"),
        ("gem 1 nan\n", ":1: .*not finite"),
    ],
)
def test_an_invalid_vectors_file_is_reported_by_line(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"v\.txt{message}"):
        read_vectors(write(tmp_path, {"v.txt": content}) / "v.txt", ("gem",), 2)
    with pytest.raises(DataError, match="no such file"):
        read_vectors(tmp_path / "none.txt", ("gem",), 2)


@pytest.mark.parametrize("form", ["sequences", "trees"])
def test_a_fingerprint_is_of_its_own_split_alone(form: str, treebank: Path) -> None:
    def prints() -> dict[str, str]:
        splits: Splits = sst.load(treebank, form=form, least=1)
        return {name: fingerprint(part, splits.spec.classes) for name, part in split(splits, 0.1, 0).items()}

    before = prints()
    (treebank / "train.txt").write_text("(1 (2 new) (1 words))\n" + SST["train.txt"])
    after = prints()
    assert after["test"] == before["test"] and after["train"] != before["train"]
    (treebank / "test.txt").write_text(SST["test.txt"].replace("4 gem", "4 film"))
    assert prints()["test"] != before["test"]
    (treebank / "test.txt").write_text(
        SST["test.txt"].replace("4 gem" if form == "trees" else "(4 (3", "3 gem" if form == "trees" else "(3 (3")
    )
    assert prints()["test"] != before["test"]


def test_a_pair_that_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(
        UsageError, match=r"'lenet5' takes images, .*'sst' provides sequences\. Models for sequences: .*lstm"
    ):
        registry.check_pair("lenet5", "sst", {})
    assert registry.form_for("tree_lstm", "sst") == "trees" and registry.form_for("lstm", "sst") == "sequences"
    assert registry.form_for("lstm", "mnist") is None


def test_check_finds_copies_leaks_and_contradicting_labels_of_texts_and_lists_no_text_for_deletion(
    tmp_path: Path,
) -> None:
    for part, name, format_expression in (
        ("train", "good", "a great film"), ("train", "good", "a great  film"), ("train", "bad", "a dull film"),
        ("train", "bad", "seen twice"), ("test", "bad", "a dull film"), ("test", "good", "seen twice"),
        ("test", "good", "unheard"),
    ):  # fmt: skip
        folder = tmp_path / "t" / part / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.txt").write_text(format_expression)
    fixes = tmp_path / "drop"
    report = check(str(tmp_path / "t"), fix_list=fixes)
    assert report.images == 7 and fixes.read_text() == ""
    found = Counter((finding.level, finding.kind) for finding in report.findings)
    assert found == {
        ("note", "duplicate"): 1, ("fault", "leak"): 1, ("fault", "two-classes"): 2, ("note", "short"): 1,
        ("note", "unknown-words"): 1,
    }  # fmt: skip


def test_predict_counts_unknown_words_and_those_that_are_not_read(tmp_path: Path) -> None:
    coverage, logged = Coverage(SequenceSpec(("a", "b"), 4, words=("x", "y"), longest=3)), list[str]()
    one = coverage(LoadedInput("-:1", ["x", "z", "y", "x", "z"]), logged.append)
    assert (one.unknown, one.truncated) == (1, 2) and "first 3" in one.notes[0]
    none = coverage(LoadedInput("-:2", ["z"]), logged.append)
    assert (none.unknown, none.truncated) == (1, 0) and "vocabulary" in none.notes[0]
    coverage(LoadedInput("-:3", ["z"] * 4), logged.append)
    assert len(logged) == 2, "each kind is logged once"
    assert coverage(LoadedInput("-:4", ["x"]), logged.append) == Limits(0, 0)


def test_near_copies_of_texts_are_those_that_share_most_pairs_of_words(tmp_path: Path) -> None:
    """Oracle: the Jaccard similarity of all pairs, by sets."""
    rng = random.Random(0)
    rows = [[rng.randrange(50) for _ in range(rng.randrange(3, 30))] for _ in range(60)]
    rows += [[*row, 99] for row in rows[:20]] + [[99, 98, *row[2:]] for row in rows[20:40]] + [rows[0]]
    part = corpus._sequences([[str(word) for word in row] for row in rows], [0] * len(rows), corpus.VocabularyBuilder())
    pairs = [set(pairwise(row)) for row in rows]
    expected = {
        second
        for second in range(len(rows))
        for first in range(second)
        if min(len(rows[first]), len(rows[second])) >= SHORTEST and rows[second] not in rows[:second]
        and len(pairs[first] & pairs[second]) / len(pairs[first] | pairs[second]) >= SIMILAR
    }  # fmt: skip
    assert len(expected) > 20 and {second for _, second, _ in near_pairs([part])} == expected


def test_train_logs_the_vocabulary_and_texts_of_train_in_validation_and_check_reads_trees(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/train.csv").write_text("text,label\na a film,x\nb b,y\n")
    (tmp_path / "t/val.csv").write_text("text,label\na a film,x\nb new new new,y\n")
    logged: list[str] = []
    prepare(resolve("gru", f"text_csv:{tmp_path / 't'}").recipe, logged.append)
    assert "vocabulary: 2 words; 57.1% of the words in validation are unknown" in logged  # 4 of 7: film and new
    assert any("1 of 2 validation texts are also in train" in line for line in logged)
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees/train.txt").write_text("(0 (0 a) (0 film))\n" * 11 + "(1 (1 b) (1 b))\n")
    (tmp_path / "trees/dev.txt").write_text("(1 (1 b) (1 b))\n")
    kinds = Counter(finding.kind for finding in check(f"trees:{tmp_path / 'trees'}").findings)
    assert kinds == {"duplicate": 10, "leak": 1, "imbalance": 1, "unknown-words": 1}
