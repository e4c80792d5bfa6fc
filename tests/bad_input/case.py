"""A row of the corpus of bad input: what is given to dlkit, and the exit code that must come of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from corpus import encoded, picture

from dlkit.errors import DlkitError
from dlkit.runs.run_folder import RunFolder
from dlkit_cli import main


@dataclass
class Bench:
    """A folder, a trained run, and dlkit's command line, with what it wrote."""

    folder: Path
    trained: RunFolder
    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch
    out: str = ""
    err: str = ""

    def run(self, *arguments: object) -> int:
        """Run a command line in this process; its output replaces that of the one before."""
        code = main.run([str(argument) for argument in arguments])
        self.out, self.err = self.capture.readouterr()
        return code

    def write(self, name: str, data: bytes | str = b"") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def image(self, name: str = "good.png", seed: int = 0) -> Path:
        return self.write(name, encoded(picture(28, 28, seed=seed), "PNG"))

    def predict(self, *inputs: object) -> int:
        return self.run("predict", "--run", self.trained.path, "--json", *inputs)

    def weights(self, path: Path, *more: object) -> int:
        """Classify an image with a bare file of weights."""
        classes = self.write("classes.txt", "a\nb\nc\n")
        model = ["--model", "mlp", "--weights", path, "--img-size", "28", "--classes", classes]
        return self.run("predict", *model, *more, self.image())

    def train(self, *more: object, dataset: str = "folder:data") -> int:
        """Train a small network for an epoch, on a folder here unless other data are named."""
        small = ["mlp", dataset.replace("folder:data", f"folder:{self.folder / 'data'}"), "--epochs", "1", "-j", "0"]
        settings = ["--set", "data.size=8"] if dataset == "folder:data" else []
        return self.run("train", *small, *settings, "--runs-dir", self.folder / "runs", *more)

    def recipe(self, data: bytes | str, *more: object) -> int:
        return self.run("train", "--recipe", self.write("recipe.yaml", data), "--dry-run", *more)

    def copied_run(self) -> RunFolder:
        """A copy of the run, to be damaged."""
        path = self.folder / "runs" / "copy"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.trained.path, path)
        return RunFolder(path)

    def answers(self) -> list[dict[str, object]]:
        documents: list[dict[str, object]] = json.loads(self.out)
        return documents


Attempt = Callable[[Bench], int]


@dataclass(frozen=True)
class Case:
    """One input of a row: `attempt` prepares it, gives it to dlkit and returns the exit code."""

    row: int
    name: str
    code: int
    attempt: Attempt
    says: str = ""  # stands in what is written on stderr
    slow: bool = False
    decision: str = ""  # the later decision, where the row of the table expects something else

    def __str__(self) -> str:
        return f"{self.row:02}-{self.name}"


def exit_code(call: Callable[[], object]) -> int:
    """The exit code that a call of the library would end a command with."""
    try:
        call()
    except DlkitError as error:
        assert "\n" not in str(error)
        return error.exit_code
    return 0


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """A tree beside the input that nothing may change or add to."""
    bird = folder / "canary" / "deep" / "bird"
    bird.parent.mkdir(parents=True)
    bird.write_text("alive")
    before = _state(folder / "canary")
    yield
    assert _state(folder / "canary") == before
    assert not os.path.lexists(folder.parent / "evil") and not os.path.lexists(folder / "evil")


def _state(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))
