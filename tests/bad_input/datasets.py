"""Rows 30 to 37: folders of one's own images."""

from __future__ import annotations

from collections.abc import Iterator

from bad_input.case import Attempt, Bench, Case

# the files of a folder ("NAME/" is an empty folder), and what the one line of error says
REFUSED: list[tuple[int, str, tuple[str, ...], str]] = [
    (30, "missing", (), "there is no such folder"),
    (30, "empty", ("data/",), "has no class folders"),
    (30, "a file", ("data",), "not a folder"),
    (31, "one class", ("data/a/1.png",), "one class only, 'a'"),
    (32, "no image", ("data/a/1.png", "data/b/"), "b: the class folder holds no image"),
    (34, "unknown class", ("data/train/a/1.png", "data/train/b/2.png", "data/val/d/3.png"), "'d' is not in train"),
    (36, "line break", ("data/a\nb/1.png", "data/c/2.png"), "line break"),
    (36, "case twins", ("data/Cat/1.png", "data/cat/2.png"), "differ only"),
    (36, "encoding twins", ("data/caf\u00e9/1.png", "data/cafe\u0301/2.png"), "differ only"),
]
HIDDEN = ("data/.ipynb_checkpoints/x.png", "data/__MACOSX/a/y.png", "data/Thumbs.db", "data/.DS_Store")


def cases() -> Iterator[Case]:
    for row, name, files, says in REFUSED:
        yield Case(row, name, 4, _trained_on(files), says)
    yield Case(33, "class missing in validation", 0, _missing_in_validation, "has no image of 'b'")
    yield Case(35, "hidden files", 0, _hidden_files)
    yield Case(36, "numbers", 0, _numbers_are_in_order)
    yield Case(36, "space and emoji", 0, _space_and_emoji)
    yield Case(36, "way out", 4, _way_out, "would be outside its parent")
    yield Case(37, "copies in train and validation", 0, _copies, "4 of 4")


def _trained_on(files: tuple[str, ...]) -> Attempt:
    def attempt(bench: Bench) -> int:
        for number, name in enumerate(files):
            if name.endswith("/"):
                (bench.folder / name).mkdir(parents=True)
            else:
                bench.image(name, seed=number)
        code = bench.train()
        assert not (bench.folder / "runs").exists() or not any((bench.folder / "runs").iterdir())
        return code

    return attempt


def _split(bench: Bench, split: str, classes: str, count: int, seed: int = 0) -> None:
    for number in range(count):
        name = classes[number % len(classes)]
        bench.image(f"data/{split}/{name}/{number}.png", seed=seed + number)


def _missing_in_validation(bench: Bench) -> int:
    _split(bench, "train", "abc", 12)
    _split(bench, "val", "ca", 6, seed=100)
    code = bench.train()
    assert _classes(bench) == ["a", "b", "c"]
    return code


def _hidden_files(bench: Bench) -> int:
    _split(bench, "", "ab", 20)
    for number, name in enumerate(HIDDEN):
        bench.image(name, seed=50 + number)
    code = bench.train()
    assert _classes(bench) == ["a", "b"]
    return code


def _numbers_are_in_order(bench: Bench) -> int:
    for number in range(30):
        bench.image(f"data/{(10, 1, 2)[number % 3]}/{number}.png", seed=number)
    code = bench.train()
    assert _classes(bench) == ["1", "2", "10"]
    return code


def _space_and_emoji(bench: Bench) -> int:
    for number in range(20):
        bench.image(f"data/{('a b', '😀')[number % 2]}/{number}.png", seed=number)
    code = bench.train()
    assert _classes(bench) == ["a b", "😀"]
    return code


def _way_out(bench: Bench) -> int:
    for number in range(4):
        bench.image(f"data/{number}.png", seed=number)
    rows = ["path,label", "0.png,a", "1.png,../x", "2.png,a", "3.png,../x"]
    table = bench.write("data/train.csv", "\n".join(rows) + "\n")
    return bench.train(dataset=f"csv:{table}")


def _copies(bench: Bench) -> int:
    _split(bench, "train", "ab", 12)
    _split(bench, "val", "ab", 4)
    return bench.train()


def _classes(bench: Bench) -> list[str]:
    import json

    (run,) = (bench.folder / "runs").glob("mlp-*")
    classes: list[str] = json.loads((run / "run.json").read_text())["spec"]["classes"]
    return classes
