"""`dlkit predict`: what a trained model sees in images, one answer for each input, in order."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dlkit.errors import DataError, PartialError, UsageError

from . import console
from .eval import Checkpoint

if TYPE_CHECKING:
    from dlkit.data.inputs import Given
    from dlkit.verbs.predict import Failure, Prediction

COLUMNS = ("path", "rank", "class", "index", "probability", "error")
TABLE_COLUMNS = ("path", "rank", "class", "probability", "error")
DOUBT_COLUMNS = ("predictive_entropy", "mutual_information")  # with --mc-dropout, before the error
NODE_COLUMNS: tuple[str, ...] = ("path", "node", "parent", "words", "class", "index", "probability", "error")
STDIN_LIMIT = 512 << 20  # bytes of an image on stdin

Answer = TypeVar("Answer")


def predict_command(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Images, texts, folders, globs or URLs; - reads stdin: a line a path, or a line a text."),
    ] = None,
    null: Annotated[
        bool, typer.Option("-0", "--null", help="The paths on stdin end in NUL, as find -print0 writes.")
    ] = False,
    stdin_image: Annotated[bool, typer.Option("--stdin-image", help="Read one image's bytes from stdin.")] = False,
    run: Annotated[
        str | None, typer.Option("--run", help="A run's name or folder; the newest where none is given.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="An exported .onnx or .safetensors file; or a model by name, with --weights."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="For --model: imagenet, a run, or a .safetensors or .pt file."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="The data set whose images and classes the weights are for.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The folder that the data set is in.")] = None,
    topk: Annotated[int | None, typer.Option("--topk", help="How many classes to name (default: 5).")] = None,
    min_prob: Annotated[float, typer.Option("--min-prob", help="Leave out classes less probable than this.")] = 0.0,
    nodes: Annotated[bool, typer.Option("--nodes", help="Of trees, also answer every node.")] = False,
    mc_dropout: Annotated[
        int | None,
        typer.Option("--mc-dropout", metavar="N", help="Leave dropout on: the mean of N passes, and its uncertainty."),
    ] = None,
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="Which weights of the run.")] = Checkpoint.best,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Images at a time, at most.")] = 32,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="The folder that holds the runs.")] = Path("runs"),
    format: Annotated[
        console.Format, typer.Option("--format", help="How the answers are written.")
    ] = console.Format.auto,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Name what images show or what texts are, most probable first: files, folders, globs, URLs, or a pipe.

    A run trained on text reads .txt files, an example each, and with - lines of text, which it calls -:1, -:2 and so
    on; one trained on trees reads trees, as in: echo '(3 (2 a) (4 gem))' | dlkit predict - --nodes

    Without --run or --model the newest run answers; where there is none at all, ResNet-50 with ImageNet's weights.
    An image that cannot be read is answered by an error and the rest go on: exit 3 where some failed, 4 where all did.
    """
    from dlkit.verbs.predict import predict

    answers = predict(
        run, given(paths or [], null, stdin_image), model=model, weights=weights, dataset=dataset, data_dir=data_dir,
        topk=topk, min_prob=min_prob, nodes=nodes, mc_dropout=mc_dropout, checkpoint=checkpoint.value, device=device,
        batch_size=batch_size, runs_dir=runs_dir, say=console.say,
    )  # fmt: skip
    answers = begun(answers)
    count = Count()
    resolved = console.resolve(format, json)
    if resolved in (console.Format.json, console.Format.jsonl):
        console.write_rows((answer.document() for answer in count.of(answers)), (), resolved)
    else:
        columns: tuple[str, ...] = TABLE_COLUMNS if resolved == console.Format.table else COLUMNS
        columns = NODE_COLUMNS if nodes else columns
        if mc_dropout is not None:
            columns = (*columns[:-1], *DOUBT_COLUMNS, columns[-1])
        rows = chain.from_iterable(map(_rows, count.of(answers)))
        console.write_rows(rows, columns, resolved, stream=True)
    count.report()


@dataclass
class Count:
    """How many answers went by, and how many of them were failures."""

    all: int = 0
    failed: int = 0
    first: str = ""

    def of(self, answers: Iterable[Prediction | Failure]) -> Iterator[Prediction | Failure]:
        """The same answers, counted."""
        for answer in answers:
            error = answer.document().get("error")
            self.all += 1
            self.failed += error is not None
            if error is not None and not self.first:
                self.first = error["message"]
            yield answer

    def report(self) -> None:
        """Raise what the exit code should say.

        Raises:
            DataError: no input could be read. PartialError: some could not.
        """
        if self.all and self.failed == self.all:
            what = (
                "the input could not be read"
                if self.all == 1
                else f"none of the {self.all} inputs could be read, first"
            )
            raise DataError(f"{what}: {self.first}")
        if self.failed:
            raise PartialError(f"{self.failed} of {self.all} inputs could not be read, first: {self.first}")


def begun(answers: Iterator[Answer]) -> Iterator[Answer]:
    """The same answers, the first of them known: where the model cannot be loaded, stdout stays empty."""
    first = next(answers, None)
    return answers if first is None else chain([first], answers)


def given(paths: list[str], null: bool, stdin_image: bool) -> list[str | bytes] | Iterator[Given]:
    """What to answer: a list where all is known at once, an iterator where stdin brings it."""
    if stdin_image:
        if paths or null:
            raise UsageError("--stdin-image takes the image from stdin, and no paths.")
        return [_stdin_image()]
    if not paths and not null:
        raise UsageError("no input is named. Give files, folders, globs or URLs, or - to read paths from stdin.")
    if null and not paths:
        paths = ["-"]
    if null and "-" not in paths:
        raise UsageError("-0 says how paths stand on stdin: give - as well.")
    if paths.count("-") > 1:
        raise UsageError("- is given twice: stdin can be read once.")
    if "-" not in paths:
        return list(paths)
    from dlkit.data.inputs import Stream

    stream = Stream(_stdin_chunks(), b"\0" if null else b"\n")
    return iter([stream if path == "-" else path for path in paths])


def _stdin_chunks() -> Iterator[bytes]:
    """What arrives on stdin, as it arrives.

    Read from the descriptor itself: a thread that dies inside sys.stdin would hold its lock when the program ends.
    """
    while chunk := os.read(0, 1 << 16):
        yield chunk


def _stdin_image() -> bytes:
    data = sys.stdin.buffer.read(STDIN_LIMIT + 1)
    if len(data) > STDIN_LIMIT:
        raise DataError(f"the image on stdin has more than {STDIN_LIMIT >> 20} MiB.")
    return data


def _rows(answer: Prediction | Failure) -> Iterator[dict[str, Any]]:
    """The long form: a row for each rank, or one with the error; every input has at least one row."""
    document = answer.document()
    if "error" in document:
        yield {"path": answer.path, "error": document["error"]["message"]}
    elif "nodes" in document:
        yield from ({"path": answer.path, **node} for node in document["nodes"])
    elif not document["predictions"]:
        yield {"path": answer.path}
    else:
        doubts = {name: document[name] for name in DOUBT_COLUMNS if name in document}
        yield from ({"path": answer.path, **ranked, **doubts} for ranked in document["predictions"])
