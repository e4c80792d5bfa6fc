"""`dlkit predict`: what a trained model sees in images, one answer for each input, in order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from . import console
from .eval import Checkpoint
from .inputs import (
    Classes,
    Count,
    ImgSize,
    Mean,
    ModelOptions,
    Null,
    Paths,
    Run,
    Std,
    StdinImage,
    Weights,
    begun,
    given,
    model_options,
    numbers,
)

COLUMNS = ("path", "rank", "class", "index", "probability", "error")
TABLE_COLUMNS = ("path", "rank", "class", "probability", "error")
UNCERTAINTY_COLUMNS = ("predictive_entropy", "mutual_information")  # with --mc-dropout, before the error
NODE_COLUMNS: tuple[str, ...] = ("path", "node", "parent", "word", "words", "class", "index", "probability", "error")


def predict_command(
    paths: Paths = None,
    null: Null = False,
    stdin_image: StdinImage = False,
    run: Run = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="An exported .onnx or .safetensors file; or a model by name, with --weights."),
    ] = None,
    weights: Weights = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="The data set whose images and classes the weights are for.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The folder that the data set is in.")] = None,
    classes: Classes = None,
    img_size: ImgSize = None,
    mean: Mean = None,
    std: Std = None,
    option: ModelOptions = None,
    topk: Annotated[int | None, typer.Option("--topk", help="How many classes to name (default: 5).")] = None,
    min_prob: Annotated[float, typer.Option("--min-prob", help="Leave out classes less probable than this.")] = 0.0,
    nodes: Annotated[bool, typer.Option("--nodes", help="Of trees, also answer every node.")] = False,
    mc_dropout: Annotated[
        int | None,
        typer.Option("--mc-dropout", metavar="N", help="Leave dropout on: the mean of N passes, and its uncertainty."),
    ] = None,
    abstain: Annotated[
        bool, typer.Option("--abstain", help="No class for inputs that the run's calibration abstains from.")
    ] = False,
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
    or dependency trees as CoNLL-U writes them, from a pipe or a .conllu file, each called by its first line.

    A bare file of weights answers with --model NAME --weights FILE and --dataset NAME, whose images need not be here,
    or --img-size N --classes FILE.

    After `dlkit calibrate` each record has set, the classes that may be right, abstained and unfamiliar, as far as
    they were calibrated; --abstain leaves out the classes of abstained inputs.

    Without --run or --model the newest run answers; where there is none at all, ResNet-50 with ImageNet's weights.
    An image that cannot be read is answered by an error and the rest go on: exit 3 where some failed, 4 where all did.
    """
    from dlkit.evaluation.predict import predict

    answers = predict(
        run, given(paths or [], null, stdin_image), model=model, weights=weights, dataset=dataset, data_dir=data_dir,
        classes=classes, img_size=img_size, mean=numbers(mean, "--mean"), std=numbers(std, "--std"),
        model_options=model_options(option), topk=topk, min_prob=min_prob, nodes=nodes, mc_dropout=mc_dropout,
        abstain=abstain, checkpoint=checkpoint.value, device=device, batch_size=batch_size, runs_dir=runs_dir,
        say=console.say,
    )  # fmt: skip
    count = Count()
    documents = count.of(begun(answers))
    resolved = console.resolve(format, json)
    if resolved in (console.Format.json, console.Format.jsonl):
        console.write_rows(documents, (), resolved)
    else:
        columns: tuple[str, ...] = TABLE_COLUMNS if resolved == console.Format.table else COLUMNS
        columns = NODE_COLUMNS if nodes else columns
        columns = (*columns[:-1], *answers.fields, *(UNCERTAINTY_COLUMNS if mc_dropout else ()), columns[-1])
        console.write_rows(chain.from_iterable(map(_rows, documents)), columns, resolved, stream=True)
    count.report()


def _rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The long form: a row for each rank, or one with the error; every input has at least one row."""
    path = {"path": document["path"]}
    if "error" in document:
        yield {**path, "error": document["error"]["message"]}
    elif "nodes" in document:
        yield from ({**path, **node} for node in document["nodes"])
    elif not document["predictions"]:
        yield {**path, **_decision(document)}
    else:
        more = {name: document[name] for name in UNCERTAINTY_COLUMNS if name in document} | _decision(document)
        yield from ({**path, **ranked, **more} for ranked in document["predictions"])


def _decision(document: dict[str, Any]) -> dict[str, Any]:
    """The decision's fields, a set as its classes with | between them."""
    found = {name: document[name] for name in ("abstained", "unfamiliar") if name in document}
    return found | ({"set": "|".join(document["set"])} if "set" in document else {})
