"""Rows 61 to 76: recipes and flags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bad_input.case import Attempt, Bench, Case

from dlkit.config.resolve import load

BASE = b"model: {name: mlp}\ndata: {name: shapes}\n"
BOMB = b"a: &a [x]\n" + b"".join(  # nine levels
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(8)
)
COUNTS = ("-1", "0", "1.5", "yes", "010")

REFUSED: list[tuple[int, str, bytes, str]] = [
    (61, "empty", b"", "is empty"),
    (61, "list", b"- model\n", "contains ['model']"),
    (61, "scalar", b"lenet5\n", "contains 'lenet5'"),
    (61, "not UTF-8", BASE + b"x: \xff\n", "is not UTF-8"),
    (61, "NUL", BASE + b"a: \0\n", "U+0000"),
    (63, "a key twice", BASE + b"train: {epochs: 1, epochs: 2}\n", "duplicate key"),
    (64, "python object", b"model: !!python/object/apply:os.system [touch evil]\n", "no tags"),
    (65, "alias bomb", BOMB, "no anchors"),
    (65, "self-alias", b"model: &x [*x]\n", "no anchors"),
    (66, "3,000 brackets", b"model: " + b"[" * 3000, "more than 20 levels"),
    (67, "400 KB list", b"a: [" + b"1, " * 133_000 + b"1]\n", "larger than 256 KiB"),
    (68, "unknown key", BASE + b"optimizer: {learning_rte: 1}\n", "Did you mean 'lr'?"),
    (69, "model", b"model: {name: os.system}\ndata: {name: shapes}\n", "model 'os.system' not found"),
    (69, "optimizer", BASE + b"optimizer: {name: builtins.eval}\n", "'builtins.eval'"),
    (69, "_component_", BASE + b"_component_: os.system\n", "no key '_component_'"),
    (69, "_target_", b"model: {name: mlp, _target_: os.system}\ndata: {name: shapes}\n", "no key '_target_'"),
    *[(70, text, BASE + f"train: {{epochs: {text}}}\n".encode(), "epochs") for text in COUNTS],
    (70, "5,000 digits", BASE + b"train: {epochs: " + b"9" * 5000 + b"}\n", "5000 digits"),
    *[(71, text, BASE + f"optimizer: {{lr: {text}}}\n".encode(), "lr") for text in (".nan", ".inf", "-1", '"fast"')],
    (72, "0", BASE + b"train: {batch_size: 0}\n", "batch_size"),
    (72, "10^12", BASE + b"train: {batch_size: 1000000000000}\n", "batch_size"),
]
LITERAL = ["~root/x", "$HOME/x", "file:///x", r"\\host\x", "../.."]  # paths; nothing in them is expanded
TEXTS = ["no", "12:30:45", "2026-01-31"]  # not false, 45045, or a date
FLAGS: list[tuple[str, str, str]] = [
    ("--seed -1", "train mlp shapes --seed -1", "seed"),
    ("--seed 2^64", f"train mlp shapes --seed {2**64}", "seed"),
    ("--workers 10^6", "train mlp shapes --workers 1000000", "workers"),
    ("--device cuda:9", "train mlp shapes --device cuda:9", "cuda:9"),
    ("--resume with a new name", "train --resume tiny --name other", "name"),
    ("a path that begins with -", "predict -x.png", "-x"),
    ("unknown command", "trian", "Did you mean 'train'?"),
]


def cases() -> Iterator[Case]:
    for row, name, data, says in REFUSED:
        yield Case(row, name, 2, _recipe(data), says)
    yield Case(61, "byte order mark", 0, _recipe(b"\xef\xbb\xbf" + BASE))
    yield Case(62, "lr: 1e-3", 0, _reads("optimizer.lr", b"optimizer: {lr: 1e-3}\n", 0.001))
    for text in LITERAL:
        yield Case(73, text, 0, _reads("data.dir", f"data: {{name: shapes, dir: '{text}'}}\n".encode(), text))
        yield Case(73, f"{text} as a folder", 4, _as_folder(text), "there is no such folder" if text != "../.." else "")
    for text in TEXTS:
        yield Case(74, text, 0, _reads("model.weights", f"model: {{name: mlp, weights: {text}}}\n".encode(), text))
    for kind in ("pipe", "folder", "device"):
        yield Case(75, kind, 2, _no_file(kind), "recipe")
    for name, line, says in FLAGS:
        yield Case(76, name, 2, _flags(line), says)


def _recipe(data: bytes) -> Attempt:
    return lambda bench: bench.recipe(data)


def _reads(key: str, text: bytes, expected: object) -> Attempt:
    """The recipe is read, and this is what stands under the key."""

    def attempt(bench: Bench) -> int:
        names = b"".join(line + b"\n" for line in BASE.splitlines() if line.split(b":")[0] != text.split(b":")[0])
        value: object = load(bench.write("recipe.yaml", names + text))
        for part in key.split("."):
            value = getattr(value, part)
        assert value == expected and type(value) is type(expected)
        return 0

    return attempt


def _as_folder(text: str) -> Attempt:
    """A data set's folder of that name is looked for as it is written, below the working folder."""

    def attempt(bench: Bench) -> int:
        (bench.folder / "a" / "b").mkdir(parents=True)
        bench.patch.chdir(bench.folder / "a" / "b")
        bench.patch.setenv("HOME", str(bench.folder))
        bench.image("x/a/1.png")
        bench.image("x/b/1.png", seed=1)
        return bench.run("train", "mlp", "--dataset", "folder", "--data-dir", text, "--runs-dir", bench.folder / "runs")

    return attempt


def _no_file(kind: str) -> Attempt:
    def attempt(bench: Bench) -> int:
        path = Path("/dev/zero") if kind == "device" else bench.folder / "recipe.yaml"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        return bench.run("train", "--recipe", path, "--dry-run")

    return attempt


def _flags(line: str) -> Attempt:
    def attempt(bench: Bench) -> int:
        bench.patch.chdir(bench.folder)
        return bench.run(*line.split())

    return attempt
