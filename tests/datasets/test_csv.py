"""A table of images: rows become samples, and an invalid row is reported with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus import encoded, picture

from dlkit.data.loader import split
from dlkit.data.splits import ImageFiles, Splits
from dlkit.datasets import csv
from dlkit.errors import DataError
from dlkit_cli.main import run

GOOD = "path,label\na/1.png,cat\na/2.png,dog\nb/3.png,cat\nb/4.png,dog\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of six images, with a table to be written into it."""
    for seed, name in enumerate(("a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png", "b/6.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(picture(12, 12, seed=seed), "PNG"))
    return tmp_path


def table(place: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    path = place / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(splits: Splits, part: str = "train") -> list[tuple[str, str]]:
    samples = getattr(splits, part)
    assert isinstance(samples, ImageFiles)
    return [(path.name, splits.spec.classes[target]) for path, target in zip(samples.paths, samples.targets)]  # type: ignore[union-attr]  # noqa: B905


def test_paths_are_relative_to_the_table_and_labels_are_the_classes(place: Path) -> None:
    splits = csv.load(table(place, GOOD), size=8)
    assert splits.spec.classes == ("cat", "dog") and splits.spec.height == 8
    assert rows(splits) == [("1.png", "cat"), ("3.png", "cat"), ("2.png", "dog"), ("4.png", "dog")]
    assert splits.validation is None and splits.test is None and splits.warnings == ()


def test_shuffled_rows_are_the_same_samples_in_the_same_order(place: Path) -> None:
    header, *lines = GOOD.splitlines()
    one, other = (
        csv.load(table(place, "\n".join([header, *rows]), name))
        for name, rows in (("a.csv", lines), ("b.csv", lines[::-1]))
    )
    assert rows(one) == rows(other) and (one.train.targets == other.train.targets).all()


def test_classes_count_and_quotes_spaces_and_a_byte_order_mark_are_read(place: Path) -> None:
    text = '\ufeffid,"path",label\n1,"a/1.png",10\n2, a/2.png ,2\n3,b/3.png,"2"\n'
    assert csv.load(table(place, text)).spec.classes == ("2", "10")
    tabs = table(place, "path\tlabel\na/1.png\tx\na/2.png\ty\n", "labels.tsv")
    assert csv.load(tabs).spec.classes == ("x", "y")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_any_delimiter_and_unicode_encoding_give_the_same_table(
    name: str, delimiter: str, encoding: str, place: Path
) -> None:
    lines = [["Path", "Split", "label"], ["a/1.png", "TRAIN", "müll"], ["a/2.png", "Training", "b"]]
    lines.append(["b/3.png", "Eval", "b"])
    content = "".join(delimiter.join(line) + "\r\n" for line in lines).encode(encoding)
    splits = csv.load(table(place, content, name))
    assert splits.spec.classes == ("b", "müll") and rows(splits, "validation") == [("3.png", "b")]


def test_text_between_the_wrong_delimiters_is_no_column(place: Path) -> None:
    path = table(place, 'path;label;"a, b, or c"\na/1.png;x;1\na/2.png;y;2\n')
    assert csv.load(path).spec.classes == ("x", "y")
    with pytest.raises(DataError, match=r"x.csv:2: not UTF-16"):
        csv.load(table(place, "path,label\n".encode("utf-16") + b"a", "x.csv"))


def test_a_label_of_5000_digits_is_a_label(place: Path) -> None:
    digits = "9" * 5000
    path = table(place, f"path,label\na/1.png,{digits}\na/2.png,1\n")
    assert csv.load(path).spec.classes == ("1", digits)


def test_columns_may_have_other_names(place: Path) -> None:
    path = table(place, "file,breed\na/1.png,cat\na/2.png,dog\n")
    assert len(csv.load(path, path_column="file", label_column="breed").train) == 2


def test_a_split_column_or_a_folder_of_tables_tells_the_splits(place: Path) -> None:
    lines = ["a/1.png,cat", "a/2.png,dog", "b/3.png,cat", "b/4.png,dog"]
    words = ["train", "Train", "valid", "test"]
    text = "path,label,split\n" + "".join(f"{line},{word}\n" for line, word in zip(lines, words, strict=True))
    alone = csv.load(table(place, text))
    for name, chosen in (("train", lines[:2]), ("val", lines[2:3]), ("test", lines[3:])):
        table(place, "path,label\n" + "\n".join(chosen), f"{name}.csv")
    apart = csv.load(place)
    for splits in (alone, apart):
        assert rows(splits, "validation") == [("3.png", "cat")] and rows(splits, "test") == [("4.png", "dog")]
        assert "the validation split has no image of 'dog'." in splits.warnings


def test_rows_of_a_group_stay_together(place: Path) -> None:
    names = [f"{number}.png" for number in range(40)]
    for name in names:
        (place / name).write_bytes((place / "a/1.png").read_bytes())
    text = "path,label,who\n" + "".join(f"{name},{'ab'[n % 2]},{n // 4}\n" for n, name in enumerate(names))
    splits = csv.load(table(place, text), group_column="who", test=0.2)
    parts = split(splits, 0.25, 0)
    people = [{int(path.stem) // 4 for path in part.paths} for part in parts.values()]  # type: ignore[union-attr]
    assert sum(map(len, people)) == 10 and set.union(*people) == set(range(10)) and len(parts) == 3


def test_the_same_image_in_two_splits_is_warned_of(place: Path) -> None:
    text = "path,label,split\na/1.png,cat,train\na/2.png,dog,train\na/1.png,cat,test\n"
    assert (
        "1 of 1 test images are also in train: test metrics will be optimistic."
        in csv.load(table(place, text)).warnings
    )


def test_a_split_column_that_was_named_must_be_there(place: Path) -> None:
    with pytest.raises(DataError, match="has no column 'fold'"):
        csv.load(table(place, GOOD), split_column="fold")


BAD: list[tuple[str | bytes, str]] = [
    ("path,label\na/1.png,cat\na/9.png,dog\n", r"labels\.csv:3: there is no file '.*9\.png'"),
    ("path,label\na/1.png,cat\na,dog\n", r"labels\.csv:3: there is no file"),
    ("path,label\na/1.png,cat\n\na/2.png\n", r"labels\.csv:[34]: [01] fields"),
    ("path,label\na/1.png,cat\na/2.png, \n", r"labels\.csv:3: the field 'label' is empty"),
    ("path,label\n,cat\n", r"labels\.csv:2: the field 'path' is empty"),
    ("path,label\na/1.png,cat\na/1.png,dog\n", r"labels\.csv:3: '1\.png' is 'dog', but 'cat' at .*labels\.csv:2"),
    ("path,label\n../x.png,cat\n", r"labels\.csv:2: '\.\./x\.png' is outside .*outside=true"),
    ("path,label\n/etc/passwd,cat\n", r"labels\.csv:2: '/etc/passwd' is outside"),
    ("path,label\na/1.png,cat\na/2.png,Cat\n", r"labels\.csv: .*differ only in case"),
    ("path,label\na/1.png,cat\na/2.png,cat\n", r"labels\.csv: .*one class only, 'cat'"),
    ('path,label\na/1.png,"c\tat"\n', r"labels\.csv:2: the class name .* control character"),
    ('path,label\na/1.png,"cat\n', r"labels\.csv:2: "),
    ("path,label\n", "no sample"),
    ("", r"labels\.csv:1: has no column 'path'"),
    ("file,label\na/1.png,cat\n", r"labels\.csv:1: has no column 'path'\. .*path_column"),
    ("path,label,label\na/1.png,cat,dog\n", r"labels\.csv:1: has 2 columns"),
    ("path,label,split\na/1.png,cat,trian\n", r"labels\.csv:2: unknown split 'trian'.*'train'"),
    ("path,label,split\na/1.png,cat,train\na/2.png,dog,train\nb/3.png,cow,test\n", r"labels\.csv:4: .*'cow' is not in"),
    (b"path,label\na/\xff.png,cat\n", r"labels\.csv:2: byte 0xff is not UTF-8"),
    ("path,label\na/1.png\0,cat\na/2.png,dog\n", r"labels\.csv:2: "),
    ("path,label\rsplit\na/1.png,cat\n", r"labels\.csv:1: "),
]


@pytest.mark.parametrize(("content", "said"), BAD)
def test_a_bad_table_is_one_line_with_file_and_line(content: str | bytes, said: str, place: Path) -> None:
    with pytest.raises(DataError, match=said) as refused:
        csv.load(table(place, content))
    assert "\n" not in str(refused.value) and refused.value.exit_code == 4


def test_paths_outside_are_read_where_that_is_wanted(place: Path) -> None:
    (place / "tables").mkdir()
    text = f"path,label\n../a/1.png,cat\n{place}/a/2.png,dog\n"
    assert len(csv.load(table(place, text, "tables/labels.csv"), outside=True).train) == 2


def test_a_missing_table_is_reported(place: Path) -> None:
    for missing in (place / "none.csv", place / "a"):
        with pytest.raises(DataError, match=r"no such file|neither train\.csv"):
            csv.load(missing)


def test_labels_that_are_all_different_are_hardly_classes(place: Path) -> None:
    text = "path,label\n" + "".join(f"a/1.png,{number}\n" for number in range(1))
    for number in range(1100):
        (place / f"{number}.png").hardlink_to(place / "a/1.png")
        text += f"{number}.png,id{number}\n"
    with pytest.raises(DataError, match="Does the column contain classes"):
        csv.load(table(place, text))


def command(*arguments: Any) -> int:
    return run([str(argument) for argument in arguments])


def test_a_person_trains_and_evaluates_with_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(place, GOOD.replace("path,label", "file,label") + "b/5.png,cat\nb/6.png,dog\n")
    flags = ("--dataset", f"csv:{path}", "--path-column", "file", "--set", "data.size=8", "-j", 0, "--epochs", 1)
    assert (
        command("train", "mlp", *flags, "--validation", 0.4, "-b", 2, "--runs-dir", place / "runs", "--name", "a") == 0
    )
    assert command("eval", place / "runs/a", "--split", "validation", "--json") == 0
    capsys.readouterr()
    table(place, GOOD)
    assert command("train", "mlp", *flags, "--runs-dir", place / "runs") == 4
    said = capsys.readouterr().err
    assert "labels.csv:1: has no column 'file'" in said and said.count("\n") <= 4
